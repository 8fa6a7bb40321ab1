"""What a member of MicroOVN answers in, the phase of its cluster's upgrade out. Pure.

Asked are, on the control socket, GET /core/1.0/cluster and, of each database, /1.0/ovsdb/schema/DB/active and
.../expected/all. Each member's snap is refreshed by itself, which restarts its switch; when all expect the new schemas,
the databases are converted.

1. A member that does not answer the others (error 1), or is too old to know the question (2), is not refreshed yet.
2. While the members' own database waits for an upgrade (dqlite), questions for schemas are refused, and statuses tell.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from exporters.migration.kinds import State

MEMBERS = "/core/1.0/cluster"
DATABASES = ("nb", "sb")
WAITING = ("UPGRADING", "NEEDS UPGRADE")

Text = Annotated[str, Meta(max_length=256)]


class _Member(msgspec.Struct):
    status: Text


class _Expected(msgspec.Struct):
    host: Text
    version: Text = msgspec.field(name="schemaVersion", default="")
    error: int = 0


class _Answer(msgspec.Struct):
    error_code: int = 0
    metadata: msgspec.Raw = msgspec.Raw(b"null")


class Schema(NamedTuple):
    """Of a database: the version that runs, and of each member which one it expects, "" where it does not say."""

    active: str
    expected: Mapping[str, str]


_read = msgspec.json.Decoder(_Answer).decode
_members = msgspec.json.Decoder(Annotated[list[_Member], Meta(max_length=1000)]).decode
_expected = msgspec.json.Decoder(Annotated[list[_Expected], Meta(max_length=1000)]).decode
_active = msgspec.json.Decoder(Text).decode


def paths() -> list[str]:
    """What is asked."""
    return [MEMBERS, *(path for each in DATABASES for path in _of(each))]


def _of(database: str) -> tuple[str, str]:
    root = f"/1.0/ovsdb/schema/{database}"
    return f"{root}/active", f"{root}/expected/all"


def read(answers: Mapping[str, bytes]) -> tuple[list[str], list[Schema]] | None:
    """Statuses of the members, and schemas as far as they are told; None where not even the former are.

    Raises msgspec.DecodeError.
    """
    members = _read(answers[MEMBERS])
    if members.error_code:
        return None
    schemas = []
    for each in DATABASES:
        active, expected = (_read(answers[path]) for path in _of(each))
        if not (active.error_code or expected.error_code):
            told = {one.host: "" if one.error else one.version for one in _expected(expected.metadata)}
            schemas.append(Schema(_active(active.metadata), told))
    return [each.status for each in _members(members.metadata)], schemas


def upgrade(statuses: Sequence[str], schemas: Sequence[Schema]) -> State:
    """The phase, and what part of the members or databases is done."""
    if any(each in WAITING for each in statuses):
        behind = statuses.count("NEEDS UPGRADE")
        return State("cluster upgrade", (len(statuses) - behind) / len(statuses), rolls=True)
    members = {member for schema in schemas for member in schema.expected}
    refreshed = {
        member
        for schema in schemas
        for member, version in schema.expected.items()
        if version not in ("", schema.active)
    }
    if not refreshed:
        return State()
    if refreshed != members:
        return State("cluster upgrade", len(refreshed) / len(members), rolls=True)
    done = [all(version == schema.active for version in schema.expected.values()) for schema in schemas]
    return State("database schema upgrade", sum(done) / len(done))
