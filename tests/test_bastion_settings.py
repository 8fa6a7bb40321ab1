"""What a bastion is told: the earlier dashboard's variables, its own options, and its shard of the streams."""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.bastion.settings import OPTIONS, BastionSettings, load_bastion
from exporters.bastion.shard import Shard, ours, shard
from exporters.bastion.ways import peers
from exporters.settings import BadInput, Stream, Tls

SOME = {"METALLB_PEERS": '{"peer-1-lb": "192.0.2.1"}', "HOSTNAME": "own"}
NODE_PORT = {"host": "node-1", "ws_port": 30080, "tcp_port": "30081", "http_port": 30082}


def load(environ: Mapping[str, str], *argv: str) -> BastionSettings:
    return load_bastion(argv, environ)


def problems(environ: Mapping[str, str], *argv: str) -> list[str]:
    with pytest.raises(BadInput) as caught:
        load({"HOSTNAME": "own", **environ}, *argv)
    return str(caught.value).splitlines()


def brief(streams: tuple[Stream, ...]) -> list[tuple[str, str, str, str, int]]:
    return [(each.target, each.path, each.protocol, each.host, each.port) for each in streams]


def test_the_dashboards_variables_make_its_streams() -> None:
    settings = load(
        {
            "HOSTNAME": "own",
            "METALLB_PEERS": '{"peer-1-lb": "192.0.2.1", "peer-2-lb": "2001:db8::2"}',
            "NODEPORT_PEERS": json.dumps({"peer-1-np": NODE_PORT}),
            "ROUTE_PEERS": "http://a.example, ,https://b.example:8443/below/,c.example",
        }
    )
    assert brief(settings.streams) == [
        ("peer-1", "loadbalancer", "http", "192.0.2.1", 8082),
        ("peer-1", "loadbalancer", "tcp", "192.0.2.1", 8081),
        ("peer-1", "loadbalancer", "ws", "192.0.2.1", 8080),
        ("peer-2", "loadbalancer", "http", "2001:db8::2", 8082),
        ("peer-2", "loadbalancer", "tcp", "2001:db8::2", 8081),
        ("peer-2", "loadbalancer", "ws", "2001:db8::2", 8080),
        ("peer-1", "nodeport", "http", "node-1", 30082),
        ("peer-1", "nodeport", "tcp", "node-1", 30081),
        ("peer-1", "nodeport", "ws", "node-1", 30080),
        ("peer-1", "route", "http", "a.example", 80),
        ("peer-2", "route", "http", "b.example", 8443),
        ("peer-3", "route", "http", "c.example", 443),
    ]
    assert [each.shown for each in settings.streams[::3]] == ["peer-1-lb", "peer-2-lb", "peer-1-np", "peer-1-route"]
    assert [each.family for each in settings.streams[:6]] == [4, 4, 4, 6, 6, 6]
    assert [(each.url_path, each.tls) for each in settings.streams[-3:]] == [
        ("/ping", None),
        ("/below/ping", Tls()),
        ("/ping", Tls()),
    ]


def test_defaults_are_the_dashboards() -> None:
    settings = load(SOME)
    assert {each.protocol: each.interval for each in settings.streams} == {"http": 1.0, "ws": 0.5, "tcp": 0.5}
    assert {each.patience for each in settings.streams} == {3.0}
    assert (settings.poll_interval, settings.web_listen, settings.max_history) == (1.0, ("", 9091), 200)
    assert settings.listen == {"http": ("", 8082), "tcp": ("", 8081), "ws": ("", 8080)}


def test_the_dashboards_numbers_are_taken() -> None:
    said = {
        "HTTP_INTERVAL": "2", "WS_INTERVAL": ".25", "TCP_INTERVAL": "1", "POLL_INTERVAL": "5", "RECONNECT_DELAY": "1.0",
        "HTTP_TIMEOUT": "1.0", "WS_OPEN_TIMEOUT": "2", "TCP_CONNECT_TIMEOUT": "4", "DASHBOARD_PORT": "9191",
        "MAX_HISTORY": "50",
    }  # fmt: skip
    settings = load({**SOME, **said})
    assert [(each.protocol, each.interval, each.patience) for each in settings.streams] == [
        ("http", 2.0, 1.0),
        ("tcp", 1.0, 4.0),
        ("ws", 0.25, 2.0),
    ]
    assert (settings.poll_interval, settings.web_listen, settings.max_history) == (5.0, ("", 9191), 50)


def test_nothing_configured_says_what_to_set() -> None:
    assert problems({}) == [
        "targets: nothing to probe: name targets in METALLB_PEERS, NODEPORT_PEERS, ROUTE_PEERS or the file's `targets:`"
    ]


def test_nodeports_of_one_target_are_streams_of_their_own() -> None:
    ports = {f"peer-1@node-{number}": NODE_PORT | {"host": f"node-{number}"} for number in (1, 2)}
    streams = load({"HOSTNAME": "own", "NODEPORT_PEERS": json.dumps(ports)}).streams
    assert len({each.key for each in streams}) == len(streams) == 6
    assert {(each.target, each.host) for each in streams} == {("peer-1@node-1", "node-1"), ("peer-1@node-2", "node-2")}
    assert list(peers(streams)) == ["peer-1"]


def test_two_nodeports_of_one_name_are_told_and_never_merged(tmp_path: Path) -> None:
    targets = [
        {"name": "peer-1", "path": "nodeport", "host": f"node-{number}", "ports": {"tcp": 1}} for number in (1, 2)
    ]
    (tmp_path / "b.yaml").write_text(json.dumps({"targets": targets}))
    (told,) = problems({}, f"--config.file={tmp_path / 'b.yaml'}")
    assert "duplicate name: peer-1 by nodeport over tcp, IPv4, is already probed" in told


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"METALLB_PEERS": '{"peer-1-lb":'}, "METALLB_PEERS: not JSON: Expecting value (line 1, column 14)"),
        ({"METALLB_PEERS": "{peer-1-lb: 192.0.2.1}"}, "METALLB_PEERS: not JSON: Expecting property name"),
        ({"METALLB_PEERS": "[" * 100_000}, "METALLB_PEERS: not JSON that can be read: nested too deep"),
        ({"METALLB_PEERS": '["192.0.2.1"]'}, "METALLB_PEERS: want a JSON object, names to addresses"),
        ({"METALLB_PEERS": '{"a": ""}'}, "METALLB_PEERS: a: want a host name or an address"),
        ({"METALLB_PEERS": '{"a": "http://b"}'}, "METALLB_PEERS: a: want a host name or an address"),
        ({"METALLB_PEERS": '{"a": 5}'}, "METALLB_PEERS: a: Input should be a valid string"),
        ({"METALLB_PEERS": '{"": "h"}'}, "METALLB_PEERS: .name: a name is wanted"),
        ({"METALLB_PEERS": '{"a\\n|": "h"}'}, "METALLB_PEERS: 'a\\n|.name': a name is printable"),
        ({"METALLB_PEERS": '{"a": "h", "a": "i"}'}, "METALLB_PEERS: a: duplicate key"),
        ({"NODEPORT_PEERS": '{"a": "h"}'}, "NODEPORT_PEERS: a: want an object with host, ws_port, tcp_port and"),
        ({"NODEPORT_PEERS": json.dumps({"a": NODE_PORT | {"port": 1}})}, "NODEPORT_PEERS: a.port: unknown key"),
        ({"NODEPORT_PEERS": json.dumps({"a": NODE_PORT | {"ws_port": 0}})}, "NODEPORT_PEERS: a.ws_port: Input should"),
        ({"NODEPORT_PEERS": json.dumps({"a": NODE_PORT | {"ws_port": "x"}})}, "NODEPORT_PEERS: a.ws_port: Input shou"),
        ({"ROUTE_PEERS": "ftp://a"}, "ROUTE_PEERS: peer-1-route: want http or https, not 'ftp'"),
        ({"ROUTE_PEERS": "http://"}, "ROUTE_PEERS: peer-1-route: want [http[s]://]HOST[:PORT][/PATH]"),
        ({"ROUTE_PEERS": "http://a:0"}, "ROUTE_PEERS: peer-1-route: want a port from 1 to 65535, not 0"),
        ({"ROUTE_PEERS": "http://a:99999"}, "ROUTE_PEERS: peer-1-route: Port out of range"),
        ({"ROUTE_PEERS": "http://me:secret@a"}, "ROUTE_PEERS: peer-1-route: want [http[s]://]HOST[:PORT][/PATH]"),
        ({"ROUTE_PEERS": "http://a/b?c"}, "ROUTE_PEERS: peer-1-route: want [http[s]://]HOST[:PORT][/PATH]"),
        ({"ROUTE_PEERS": "http://a b/"}, "ROUTE_PEERS: peer-1-route.host: want a host name or an address"),
        ({**SOME, "POLL_INTERVAL": "0"}, "POLL_INTERVAL: must be from 0.2 to 3600 seconds"),
        ({**SOME, "DASHBOARD_PORT": "web"}, "DASHBOARD_PORT: want HOST:PORT"),
        ({**SOME, "DASHBOARD_PORT": "99999"}, "DASHBOARD_PORT: want HOST:PORT"),
        ({**SOME, "OVNWATCH_SHARD": "3/3"}, "OVNWATCH_SHARD: want I/N with N up to 99 and I from 0 to N - 1"),
        ({**SOME, "RECONNECT_DELAY": "soon"}, "RECONNECT_DELAY: not a number: 'soon'"),
    ],
)
def test_what_is_wrong_with_a_variable_is_told_with_its_place(environ: dict[str, str], expected: str) -> None:
    found = problems(environ)
    assert len(found) == 1
    assert found[0].startswith(expected)
    assert "secret" not in found[0]


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    node_ports = {"a": {"host": "", "ws_port": 1, "tcp_port": 2}, "b": NODE_PORT | {"x": 1}}
    (tmp_path / "config.env").write_text(
        f"export NODEPORT_PEERS='{json.dumps(node_ports)}'\nROUTE_PEERS=ftp://a,ftp://b\nHTTP_INTERVAL=fast\n"
    )
    found = problems({}, f"--env-file={tmp_path / 'config.env'}", "--log.level=loud")
    assert [line.replace(f"{tmp_path}/", "") for line in found] == [
        "config.env:1: NODEPORT_PEERS: a.host: want a host name or an address, without scheme, brackets or port: ''",
        "config.env:1: NODEPORT_PEERS: a.http_port: required, but missing",
        "config.env:1: NODEPORT_PEERS: b.x: unknown key",
        "config.env:2: ROUTE_PEERS: peer-1-route: want http or https, not 'ftp'",
        "config.env:2: ROUTE_PEERS: peer-2-route: want http or https, not 'ftp'",
        "config.env:3: HTTP_INTERVAL: not a number: 'fast'",
        "--log.level: want one of debug, info, warn, error: 'loud'",
    ]


def test_a_file_adds_targets_and_times(tmp_path: Path) -> None:
    (tmp_path / "bastion.yaml").write_text(
        "poll_interval: 2\nlisten: {tcp: off}\n"
        "targets: [{name: shop, path: ingress, protocols: [http], url_path: /shop/ping}]\n"
    )
    settings = load(SOME, f"--config.file={tmp_path / 'bastion.yaml'}")
    assert [each.target for each in settings.streams] == ["shop", "peer-1", "peer-1", "peer-1"]
    assert settings.poll_interval == 2.0
    assert set(settings.listen) == {"http", "ws"}


def test_the_same_target_in_file_and_variable_is_a_duplicate(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("targets: [{name: peer-1, path: loadbalancer, protocols: [ws]}]\n")
    (found,) = problems(SOME, f"--config.file={tmp_path / 'b.yaml'}")
    assert found.startswith(
        "METALLB_PEERS: peer-1-lb: duplicate name: peer-1 by loadbalancer over ws, IPv4, is already probed"
    )


def test_names_that_would_be_one_stay_two() -> None:
    settings = load({"HOSTNAME": "own", "METALLB_PEERS": '{"peer-1-lb": "192.0.2.1", "peer-1": "192.0.2.2"}'})
    assert {each.target for each in settings.streams} == {"peer-1-lb", "peer-1"}


@pytest.mark.parametrize(
    "url",
    ["grafana", "ftp://grafana", "https://", "https://grafana?x=1", "https://me:secret@grafana", "javascript:alert(1)"],
)
def test_a_bad_address_of_grafana_is_told(url: str) -> None:
    (found,) = problems(SOME, f"--grafana.url={url}")
    assert found.startswith("--grafana.url: want a URL")


def test_grafana_may_be_below_a_path() -> None:
    settings = load_bastion(
        ["--grafana.url=https://example.com/grafana/", "--journal.path=off"], {**SOME, "HOSTNAME": "b"}
    )
    assert settings.grafana_url == "https://example.com/grafana"


@pytest.mark.parametrize("path", ["/", "/status", "/api/data", "/healthz", "/page/page.js", "/simple", "/-/ready"])
def test_metrics_stay_off_the_pages_own_paths(path: str) -> None:
    (found,) = problems(SOME, f"--web.telemetry-path={path}")
    assert found.startswith("--web.telemetry-path: want a path")


def outcome(environ: Mapping[str, str]) -> object:
    try:
        return load(environ).streams
    except BadInput as bad:
        return bad.problems


@given(st.dictionaries(st.sampled_from([option.variable for option in OPTIONS if option.variable]), st.text()))
def test_whatever_variables_say_is_settings_or_problems(environ: dict[str, str]) -> None:
    assert outcome(environ)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(json_values, st.sampled_from(["METALLB_PEERS", "NODEPORT_PEERS"]))
def test_whatever_json_says_is_settings_or_problems(value: object, variable: str) -> None:
    assert outcome({variable: json.dumps(value)})


# --- shards


def streams(count: int, source: str = "s") -> list[Stream]:
    return [
        Stream(source, f"t{number}", "route", protocol, 4, "h", 80, 1.0, 0.15, 3.0)
        for number in range(count)
        for protocol in ("http", "tcp", "ws")
    ]


@pytest.mark.parametrize("total", [1, 2, 3, 7])
def test_every_stream_is_in_exactly_one_shard_and_they_are_about_equal(total: int) -> None:
    sizes = Counter(number for each in streams(400) for number in range(total) if ours(each, Shard(number, total)))
    assert sum(sizes.values()) == 1200
    assert all(abs(sizes[number] - 1200 / total) < 5 * (1200 / total) ** 0.5 for number in range(total))


def test_shards_agree_though_each_has_a_name_of_its_own() -> None:
    for mine, same in zip(streams(50, "bastion-0"), streams(50, "bastion-1"), strict=True):
        assert ours(mine, Shard(0, 2)) != ours(same, Shard(1, 2))


def test_one_shard_more_moves_streams_to_itself_only() -> None:
    for each in streams(200):
        (before,) = (number for number in range(3) if ours(each, Shard(number, 3)))
        (after,) = (number for number in range(4) if ours(each, Shard(number, 4)))
        assert after in (before, 3)


@given(st.text())
def test_a_shard_is_read_or_refused(text: str) -> None:
    try:
        number, total = shard(text)
    except ValueError:
        return
    assert 0 <= number < total


def test_a_shard_keeps_its_part_and_may_be_empty() -> None:
    parts = [load(SOME, f"--shard={number}/9").streams for number in range(9)]
    assert sorted(each.key for part in parts for each in part) == sorted(each.key for each in load(SOME).streams)
    assert () in parts
