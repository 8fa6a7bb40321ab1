"""Wall time as text and back: ISO 8601 in UTC, as every page and history writes it. Pure."""

from datetime import UTC, datetime


def iso(wall: float) -> str:
    """Return wall seconds as ISO 8601 with microseconds and UTC's offset."""
    return datetime.fromtimestamp(wall, UTC).isoformat(timespec="microseconds")


def seconds(text: str) -> float:
    """Return the wall seconds of an ISO 8601 time with an offset. Raises ValueError for anything else."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"a time without an offset: {text!r}")
    return found.timestamp()
