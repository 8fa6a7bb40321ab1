"""What a board would ask: its queries as Grafana would send them, with everything chosen. Pure."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

# What Grafana fills in besides its variables, and what of it a range and a step give.
DEFAULT_STEP = 15.0
RATE_STEPS = 4  # $__rate_interval is at least four scrapes long


class Asked(NamedTuple):
    """One query of one panel; `instant`: for now alone, else over the whole range, a value each `step` seconds."""

    panel: str
    ref: str
    expr: str
    instant: bool
    step: float

    @property
    def name(self) -> str:
        return f"{self.panel} {self.ref}"


def panels(board: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All panels and rows, those in collapsed rows too."""
    for panel in board["panels"]:
        yield panel
        yield from panel.get("panels", ())


def everything(board: Mapping[str, Any]) -> dict[str, str]:
    """The values of its variables when all is chosen: matchers for any value, and the first of a setting's."""
    made = {}
    for each in board["templating"]["list"]:
        made[each["name"]] = each["current"]["value"] if each["type"] == "custom" else each.get("allValue") or ".+"
    return made


def timed(seconds: float, step: float = DEFAULT_STEP) -> dict[str, str]:
    """The values of what Grafana fills in for a range and a step."""
    rate = f"{max(RATE_STEPS * step, step + 15):g}s"
    return {
        "__range": f"{seconds:g}s",
        "__range_s": f"{seconds:g}",
        "__interval": f"{step:g}s",
        "__rate_interval": rate,
    }


def filled(expr: str, values: Mapping[str, str]) -> str:
    """An expression with its variables' values; KeyError for one that has none."""
    return re.sub(r"\$(\w+)", lambda found: values[found[1]], expr)


def step_of(panel: Mapping[str, Any], seconds: float, step: float) -> float:
    """Seconds between two values of a panel in a range, `step` if it has points enough."""
    return max(step, seconds / (panel.get("maxDataPoints") or math.inf))


def asked(
    board: Mapping[str, Any], seconds: float, step: float = DEFAULT_STEP, values: Mapping[str, str] | None = None
) -> list[Asked]:
    """All queries of a board over a range; `values` for what is not to be as `everything` and `timed` say."""
    found = []
    for panel in panels(board):
        apart = step_of(panel, seconds, step)
        known = {**everything(board), **timed(seconds, apart), **(values or {})}
        found += [
            Asked(panel["title"], target["refId"], filled(target["expr"], known), target.get("instant", False), apart)
            for target in panel.get("targets", ())
        ]
    return found
