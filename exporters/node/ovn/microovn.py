"""What MicroOVN says of its cluster: its members, and whether the databases have the schema that is installed.

GET /core/1.0/cluster                   {"type": "sync", "status_code": 200, "metadata": [
                                          {"name": "node-1", "address": "10.0.0.1:6443", "role": "voter",
                                           "status": "ONLINE", "schema_internal_version": 3, …}, …]}
GET /1.0/ovsdb/schema/sb/active         {…, "metadata": "20.27.0"}     as the database has it
GET /1.0/ovsdb/schema/sb/expected       {…, "metadata": "20.33.0"}     as installed on this member

A refusal is {"type": "error", "error_code": 500, "error": "…"}. Members begin to upgrade a schema when the last of them
has the new software; until then active and expected differ.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from exporters.node.failing import GarbledError, RefusedError
from exporters.node.rows import Row

MEMBERS = "/core/1.0/cluster"
DATABASES = {"nb": "OVN_Northbound", "sb": "OVN_Southbound", "switch": "Open_vSwitch"}
STATES = ("online", "unreachable", "not_trusted", "not_found", "needs_upgrade", "upgrading")
OTHER = "other"  # a state that we do not know
MOST = 100  # members that are named
LONGEST_VERSION = 40


def schema(database: str, which: str) -> str:
    """Where a schema's version is; `which` is active or expected."""
    return f"/1.0/ovsdb/schema/{database}/{which}"


def answer(body: bytes) -> Any:
    """What an answer is about. Raises GarbledError, RefusedError."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise GarbledError("MicroOVN answers what nobody can read") from error
    match told:
        case {"type": "sync", "metadata": found}:
            return found
        case {"type": "error"}:
            raise RefusedError(f"MicroOVN refuses: {str(told.get('error'))[:200]}")
    raise GarbledError("MicroOVN answers something else")


def member_rows(told: Any) -> Iterator[Row]:
    """Members by state, and each. Raises GarbledError."""
    if not isinstance(told, list):
        raise GarbledError("MicroOVN's members are no list")
    members = [_member(each) for each in told]
    counts = Counter(state for _, _, state in members)
    for state in (*STATES, OTHER):
        yield Row("ovnwatch_microovn_members", (state,), counts[state])
    for name, role, state in members[:MOST]:
        yield Row("ovnwatch_microovn_member_info", (name, role, state), 1)


def _member(told: Any) -> tuple[str, str, str]:
    match told:
        case {"name": str(name), "status": str(status)}:
            state = status.lower().replace(" ", "_")
            role = told.get("role")
            return name, role.lower() if isinstance(role, str) else "", state if state in STATES else OTHER
    raise GarbledError("a member of MicroOVN's has no name or status")


def schema_rows(versions: Mapping[str, tuple[Any, Any]]) -> Iterator[Row]:
    """Of each database (nb, sb, switch) the active and the expected version of its schema. Raises GarbledError."""
    for short, found in versions.items():
        active, expected = map(_version, found)
        database = DATABASES[short]
        yield Row("ovnwatch_microovn_schema_info", (database, active, expected), 1)
        yield Row("ovnwatch_microovn_schema_upgrade_pending", (database,), active != expected)


def _version(told: Any) -> str:
    if not isinstance(told, str) or not told.strip():
        raise GarbledError("MicroOVN tells a schema's version that is none")
    return told.strip()[:LONGEST_VERSION]
