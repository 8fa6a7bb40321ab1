"""Recorded API histories, as they are replayed: a start state, then what changed at each moment."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

SAMPLES = Path(__file__).parent / "data" / "histories"
Object = dict[str, Any]
Key = tuple[str, str, str]


def key(each: Object) -> Key:
    about = each["metadata"]
    return each["apiVersion"] + each["kind"], about.get("namespace", ""), about["name"]


def changes(story: str) -> Iterator[tuple[str, list[tuple[bool, Object]]]]:
    """Each moment of a story, by its number: what is there (True) or gone then, one after the other."""
    files = sorted((SAMPLES / story).glob("[0-9][0-9]-*.yaml"))
    assert files, f"no story {story} in {SAMPLES}"
    for number in sorted({file.name[:2] for file in files}):
        yield (
            number,
            [
                (not file.name.endswith(".deleted.yaml"), each)
                for file in files
                if file.name.startswith(number)
                for each in yaml.load(file.read_text(), yaml.CSafeLoader)["items"]
            ],
        )


def moments(story: str) -> Iterator[tuple[str, list[Object]]]:
    """Each moment of a story, by its number, with all objects there are then."""
    known: dict[Key, Object] = {}
    for number, changed in changes(story):
        for there, each in changed:
            if there:
                known[key(each)] = each
            else:
                known.pop(key(each), None)
        yield number, list(known.values())
