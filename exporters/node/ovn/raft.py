"""A database's server and its part in a cluster: `cluster/status`, and its row of the database `_Server`.

Server ID: 3136 (3136951f-eb5b-41ff-ba05-c7db13c9a19f)
Status: cluster member
Role: leader
Term: 1
Leader: self                                      or four letters, or `unknown`
Election timer: 1000
Log: [2, 15]                                      first and next
Entries not yet committed: 0
Entries not yet applied: 0
Disconnections: 0                                 not in older versions
Servers:
    43d0 (43d0 at tcp:172.31.0.103:6643) next_index=15 match_index=14 last msg 195 ms ago
    3136 (3136 at tcp:172.31.0.101:6643) (self) next_index=2 match_index=14
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from exporters.node.failing import GarbledError
from exporters.node.ovsdb import Row as DbRow
from exporters.node.ovsdb import one
from exporters.node.rows import Row, named

FLAGS = re.MULTILINE | re.ASCII
FIELD = re.compile(r"^([A-Z][A-Za-z ]{0,40}): (.{1,200}?)\s*$", FLAGS)
LOG = re.compile(r"\[(\d{1,20}), (\d{1,20})\]", re.ASCII)
SERVER = re.compile(r"^ {4}(\w{4}) \(\w{4} at ([^\s)]{1,200})\)(.{0,300})$", FLAGS)
MATCH = re.compile(r"match_index=(\d{1,20})", re.ASCII)
AGE = re.compile(r"last msg (\d{1,20}) ms ago", re.ASCII)
ROLES = ("leader", "follower", "candidate")
SERVER_TABLES = {"Database": ("name", "model", "connected", "leader", "schema")}
LONGEST_VERSION = 40


class Member(NamedTuple):
    """Another member: entries it lacks, seconds since it was heard; None where this one does not know."""

    address: str
    behind: int | None
    heard: float | None


class Cluster(NamedTuple):
    """A member of a cluster; `leader` is an id of four letters, "" where it knows none."""

    role: str
    member: bool
    term: int
    leader: str
    election_seconds: float
    first: int
    following: int
    uncommitted: int
    unapplied: int
    disconnections: int | None
    members: int
    others: tuple[Member, ...]


def parse(text: str) -> Cluster:
    """Raises GarbledError."""
    fields = dict(FIELD.findall(text))
    log = LOG.fullmatch(fields.get("Log", ""))
    servers = SERVER.findall(text)
    if not log or fields.get("Role") not in ROLES or not servers:
        raise GarbledError("cluster/status is not what it should be")
    said = str(fields.get("Leader", "unknown"))
    leader = {"self": str(fields.get("Server ID", "")), "unknown": ""}.get(said, said)[:4]
    following = int(log[2])
    disconnections = fields.get("Disconnections")
    return Cluster(
        role=fields["Role"],
        member=fields.get("Status") == "cluster member",
        term=_number(fields, "Term"),
        leader=leader,
        election_seconds=_number(fields, "Election timer") / 1000,
        first=int(log[1]),
        following=following,
        uncommitted=_number(fields, "Entries not yet committed"),
        unapplied=_number(fields, "Entries not yet applied"),
        disconnections=None if disconnections is None else _number(fields, "Disconnections"),
        members=len(servers),
        others=tuple(_member(address, rest, following) for _, address, rest in servers if "(self)" not in rest),
    )


def _member(address: str, text: str, following: int) -> Member:
    match, age = MATCH.search(text), AGE.search(text)
    behind = max(following - 1 - int(match[1]), 0) if match else None
    return Member(address, behind, int(age[1]) / 1000 if age else None)


def _number(fields: Mapping[str, str], name: str) -> int:
    if not re.fullmatch(r"[0-9]{1,20}", fields.get(name, "")):
        raise GarbledError(f"cluster/status has no number where {name} should be")
    return int(fields[name])


def rows(database: str, cluster: Cluster) -> Iterator[Row]:
    for role in ROLES:
        yield Row("ovnwatch_ovn_raft_role", (database, role), cluster.role == role)
    found = {
        "ovnwatch_ovn_raft_member": cluster.member,
        "ovnwatch_ovn_raft_term": cluster.term,
        "ovnwatch_ovn_raft_leader_known": bool(cluster.leader),
        "ovnwatch_ovn_raft_election_timer_seconds": cluster.election_seconds,
        "ovnwatch_ovn_raft_log_entries": cluster.following - cluster.first,
        "ovnwatch_ovn_raft_entries_uncommitted": cluster.uncommitted,
        "ovnwatch_ovn_raft_entries_unapplied": cluster.unapplied,
        "ovnwatch_ovn_raft_disconnections_total": cluster.disconnections,
        "ovnwatch_ovn_raft_members": cluster.members,
    }
    yield from named(found, (database,))
    for each in cluster.others:
        # Only a leader knows how far the others are.
        behind = each.behind if cluster.role == "leader" else None
        told = {
            "ovnwatch_ovn_raft_peer_entries_behind": behind,
            "ovnwatch_ovn_raft_peer_heard_seconds": each.heard,
        }
        yield from named(told, (database, each.address))


class Served(NamedTuple):
    """A database as its server has it; connected: with most of its cluster, if it has one."""

    model: str
    connected: bool
    leads: bool
    schema: str


def served(database: str, rows_of_server: list[DbRow]) -> Served:
    """Raises GarbledError where the server has no such database."""
    for row in rows_of_server:
        if row["name"] == database:
            version = schema_version(str(one(row["schema"]) or ""))
            return Served(str(row["model"]), row["connected"] is True, row["leader"] is True, version)
    raise GarbledError(f"the server has no {database}")


def schema_version(text: str) -> str:
    """The version in a schema's text; "" where it says none."""
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    version = found.get("version") if isinstance(found, dict) else None
    return version[:LONGEST_VERSION] if isinstance(version, str) else ""


def served_rows(database: str, found: Served, packaged: str) -> Iterator[Row]:
    yield Row("ovnwatch_ovn_database_info", (database, found.model, found.schema, packaged), 1)
    yield Row("ovnwatch_ovn_database_connected", (database,), found.connected)


class Led(NamedTuple):
    """Who leads, how often that changed since we look, and when it last did, in Unix time; None: never."""

    leader: str
    changes: int
    last: float | None


def step(before: Led | None, leader: str, now: float) -> Led:
    """What we know of the leader after another look. Nobody leading is no change; another one leading then is."""
    if before is None:
        return Led(leader, 0, None)
    if not leader or leader == before.leader:
        return before
    return Led(leader, before.changes + 1, now) if before.leader else before._replace(leader=leader)


def led_rows(database: str, led: Led) -> Iterator[Row]:
    yield Row("ovnwatch_ovn_raft_leader_changes_total", (database,), led.changes)
    yield from named({"ovnwatch_ovn_raft_leader_change_timestamp_seconds": led.last}, (database,))
