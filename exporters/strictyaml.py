"""YAML text and a pydantic model in, a checked instance out, or every problem at once, each with its line and key path.

1. A mapping key is its text as written: `on:` is "on". A key that stands twice is a problem; the first one counts.
2. Numbers, booleans and dates are what YAML says; the model decides, strictly, whether that type is wanted.
3. Aliases work, but what they expand to is counted and the depth is bounded, so no file costs more than it shows.
   Merge keys (`<<`) are unknown keys: YAML 1.2 has none.
"""

from typing import Any, NamedTuple, NoReturn, TypeVar

import pydantic
import yaml

MAX_VALUES = 300_000  # after alias expansion; 10 000 streams with every key written out are about a third of it
MAX_DEPTH = 32

# libyaml reads a file of 10 000 streams ten times faster; the pure loader has the same rules.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STR, _PLAIN_TAGS = "tag:yaml.org,2002:str", {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}
_MESSAGES = {
    "extra_forbidden": "unknown key",
    "missing": "required, but missing",
    "model_type": "a mapping is wanted here",
}

_Model = TypeVar("_Model", bound=pydantic.BaseModel)
Path = tuple[str | int, ...]  # of keys and indexes: ("targets", 0, "ports")


class Problem(NamedTuple):
    """One thing wrong and its place: `peer.yaml:12: targets[0].ports.http`, `--web.listen-address`, `PEERS`."""

    place: str
    message: str


class BadInput(Exception):  # noqa: N818 - it names what happened to the user, who never sees a traceback
    """What the user gave cannot be used; `problems` holds everything that is wrong with it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = [Problem(_one_line(place), _one_line(message)) for place, message in problems]

    def __str__(self) -> str:
        return "\n".join(f"{problem.place}: {problem.message}" for problem in self.problems)


def _one_line(text: str) -> str:
    """The text; one that would break the line, or the terminal it is shown on, with escapes."""
    return text if text.isprintable() else "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def parse(text: str, model: type[_Model], name: str) -> _Model:
    """Read one YAML document into `model`; an empty one is an empty mapping. `name` is the file's name in places.

    Raises BadInput with all problems: syntax, duplicate and unknown keys, wrong types, failed validators.
    """
    document = load(text, name)
    checked = document.check(model, document.data)
    if checked is None or document.problems:
        raise BadInput(document.in_order())
    return checked


def load(text: str, name: str) -> "Document":
    """Read one YAML document as plain data, for callers that check parts of it each by itself with `check`.

    Raises BadInput where nothing can be read: syntax, too deep, too large.
    """
    document = Document(name)
    try:
        document.read(text)
    except yaml.reader.ReaderError as error:
        # Its text is two lines, and its position counts bytes or characters, as the loader does.
        character = chr(error.character)
        line = text.count("\n", 0, max(text.find(character), 0)) + 1
        document.add(f"unacceptable character {character!r}: {error.reason}", (), line)
        raise BadInput(document.in_order()) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        said = [getattr(error, "context", None), getattr(error, "problem", None)]
        document.add(", ".join(filter(None, said)) or str(error), (), mark.line + 1 if mark else 1)
        raise BadInput(document.in_order()) from None
    return document


def without_notes(data: Any) -> Any:
    """A model's `before` validator that lets keys starting with `x-` pass: room for anchors and notes of the user's."""
    if isinstance(data, dict):
        return {key: value for key, value in data.items() if not str(key).startswith("x-")}
    return data


class Document:
    """One YAML text as plain data, the line of every path in it, and the problems found, each with its line."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.data: Any = None
        self.lines: dict[Path, int] = {(): 1}
        self.problems: list[tuple[int, Problem]] = []
        self.values = 0

    def check(self, model: type[_Model], data: Any, path: Path = ()) -> _Model | None:
        """The part of the text at `path` as `model`; None, and its problems noted, where it does not fit."""
        try:
            return model.model_validate(data, strict=True)
        except pydantic.ValidationError as error:
            for each in error.errors(include_url=False, include_context=False, include_input=False):
                where = self.known((*path, *each["loc"]))
                missing = each["loc"][-1:] if each["type"] == "missing" else ()
                message = _MESSAGES.get(each["type"], each["msg"].removeprefix("Value error, "))
                self.add(message, (*where, *missing), self.lines[where])
            return None

    def place(self, path: Path) -> str:
        """Where a path stands: `peer.yaml:12: targets[0].ports.http`; what is not in the text, where its parent is."""
        return self.spell(path, self.lines[self.known(path)])

    def spell(self, path: Path, line: int) -> str:
        spelled = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
        return f"{self.name}:{line}" + (f": {spelled}" if spelled else "")

    def add(self, message: str, path: Path, line: int) -> None:
        self.problems.append((line, Problem(self.spell(path, line), message)))

    def in_order(self) -> list[Problem]:
        return [problem for _, problem in sorted(dict.fromkeys(self.problems), key=lambda each: each[0])]

    def known(self, location: tuple[int | str, ...]) -> Path:
        """The longest path of the text within a validation error's location, which also names union members."""
        path: Path = ()
        for part in location:
            path = (*path, part) if (*path, part) in self.lines else path
        return path

    def read(self, text: str) -> None:
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):  # before anything recursive sees the text
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else 1
                self.refuse(f"nested deeper than {MAX_DEPTH} levels", (), line)
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            self.data = {} if node is None else self.plain(loader, node, ())
        finally:
            loader.dispose()

    def refuse(self, message: str, path: Path, line: int) -> NoReturn:
        self.add(message, path, line)
        raise BadInput(self.in_order())

    def plain(self, loader: Any, node: yaml.Node, path: Path) -> Any:
        self.values += 1
        if self.values > MAX_VALUES:
            self.refuse(f"more than {MAX_VALUES} values once aliases are expanded", (), 1)
        if len(path) > MAX_DEPTH:
            self.refuse(f"aliases nest deeper than {MAX_DEPTH} levels", path[:1], self.lines[path[:1]])
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(loader, node, path)
        if node.tag not in _PLAIN_TAGS:
            self.add(f"unknown tag {node.tag}", path, self.lines[path])
        if isinstance(node, yaml.MappingNode):
            return self.mapping(loader, node, path)
        items = []
        for index, item in enumerate(node.value):
            self.lines[*path, index] = item.start_mark.line + 1
            items.append(self.plain(loader, item, (*path, index)))
        return items

    def scalar(self, loader: Any, node: yaml.ScalarNode, path: Path) -> Any:
        if node.tag not in (_STR, loader.resolve(yaml.ScalarNode, node.value, (True, False))):
            self.add(f"unknown tag {node.tag}", path, self.lines[path])
            return node.value
        try:
            return loader.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError) as error:  # 2026-13-45, a date to YAML
            self.add(f"cannot read {node.value!r}: {getattr(error, 'problem', error)}", path, self.lines[path])
            return node.value

    def mapping(self, loader: Any, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self.add("a key must be one plain word", path, line)
            elif key.value in found:
                here = (*path, key.value)
                self.add(f"duplicate key, first on line {self.lines[here]}", here, line)
            else:
                self.lines[*path, key.value] = line
                found[key.value] = self.plain(loader, value, (*path, key.value))
        return found
