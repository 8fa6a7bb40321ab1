"""What is in an OVSDB: rows of its tables, in one transaction, by JSON-RPC (RFC 7047) on the server's socket."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exporters.node.failing import GarbledError, RefusedError
from exporters.node.rpc import Deadline, JsonRpc

Row = Mapping[str, Any]
ATOMS = (str, int, float)
MOST = 1 << 64  # no number of OVS is as large, and no float of a page should be infinite


def select(
    socket: Path, database: str, tables: Mapping[str, Sequence[str]], deadline: Deadline
) -> dict[str, list[Row]]:
    """Return the rows of each table with the columns named, as they were at one moment.

    A column's value is a number, str or bool, a list of these, or a dict; a UUID is its text.
    """
    wanted = [{"op": "select", "table": table, "where": [], "columns": list(of)} for table, of in tables.items()]
    with JsonRpc(socket, deadline) as server:
        error, results = server.ask("transact", [database, *wanted])
    if error is not None:
        raise RefusedError(f"{database}: {str(error)[:200]}")
    return rows_of(tables, results)


def rows_of(tables: Mapping[str, Sequence[str]], results: Any) -> dict[str, list[Row]]:
    """The rows in the result of such a transaction, one list for each table. Raises RefusedError, GarbledError."""
    if not isinstance(results, list) or not all(isinstance(each, dict) for each in results):
        raise GarbledError("the database's answer is no list of results")
    for each in results:
        if "error" in each:
            raise RefusedError(f"the database refuses: {str(each.get('details') or each['error'])[:200]}")
    if len(results) < len(tables):
        raise GarbledError("the database's answer is too short")
    return {
        table: [_row(columns, row) for row in _rows(result)]
        for (table, columns), result in zip(tables.items(), results, strict=False)
    }


def _rows(result: Mapping[str, Any]) -> list[Any]:
    rows = result.get("rows")
    if not isinstance(rows, list):
        raise GarbledError("a result of the database has no rows")
    return rows


def _row(columns: Sequence[str], row: Any) -> Row:
    if not isinstance(row, dict) or not row.keys() >= set(columns):
        raise GarbledError("a row of the database lacks columns")
    return {column: plain(row[column]) for column in columns}


def plain(value: Any) -> Any:
    """A value as JSON has it, `["set", [...]]` and so on, as a list, dict or atom; RFC 7047 section 5.1."""
    if isinstance(value, ATOMS):
        return value
    match value:
        case ["map", list(pairs)] if all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            # Of most maps every key and value is an atom, and there are thousands of maps.
            return {_atom(key): item if isinstance(item, ATOMS) else _atom(item) for key, item in pairs}
        case ["set", list(items)]:
            return [_atom(item) for item in items]
    return _atom(value)


def _atom(value: Any) -> Any:
    """Sets and maps have nothing else in them."""
    if isinstance(value, ATOMS):
        return value
    match value:
        case ["uuid", str(text)]:
            return text
    raise GarbledError("a value of the database is none that RFC 7047 knows")


def one(value: Any) -> Any:
    """The value of an optional column: None for an empty set."""
    return (value[0] if value else None) if isinstance(value, list) else value


def uuids(value: Any) -> list[str]:
    """The UUIDs of a set, which stands without brackets when there is one. Raises GarbledError."""
    found = value if isinstance(value, list) else [value]
    if not all(isinstance(each, str) for each in found):
        raise GarbledError("the database has something else where a UUID should be")
    return found


def uuid(row: Row) -> str:
    """The UUID of a row. Raises GarbledError."""
    found = uuids(row["_uuid"])
    if len(found) != 1:
        raise GarbledError("a row of the database has not one UUID")
    return found[0]
