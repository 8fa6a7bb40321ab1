"""YAML in, a checked model out, or every problem with its place."""

import pytest
import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from exporters import strictyaml
from exporters.strictyaml import BadInput, parse


class Ports(BaseModel):
    model_config = ConfigDict(extra="forbid")
    http: int | None = Field(default=None, ge=1, le=65535)
    ws: int | None = None


class Target(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    ports: Ports = Ports()
    interval: float | dict[str, float] = 1.0

    @field_validator("name")
    @classmethod
    def no_bar(cls, name: str) -> str:
        if "|" in name:
            raise ValueError("no | in a name")
        return name


class File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    targets: list[Target] = []
    source: str = ""
    notes = model_validator(mode="before")(strictyaml.without_notes)


def problems(text: str) -> list[str]:
    with pytest.raises(BadInput) as caught:
        parse(text, File, "peer.yaml")
    return str(caught.value).splitlines()


def test_a_good_file_becomes_the_model() -> None:
    file = parse("source: a\ntargets:\n- {name: b, ports: {http: 80}, interval: 2}\n", File, "f")
    assert file == File(source="a", targets=[Target(name="b", ports=Ports(http=80), interval=2.0)])


def test_an_empty_file_is_an_empty_mapping() -> None:
    assert parse("# nothing yet\n", File, "f") == File()


def test_all_problems_come_at_once_each_with_line_and_path() -> None:
    text = """\
sourc: a
targets:
- name: 7
  ports:
    http: 99999
- ports: {http: "80"}
- name: a|b
  interval: soon
source: b
source: c
"""
    assert problems(text) == [
        "peer.yaml:1: sourc: unknown key",
        "peer.yaml:3: targets[0].name: Input should be a valid string",
        "peer.yaml:5: targets[0].ports.http: Input should be less than or equal to 65535",
        "peer.yaml:6: targets[1].name: required, but missing",
        "peer.yaml:6: targets[1].ports.http: Input should be a valid integer",
        "peer.yaml:7: targets[2].name: no | in a name",
        "peer.yaml:8: targets[2].interval: Input should be a valid number",
        "peer.yaml:8: targets[2].interval: Input should be a valid dictionary",
        "peer.yaml:10: source: duplicate key, first on line 9",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("targets: [", "peer.yaml:2: while parsing a flow node, did not find expected node content"),
        ("source: a\nb\n", "peer.yaml:3: while scanning a simple key, could not find expected ':'"),
        (
            "source: a\n---\nsource: b\n",
            "peer.yaml:2: expected a single document in the stream, but found another document",
        ),
        ("source: \x00\n", "peer.yaml:1: "),
        ("- a\n", "peer.yaml:1: a mapping is wanted here"),
        ("source: *gone\n", "peer.yaml:1: found undefined alias"),
        ("source: !!python/object:os.system ls\n", "peer.yaml:1: source: unknown tag tag:yaml.org,2002:python/object"),
        ("source: !!int ''\n", "peer.yaml:1: source: unknown tag tag:yaml.org,2002:int"),
        ("source: 1" + ":00" * 200 + ".5\n", "peer.yaml:1: source: cannot read '1:00:00:"),
        ("targets: !mine [a]\n", "peer.yaml:1: targets: unknown tag !mine"),
        ("source: 2026-13-45\n", "peer.yaml:1: source: cannot read '2026-13-45': month must be in 1..12"),
        ("? [a]\n: b\n", "peer.yaml:1: a key must be one plain word"),
        ("source: yes\n", "peer.yaml:1: source: Input should be a valid string"),
        ("x: &x {source: a}\n<<: *x\n", "peer.yaml:1: x: unknown key"),
    ],
)
def test_what_is_not_plain_yaml_is_named_with_its_line(text: str, expected: str) -> None:
    assert problems(text)[0].startswith(expected)


def test_keys_are_their_text_so_on_is_not_true() -> None:
    assert problems("on: 1\n") == ["peer.yaml:1: on: unknown key"]


def test_x_keys_carry_anchors_where_the_model_lets_them() -> None:
    file = parse("x-ports: &p {http: 80}\ntargets:\n- {name: a, ports: *p}\n- {name: b, ports: *p}\n", File, "f")
    assert [target.ports.http for target in file.targets] == [80, 80]
    assert problems("targets:\n- {name: a, x-y: 1}\n") == ["peer.yaml:2: targets[0].x-y: unknown key"]


def test_billion_laughs_is_refused_not_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strictyaml, "MAX_VALUES", 30_000)
    lines = ["x-0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"x-{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
    assert problems("\n".join(lines)) == ["peer.yaml:1: more than 30000 values once aliases are expanded"]


@pytest.mark.parametrize("text", ["x: &x [*x]\n", "x: &x {y: *x}\n", "[" * 5000, "{a: " * 5000])
def test_depth_is_bounded(text: str) -> None:
    assert "nest" in problems(text)[0]


def test_the_pure_loader_has_the_same_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(strictyaml, "_Loader", yaml.SafeLoader)
    test_all_problems_come_at_once_each_with_line_and_path()
    test_depth_is_bounded("[" * 5000)
