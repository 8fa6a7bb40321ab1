"""The committed dashboards against Grafana's own schemas, as its foundation SDK publishes them for Python.

Its models read and write every key they know and check no value: a key that is gone after both is none of Grafana's,
and what they read is held here against the types that they are declared with.
"""

import enum
import json
import types
import typing
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it would rather have the schema that only Grafana 12 reads
    from grafana_foundation_sdk.cog import encoder, plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

FILES = sorted((Path(__file__).parents[1] / "grafana/dashboards").glob("*.json"))
BOARDS = {file.stem: json.loads(file.read_text()) for file in FILES}
# Keys that Grafana's newest schema does not know, and why they are there.
EXCEPTED = {".panels[].options.tooltip.show": "Grafana 9 asks a heatmap for it"}

plugins.register_default_plugins()


def unknown(ours: Any, known: Any, path: str = "") -> Iterator[str]:
    """The paths of what is ours and was not understood. What has a default may be there although it is not ours."""
    if isinstance(ours, dict) and isinstance(known, dict):
        for key, value in ours.items():
            here = f"{path}.{key}"
            yield from unknown(value, known[key], here) if key in known else [here]
    elif isinstance(ours, list) and isinstance(known, list) and len(ours) == len(known):
        for one, other in zip(ours, known, strict=True):
            yield from unknown(one, other, f"{path}[]")
    elif ours != known:
        yield f"{path}: {ours!r} became {known!r}"


def misfits(value: Any, hint: Any, path: str = "") -> Iterator[str]:
    """The paths of values that are not of their types. Enumerations are read as their plain values."""
    if isinstance(value, dict) and hasattr(hint, "from_json"):  # the models leave some parts as they are
        yield from unknown(value, plain(hint.from_json(value)), path)
        value = hint.from_json(value)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        # Of several types the one that fits best is told about.
        yield from min((list(misfits(value, each, path)) for each in arguments), key=depth)
    elif origin is list and isinstance(value, list):
        for each in value:
            yield from misfits(each, arguments[0], f"{path}[]")
    elif origin is dict and isinstance(value, dict):
        for key, each in value.items():
            yield from misfits(each, arguments[1], f"{path}.{key}")
    elif origin is typing.Literal:
        if value not in arguments:
            yield f"{path}: {value!r} is none of {arguments}"
    elif not fits(value, origin or hint):
        yield f"{path}: {value!r} is no {hint}"
    elif hasattr(type(value), "to_json"):
        hints = typing.get_type_hints(type(value))
        for name, each in vars(value).items():
            yield from misfits(each, hints[name], f"{path}.{name}")


def plain(model: Any) -> Any:
    return json.loads(encoder.JSONEncoder().encode(model))


def depth(problems: list[str]) -> tuple[int, int]:
    """No problem comes first, then the ones that are found deepest: there the type was read right so far."""
    return (1 if problems else 0, -min((each.partition(":")[0].count(".") for each in problems), default=0))


def fits(value: Any, wanted: Any) -> bool:
    if wanted in (Any, object):
        return True
    if issubclass(wanted, enum.Enum):
        return value in [each.value for each in wanted]
    if isinstance(value, bool):
        return wanted is bool
    return isinstance(value, (int, float) if wanted is float else wanted)


def wrong(board: dict[str, Any]) -> set[str]:
    return {*unknown(board, plain(Dashboard.from_json(board))), *misfits(Dashboard.from_json(board), Dashboard)}


@pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)
def test_a_board_is_of_grafanas_schema(board: dict[str, Any]) -> None:
    assert wrong(board) <= EXCEPTED.keys()


def test_an_exception_is_needed() -> None:
    assert set().union(*map(wrong, BOARDS.values())) == EXCEPTED.keys()


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("sorts",), [], ".sorts"),
        (("graphTooltip",), 3, ".graph_tooltip: 3"),
        (("refresh",), 10, ".refresh: 10"),
        (("panels", 1, "legend"), {}, ".panels[].legend"),
        (("panels", 1, "gridPos", "w"), "3", ".panels[].grid_pos.w: '3'"),
        (("panels", 1, "options", "colorMode"), "loud", ".panels[].options.color_mode: 'loud'"),
        (("panels", 1, "options", "reduceOptions", "values"), 1, ".panels[].options.reduce_options.values: 1"),
        (("panels", 1, "fieldConfig", "defaults", "thresholds", "mode"), "", ".thresholds.mode: ''"),
        (("panels", 1, "targets", 0, "instant"), "yes", ".panels[].targets[].instant: 'yes'"),
        (("panels", -1, "transformations", 0, "id"), 1, ".panels[].transformations[].id_val: 1"),
        (("panels", -1, "transformations", 0, "name"), "", ".panels[].transformations[].name"),
    ],
)
def test_what_grafana_does_not_know_is_found(where: tuple[Any, ...], value: Any, said: str) -> None:
    board = json.loads(json.dumps(BOARDS["overview"]))
    *way, last = where
    place = board
    for each in way:
        place = place[each]
    place[last] = value
    assert any(said in each for each in wrong(board)), wrong(board)
