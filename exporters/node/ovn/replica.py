"""What we keep of a database: rows of its tables, as monitor updates tell them (`monitor_cond`, ovsdb-server(7)).

{"Chassis": {"d0ac98df-…": {"initial": {"name": "ch1"}}}}       or "insert": columns that have their default are absent
{"Chassis": {"d0ac98df-…": {"modify": {"name": "ch2"}}}}        of a set or map only the difference, else the new value
{"Chassis": {"d0ac98df-…": {"delete": null}}}

A difference has the elements that come or go; of a map also those whose value is another one. So what is kept of a set
or map may not lose what tells its elements apart: of values that nobody asks for a hash is kept.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from exporters.node.failing import GarbledError, NotCollectedError
from exporters.node.ovsdb import MOST, plain

MOST_ROWS = 1_000_000  # that are kept


class Column(NamedTuple):
    """How a column is kept. `kind`: scalar (also one that may be empty), set or map; `keep`: which keys of a map.

    `default` is what a new row has that does not name the column; `shorten` is done to values of a map.
    """

    kind: str
    default: Any
    keep: frozenset[str] | None = None
    shorten: Callable[[Any], Any] | None = None


TEXT, NUMBER, OPTIONAL = Column("scalar", ""), Column("scalar", 0), Column("scalar", None)
SET = Column("set", frozenset())
Shape = Mapping[str, Mapping[str, Column]]  # tables, columns; a table without columns is only counted


def options(*keys: str) -> Column:
    """A map of which only these keys are kept."""
    return Column("map", {}, frozenset(keys))


def map_of(shorten: Callable[[Any], Any]) -> Column:
    return Column("map", {}, None, shorten)


def lacking(shape: Shape, schema: Any) -> Iterator[str]:
    """What a database's schema lacks of a shape, in words. Raises GarbledError for what is no schema."""
    tables = schema.get("tables") if isinstance(schema, dict) else None
    if not isinstance(tables, dict):
        raise GarbledError("the database's schema is none")
    for table, columns in shape.items():
        known = tables.get(table)
        if not isinstance(known, dict) or not isinstance(known.get("columns"), dict):
            yield f"table {table}"
            continue
        yield from (f"column {table}.{column}" for column in columns if column not in known["columns"])


def request(shape: Shape) -> dict[str, Any]:
    """What to ask `monitor_cond` for; of tables that are only counted, that rows come or go: see `counting`."""
    only = {"columns": [], "select": {"initial": False, "modify": False}}
    return {table: [{"columns": list(columns)} if columns else only] for table, columns in shape.items()}


def counting(table: str) -> dict[str, Any]:
    """The operation of a transaction that counts: without their UUIDs, rows that are the same would be told once."""
    return {"op": "select", "table": table, "where": [], "columns": ["_uuid"]}


class Replica:
    """Rows as tuples in the order of a shape's columns, by UUID; of tables without columns only how many there are."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.rows: dict[str, dict[str, tuple[Any, ...]]] = {table: {} for table, columns in shape.items() if columns}
        self.counts = dict.fromkeys((table for table, columns in shape.items() if not columns), 0)

    def count(self, table: str) -> int:
        return len(self.rows[table]) if table in self.rows else self.counts[table]

    def counted(self, table: str, results: Any) -> None:
        """Take over what came of `counting`. Raises GarbledError."""
        match results:
            case [{"rows": list(rows)}]:
                self.counts[table] = len(rows)
            case _:
                raise GarbledError("a result of the database has no rows")

    def apply(self, updates: Any) -> set[str]:
        """Take over what a message tells; the tables that it told of. Raises GarbledError, NotCollectedError."""
        if not isinstance(updates, dict) or not updates.keys() <= self.shape.keys():
            raise GarbledError("the database tells of tables that nobody asked for")
        for table, rows in updates.items():
            if not isinstance(rows, dict):
                raise GarbledError("the database tells something else where rows should be")
            for uuid, change in rows.items():
                self._change(table, uuid, change)
        if sum(map(len, self.rows.values())) > MOST_ROWS:
            raise NotCollectedError(f"the database has more than {MOST_ROWS} rows")
        return set(updates)

    def _change(self, table: str, uuid: str, change: Any) -> None:
        match change:
            case {"initial": dict(new)} | {"insert": dict(new)}:
                if table in self.counts:
                    self.counts[table] += 1
                else:
                    columns = self.shape[table]
                    self.rows[table][uuid] = tuple(_new(columns[name], new, name) for name in columns)
            case {"delete": None}:
                if table in self.counts:
                    self.counts[table] -= 1
                elif self.rows[table].pop(uuid, None) is None:
                    raise GarbledError("the database removes a row that was not there")
            case {"modify": dict(new)} if table in self.rows:
                before = self.rows[table].get(uuid)
                if before is None:
                    raise GarbledError("the database changes a row that was not there")
                self.rows[table][uuid] = tuple(
                    _changed(column, old, new[name]) if name in new else old
                    for (name, column), old in zip(self.shape[table].items(), before, strict=True)
                )
            case _:
                raise GarbledError("the database tells a change that is none")


def _new(column: Column, row: Mapping[str, Any], name: str) -> Any:
    return _value(column, row[name]) if name in row else column.default


def _value(column: Column, told: Any) -> Any:
    """A whole value."""
    value = plain(told)
    if column.kind == "scalar":
        return _scalar(column, value)
    if column.kind == "set":
        return frozenset(_atoms(value))
    return dict(_kept(column, value))


def _scalar(column: Column, value: Any) -> Any:
    if isinstance(value, dict) or (isinstance(value, list) and len(value) > 1):
        raise GarbledError("the database has many values where one should be")
    found = (value[0] if value else None) if isinstance(value, list) else value
    if column.default is not None and type(found) is not type(column.default):
        raise GarbledError("the database has something else where a text or a number should be")
    if isinstance(found, int) and abs(found) >= MOST:
        raise GarbledError("the database has a number that is none of OVSDB's")
    return found


def _atoms(value: Any) -> Sequence[Any]:
    found = value if isinstance(value, list) else [value]
    if any(isinstance(each, list | dict) for each in found):
        raise GarbledError("the database has something else where a set should be")
    return found


def _kept(column: Column, value: Any) -> Iterator[tuple[Any, Any]]:
    if not isinstance(value, dict):
        raise GarbledError("the database has something else where a map should be")
    for key, each in value.items():
        if column.keep is None or key in column.keep:
            yield key, column.shorten(each) if column.shorten else each


def _changed(column: Column, old: Any, told: Any) -> Any:
    """A value after a change."""
    new = _value(column, told)
    if column.kind == "scalar":
        return new
    if column.kind == "set":
        return old ^ new
    after = dict(old)
    for key, each in new.items():
        if after.get(key) == each:
            del after[key]
        else:
            after[key] = each
    return after
