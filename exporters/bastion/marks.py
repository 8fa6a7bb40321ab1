"""What people say of a migration night: named windows with a budget, and notes. Each is an event in the journal.

1. One window is open at a time. It survives a restart as it is, since it is no measurement.
2. A window is an item of kind `window` and cause `named`; `text` is its name, `budget_seconds` what it may cost. A note
   is one of kind `note`, and `text` what it says. Where somebody cleared is a window, too, with the cause `cleared`.
"""

import json
import unicodedata
from collections import OrderedDict
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from exporters import times
from exporters.probing.record import Record

MOST = 500  # marks that are kept in memory
DAY = 86400.0
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class WindowOpenError(Exception):
    """There is one open already; args[0] is its name."""


class NoWindowError(Exception):
    """None is open."""


def _line(text: str) -> str:
    """Text in one line, without anything a terminal obeys."""
    line = " ".join(text.split())
    if not line:
        raise ValueError("want a text that is not empty")
    if any(unicodedata.category(each) in ("Cc", "Cf", "Cs", "Co") for each in line):
        raise ValueError("want a text without control characters")
    return line


class NewWindow(BaseModel):
    """The body of a request that opens a window."""

    model_config = _STRICT
    name: Annotated[str, Field(max_length=100), AfterValidator(_line)]
    budget_seconds: Annotated[float, Field(gt=0, le=30 * DAY)] | None = None


class NewNote(BaseModel):
    """The body of a request that adds a note."""

    model_config = _STRICT
    text: Annotated[str, Field(max_length=500), AfterValidator(_line)]


class Marks:
    """All windows, notes and clearings of one bastion; `items` are the newest of them, by id, as /history has them."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self.version = 0  # rises with every change
        self.items: OrderedDict[str, dict[str, Any]] = OrderedDict()
        if record.journal is not None:
            for row in record.journal.rows("kind IN ('window', 'note')", newest=MOST):
                self.keep(json.loads(row.item))

    @property
    def window(self) -> dict[str, Any] | None:
        """The one that is open."""
        return next((each for each in reversed(self.items.values()) if each["state"] == "open"), None)

    def start(self, wanted: NewWindow, now: float) -> dict[str, Any]:
        """Open a window at `now` (Unix time). Raises WindowOpenError."""
        if self.window is not None:
            raise WindowOpenError(self.window["text"])
        more = {
            "id": f"{self._record.journal_id[:8]}-window-{int(now * 1e6):x}",
            "state": "open",
            "end_time": None,
            "end": {"earliest": None, "latest": None},
            "text": wanted.name,
            "budget_seconds": wanted.budget_seconds,
        }
        return self.keep(self._record.note("window", "named", now, now, more))

    def end(self, now: float) -> dict[str, Any]:
        """Close the window. Raises NoWindowError."""
        window = self.window
        if window is None:
            raise NoWindowError
        begin = times.seconds(window["start_time"])
        kept = {name: window[name] for name in ("id", "text", "budget_seconds")}
        return self.keep(self._record.note("window", "named", begin, max(now, begin), kept))

    def note(self, wanted: NewNote, now: float) -> dict[str, Any]:
        """Add a note at `now` (Unix time)."""
        return self.keep(self._record.note("note", "noted", now, now, {"text": wanted.text}))

    def clear(self, now: float) -> None:
        """Hide from the history what is over; see Record.clear."""
        self.keep(self._record.clear(now))

    def keep(self, item: dict[str, Any]) -> dict[str, Any]:
        """Show it; it is in the record already."""
        self.version += 1
        self.items[item["id"]] = item
        while len(self.items) > MOST:
            del self.items[next(key for key, each in self.items.items() if each["state"] != "open")]
        return item
