"""The file that says what a window may cost: YAML in, limits out, or every problem at once with its line. Pure.

paths: {pod: 10, service: 15}   # seconds in which anything of the path may be out
turn_seconds: 30                # in each node's turn
longest_seconds: 20             # no single outage longer
collateral_seconds: 5
unexplained_seconds: 0          # 0 where nothing is said
total_seconds: 60               # else the window's own budget
"""

from typing import Annotated

from pydantic import BaseModel, Field

from exporters import strictyaml
from exporters.targets import STRICT, PathKind
from exporters.verdict.budget import Limits

Seconds = Annotated[float, Field(ge=0, le=30 * 86400.0)]


class LimitsFile(BaseModel):
    model_config = STRICT
    paths: dict[PathKind, Seconds] = Field(default_factory=dict)
    turn_seconds: Seconds | None = None
    longest_seconds: Seconds | None = None
    collateral_seconds: Seconds | None = None
    unexplained_seconds: Seconds = 0.0
    total_seconds: Seconds | None = None


def read(text: str, name: str) -> Limits:
    """The limits of a file's text. Raises BadInput."""
    said = strictyaml.parse(text, LimitsFile, name)
    return Limits(
        paths={str(path): limit for path, limit in said.paths.items()},
        total=said.total_seconds,
        turn=said.turn_seconds,
        longest=said.longest_seconds,
        collateral=said.collateral_seconds,
        unexplained=said.unexplained_seconds,
    )
