"""From flags, environment and file to settings, or to every problem with its place."""

import io
import math
import socket
import ssl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.bastion.settings import load_bastion
from exporters.peer.settings import OPTIONS, PEER, PeerSettings, load_peer
from exporters.settings import BadInput, Stream, Tls, at_start, fits

ALONE = {"HOSTNAME": "own", "PEERS": "own,other"}


def load(
    file: str = "", argv: list[str] | None = None, environ: Mapping[str, str] = {}, folder: Path | None = None
) -> PeerSettings:
    if folder:
        (folder / "peer.yaml").write_text(file)
        argv = [f"--config.file={folder / 'peer.yaml'}", *(argv or [])]
    return load_peer(argv or [], environ)


def problems(
    file: str, folder: Path, argv: list[str] | None = None, environ: Mapping[str, str] = {"HOSTNAME": "own"}
) -> list[str]:
    with pytest.raises(BadInput) as caught:
        load(file, argv, environ, folder)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_every_peer_that_is_no_name_is_told() -> None:
    with pytest.raises(BadInput) as bad:
        load_peer([], {"HOSTNAME": "own", "PEERS": "a,http://x,b,*"})
    assert [(each.place, each.message.partition(": ")[2]) for each in bad.value.problems] == [
        ("PEERS", "'http://x'"),
        ("PEERS", "'*'"),
    ]


@pytest.mark.parametrize("flag", ["--config.file", "--env-file"])
def test_a_file_without_end_is_a_problem(flag: str) -> None:
    with pytest.raises(BadInput, match="/dev/zero is longer than"):
        load_peer([f"{flag}=/dev/zero"], ALONE)


def test_the_earlier_systems_environment_makes_three_streams_for_every_other_peer() -> None:
    settings = load_peer([], {"HOSTNAME": "a", "PEERS": "a, b,,c", "WS_INTERVAL": "0.2", "HTTP_TIMEOUT": "1"})
    assert settings.source == "a"
    assert [stream.key for stream in settings.streams] == [
        f"a|{target}|service|{protocol}|4" for target in ("b", "c") for protocol in ("http", "tcp", "ws")
    ]
    assert [(s.host, s.port, s.interval, s.prompt, s.patience) for s in settings.streams[:3]] == [
        ("b", 8082, 0.5, 0.15, 1.0),
        ("b", 8081, 0.1, 0.06, 3.0),
        ("b", 8080, 0.2, 0.12, 3.0),
    ]
    assert settings.listen == {"http": ("", 8082), "tcp": ("", 8081), "ws": ("", 8080)}
    assert (settings.web_listen, settings.telemetry_path, settings.max_history) == (("", 8083), "/metrics", 200)


def test_every_key_of_a_target_reaches_its_streams(tmp_path: Path) -> None:
    file = """\
source: here
targets:
- name: shop
  path: route
  host: shop.example
  family: [4, 6]
  ports: {http: 443}
  interval: 1
  prompt: {http: 0.1}
  patience: 2
  tls: {server_name: shop.example, insecure_skip_verify: true}
  node: n1
  zone: z1
  url_path: /app/ping
"""
    tls = Tls(server_name="shop.example", verify=False)
    assert load(file, folder=tmp_path).streams == tuple(
        Stream(
            "here", "shop", "route", "http", family, "shop.example", 443, 1.0, 0.1, 2.0, tls, "n1", "z1", "/app/ping"
        )
        for family in (4, 6)
    )


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("{name: t}", [("http", 4, 8082), ("tcp", 4, 8081), ("ws", 4, 8080)]),
        ("{name: t, ports: {ws: 30080, http: 30082}}", [("http", 4, 30082), ("ws", 4, 30080)]),
        ("{name: t, ports: {tcp: 1}, protocols: [tcp, ws], interval: 1}", [("tcp", 4, 1), ("ws", 4, 8080)]),
        ("{name: t, host: 'fd00::1', protocols: [tcp]}", [("tcp", 6, 8081)]),
        ("{name: 192.0.2.1, protocols: [tcp]}", [("tcp", 4, 8081)]),
        ("{name: t, family: 6, protocols: [ws]}", [("ws", 6, 8080)]),
    ],
)
def test_protocols_ports_and_families_have_sensible_defaults(
    target: str, expected: list[tuple[str, int, int]], tmp_path: Path
) -> None:
    settings = load(f"targets:\n- {target}\n", folder=tmp_path)
    assert [(stream.protocol, stream.family, stream.port) for stream in settings.streams] == expected


def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    file = "node: f\nzone: f\nlog: {level: warn}\ndefaults: {interval: {ws: 1, tcp: 1}}\npeers: [f]\n"
    environ = {"HOSTNAME": "own", "NODE_NAME": "e", "OVNWATCH_ZONE": "e", "WS_INTERVAL": "2", "PEERS": "e"}
    settings = load(file, ["--zone", "g", "--peers=g"], environ, tmp_path)
    assert (settings.node, settings.zone, settings.log_level) == ("e", "g", "warn")
    assert [(stream.target, stream.interval) for stream in settings.streams] == [("g", 0.5), ("g", 1.0), ("g", 2.0)]


def test_a_file_of_variables_stands_between_environment_and_configuration_file(tmp_path: Path) -> None:
    (tmp_path / "config.env").write_text("export PEERS='f'\nHTTP_INTERVAL=2 # slowly\nWS_INTERVAL=2\nNODE_NAME=n\n")
    file = "defaults: {interval: {http: 3}}\npeers: [g]\n"
    flag = f"--env-file={tmp_path / 'config.env'}"
    settings = load(file, [flag], {"HOSTNAME": "own", "WS_INTERVAL": "1", "PEERS": ""}, tmp_path)
    assert [(stream.target, stream.interval) for stream in settings.streams] == [("f", 2.0), ("f", 0.1), ("f", 1.0)]
    assert settings.source == "n"


def test_what_a_file_of_variables_gets_wrong_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "config.env").write_text("\nPEERS=a,a\nHTTP_INTERVALS=1\nWS_INTERVAL=fast\nMAX_HISTORY='1\n")
    with pytest.raises(BadInput) as caught:
        load_peer([f"--env-file={tmp_path / 'config.env'}"], {"HOSTNAME": "own"})
    assert sorted(str(caught.value).replace(f"{tmp_path}/", "").splitlines()) == [
        "config.env:2: PEERS: duplicate name: a",
        "config.env:3: HTTP_INTERVALS: unknown variable, did you mean HTTP_INTERVAL?",
        "config.env:4: WS_INTERVAL: not a number: 'fast'",
        "config.env:5: MAX_HISTORY: the quote is never closed",
    ]


def test_a_file_of_variables_that_is_not_there_is_told() -> None:
    with pytest.raises(BadInput, match=r"^--env-file: cannot read /no/such: No such file or directory$"):
        load_peer(["--env-file=/no/such"], ALONE)


def test_what_a_target_says_for_itself_wins_over_what_is_said_for_all(tmp_path: Path) -> None:
    file = "targets:\n- {name: t, protocols: [ws], interval: {ws: 3}}\n"
    assert load(file, environ={"WS_INTERVAL": "2"}, folder=tmp_path).streams[0].interval == 3.0


@pytest.mark.parametrize(
    ("argv", "environ", "file", "source"),
    [
        (
            ["--source=flag"],
            {"OVNWATCH_SOURCE": "ours", "NODE_NAME": "node", "HOSTNAME": "host"},
            "source: file",
            "flag",
        ),
        ([], {"OVNWATCH_SOURCE": "ours", "NODE_NAME": "node", "HOSTNAME": "host"}, "source: file", "ours"),
        ([], {"OVNWATCH_SOURCE": "", "NODE_NAME": "node", "HOSTNAME": "host"}, "source: file", "node"),
        ([], {"HOSTNAME": "host"}, "source: file", "file"),
        ([], {"HOSTNAME": "host"}, "", "host"),
    ],
)
def test_who_names_us(argv: list[str], environ: dict[str, str], file: str, source: str, tmp_path: Path) -> None:
    assert load(file, argv, {**environ, "PEERS": "other"}, tmp_path).source == source


def test_without_any_name_the_hosts_own_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "box")
    assert load_peer([], {"PEERS": "other"}).source == "box"


def test_our_own_name_is_left_out_of_peers_and_targets(tmp_path: Path) -> None:
    file = "targets: [{name: node-1}, {name: pod-1}, {name: node-2}]\n"
    environ = {"NODE_NAME": "node-1", "HOSTNAME": "pod-1", "PEERS": "node-1,node-3"}
    assert {stream.target for stream in load(file, environ=environ, folder=tmp_path).streams} == {"node-2", "node-3"}


def test_many_peers_are_chosen_from_and_the_rest_is_named() -> None:
    peers = [f"p{n}" for n in range(60)]
    settings = load_peer(["--source=p0", "--peers", ",".join(peers)], {})
    chosen = {stream.target for stream in settings.streams}
    assert len(chosen) == 10
    assert sorted([*chosen, *settings.not_observed]) == sorted(peers[1:])


def test_the_mesh_can_be_set_in_the_file(tmp_path: Path) -> None:
    settings = load("mesh: {full_up_to: 2, k: 1}\npeers: [a, b, c]\n", environ={"HOSTNAME": "own"}, folder=tmp_path)
    assert len({stream.target for stream in settings.streams}) == 1
    assert len(settings.not_observed) == 2


BAD_TARGETS = [
    ("{path: pod}", "name: required, but missing"),
    ("{name: 'a|b'}", "name: a name is printable, at most 253 characters long and without |"),
    ("{name: 'a\\tb'}", "want a host name"),
    ('{name: "a\\x07", host: h}', "name: a name is printable"),
    ("{name: " + "a" * 254 + ", host: h}", "name: a name is printable"),
    ("{name: ''}", "name: a name is wanted"),
    ("{name: t, path: svc}", "path: Input should be 'pod', 'service',"),
    (
        "{name: t, host: 'http://t/'}",
        "host: want a host name or an address, without scheme, brackets or port: 'http://t/'",
    ),
    ("{name: t, host: 't:80'}", "host: want a host name"),
    ("{name: t, host: 10.0.1}", "host: want a host name"),
    ("{name: t, host: a..b}", "host: want a host name"),
    ("{name: two words}", "want a host name"),
    ("{name: 0.0.0.0}", "want the address of one host: '0.0.0.0'"),
    ("{name: t, host: 0.0.0.0}", "host: want the address of one host: '0.0.0.0'"),
    ("{name: t, host: '::'}", "host: want the address of one host: '::'"),
    ("{name: t, host: '::ffff:0.0.0.0'}", "host: want the address of one host"),
    ("{name: t, host: 224.0.0.1}", "host: want the address of one host"),
    ("{name: t, host: 'ff02::1'}", "host: want the address of one host"),
    ("{name: t, host: 255.255.255.255}", "host: want the address of one host"),
    (
        "{name: t, ports: {ws: 1}, protocols: [tcp]}",
        "ports.ws: without effect: ws is not probed here, only tcp",
    ),
    (
        "{name: t, ports: {http: 1}, interval: {http: 1, tcp: 1}}",
        "interval.tcp: without effect: tcp is not probed here, only http",
    ),
    ("{name: t, protocols: [ws], prompt: {tcp: 0.01}}", "prompt.tcp: without effect: tcp is not probed here, only ws"),
    ("{name: t, protocols: [ws], patience: {tcp: 1}}", "patience.tcp: without effect"),
    (
        "{name: t, protocols: [ws, tcp], url_path: /a}",
        "url_path: without effect: http is not probed here, only ws, tcp",
    ),
    ("{name: t, family: 5}", "family: Input should be 4 or 6"),
    ("{name: t, family: []}", "family: want at least one, and none twice"),
    ("{name: t, family: [4, 4]}", "family: want at least one, and none twice"),
    ("{name: t, host: 10.0.0.1, family: 6}", "10.0.0.1 is an IPv4 address, so family can only be 4"),
    ("{name: t, ports: {http: 0}}", "ports.http: Input should be greater than or equal to 1"),
    ("{name: t, ports: {http: 65536}}", "ports.http: Input should be less than or equal to 65535"),
    ("{name: t, ports: {http: '80'}}", "ports.http: Input should be a valid integer"),
    ("{name: t, ports: {http: true}}", "ports.http: Input should be a valid integer"),
    ("{name: t, ports: {http: 80.0}}", "ports.http: Input should be a valid integer"),
    ("{name: t, ports: {udp: 80}}", "ports.udp: Input should be 'http', 'tcp' or 'ws'"),
    ("{name: t, protocols: []}", "protocols: want at least one, and none twice"),
    ("{name: t, protocols: [http, dns]}", "protocols[1]: Input should be 'http', 'tcp' or 'ws'"),
    ("{name: t, interval: 0}", "interval: must be from 0.02 to 3600 seconds"),
    ("{name: t, interval: -1}", "interval: must be from 0.02 to 3600 seconds"),
    ("{name: t, interval: .nan}", "interval: must be from 0.02 to 3600 seconds"),
    ("{name: t, interval: .inf}", "interval: must be from 0.02 to 3600 seconds"),
    ("{name: t, interval: {ws: 1" + "0" * 400 + "}}", "interval.ws: "),
    ("{name: t, interval: true}", "interval: want a number of seconds, or a mapping of http, tcp and ws to one"),
    ("{name: t, interval: '1'}", "interval: want a number of seconds, or a mapping of http, tcp and ws to one"),
    ("{name: t, interval: }", "interval: want a number of seconds, or a mapping of http, tcp and ws to one"),
    ("{name: t, interval: {http: '1'}}", "interval.http: Input should be a valid number"),
    ("{name: t, interval: {http: true}}", "interval.http: Input should be a valid number"),
    ("{name: t, prompt: 0}", "prompt: must be above 0 and below 0.18 seconds"),
    ("{name: t, prompt: 0.18}", "prompt: must be above 0 and below 0.18 seconds: after 0.2 s the kernel sends"),
    ("{name: t, prompt: .nan}", "prompt: must be above 0 and below 0.18 seconds"),
    ("{name: t, protocols: [ws], prompt: 0.1}", "prompt: a prompt limit of 0.1 s must be shorter than the ws interval"),
    ("{name: t, patience: 0}", "patience: must be above 0 and at most 60 seconds"),
    ("{name: t, patience: 61}", "patience: must be above 0 and at most 60 seconds"),
    (
        "{name: t, protocols: [ws], patience: 0.05}",
        "patience: a patience of 0.05 s must not be shorter than the ws prompt",
    ),
    ("{name: t, tls: {ca_file: no.pem}}", "tls.ca_file: cannot use no.pem: No such file or directory"),
    ("{name: t, tls: {cert_file: no.pem, key_file: no.key}}", "tls.cert_file: cannot read no.pem: No such file"),
    ('{name: t, tls: {ca_file: "a\\0b"}}', "tls.ca_file: want the name of a file: 'a\\x00b'"),
    ("{name: t, tls: {cert_file: no.pem}}", "tls: cert_file and key_file go together"),
    ("{name: t, tls: {verify: false}}", "tls.verify: unknown key"),
    ("{name: t, tls: yes please}", "tls: a mapping is wanted here"),
    ("{name: t, port: 80}", "port: unknown key"),
    ("{name: t, url_path: ping}", "url_path: want the path of a URL, such as /ping, without query: 'ping'"),
    ("{name: t, url_path: '/a?b=1'}", "url_path: want the path of a URL"),
    ("{name: t, url_path: '/a b'}", "url_path: want the path of a URL"),
    ("{name: t, node: 7}", "node: Input should be a valid string"),
    ("t", "a mapping is wanted here"),
]


@pytest.mark.parametrize(("target", "expected"), BAD_TARGETS)
def test_a_bad_target_is_told_with_its_line_and_key(target: str, expected: str, tmp_path: Path) -> None:
    found = problems(f"targets:\n- {target}\n", tmp_path)
    assert len(found) == 1
    assert found[0].removeprefix("peer.yaml:2: targets[0]").lstrip(".: ").startswith(expected)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("targets: {name: t}\n", "peer.yaml:1: targets: Input should be a valid list"),
        ("targets:\n", "peer.yaml:1: targets: Input should be a valid list"),
        ("- name: t\n", "peer.yaml:1: a mapping is wanted here"),
        (
            "web: {listen_address: '80'}\npeers: [a]\n",
            "peer.yaml:1: web.listen_address: want HOST:PORT, [ADDRESS]:PORT or",
        ),
        ("listen: {udp: ':1'}\npeers: [a]\n", "peer.yaml:1: listen.udp: unknown key"),
        ("log: {level: loud}\npeers: [a]\n", "peer.yaml:1: log.level: want one of debug, info, warn, error: 'loud'"),
        ("mesh: {k: 0}\npeers: [a]\n", "peer.yaml:1: mesh.k: Input should be greater than or equal to 1"),
        ("peers: [a, a]\n", "peer.yaml:1: peers: duplicate name: a"),
        (
            "peers: [a, B.example., b.Example]\n",
            "peer.yaml:1: peers: duplicate name: b.Example, the same as B.example.",
        ),
        ("targets: [{name: a}, {name: A}]\n", "peer.yaml:1: targets[1]: duplicate name: A by service over http, IPv4,"),
        ("peers: [a, '::']\n", "peer.yaml:1: peers[1]: want the address of one host: '::'"),
        ("peers: [OWN, own.]\n", "peer.yaml:1: peers: duplicate name: own., the same as OWN"),
        ("a: b\n\nc: \x07\n", "peer.yaml:3: unacceptable character '\\x07': "),
        ("é: b\né: \x00\n", "peer.yaml:2: unacceptable character '\\x00': "),
        ('"a\\nb\\e[1m": 1\npeers: [a]\n', "peer.yaml:1: a\\nb\\x1b[1m: unknown key"),
        ("peers: !a%0Ab [a]\n", "peer.yaml:1: peers: unknown tag !a\\nb"),
        ("peers: [a, 'b c']\n", "peer.yaml:1: peers[1]: want a host name"),
        ("source: 'a|b'\npeers: [a]\n", "peer.yaml:1: source: a name is printable"),
        (
            "defaults: {interval: {ws: 1}, prompt: 0.5}\npeers: [a]\n",
            "peer.yaml:1: defaults.prompt: must be above 0 and",
        ),
        ("targets: []\n", "targets: nothing to probe: name peers in PEERS, --peers or the file's `targets:`"),
        ("peers: [own]\n", "targets: nothing to probe: only we ourselves (own) are named; name peers in PEERS"),
        ("x-mine: {anything: goes}\n", "targets: nothing to probe: name peers"),
        ("web: {token_file: gone}\npeers: [a]\n", "peer.yaml:1: web.token_file: cannot read gone: No such file"),
        ("targets: [", "peer.yaml:2: "),
    ],
)
def test_a_bad_file_is_told_with_line_and_key(file: str, expected: str, tmp_path: Path) -> None:
    found = problems(file, tmp_path)
    assert len(found) == 1
    assert found[0].startswith(expected)


@pytest.mark.parametrize(
    ("argv", "environ", "expected"),
    [
        (["--wat"], ALONE, "--wat: unknown flag"),
        (["--web.listen-adress=:1"], ALONE, "--web.listen-adress=:1: unknown flag, did you mean --web.listen-address?"),
        (["peer-2"], ALONE, "peer-2: unexpected argument"),
        (["--source"], ALONE, "--source: needs a value"),
        (["--source", "--zone=z"], ALONE, "--source: needs a value"),
        (["--zone=a", "--zone=b"], ALONE, "--zone: given twice"),
        (["--wa\nt"], ALONE, "--wa\\nt: unknown flag"),
        (["--config.check=yes"], ALONE, "--config.check: takes no value"),
        (["--config.file="], ALONE, "--config.file: want the name of a file: ''"),
        (["--config.file=/no/such"], ALONE, "--config.file: cannot read /no/such: No such file or directory"),
        (["--web.listen-address=8083"], ALONE, "--web.listen-address: want HOST:PORT, [ADDRESS]:PORT or :PORT"),
        (["--web.listen-address=:65536"], ALONE, "--web.listen-address: want HOST:PORT, [ADDRESS]:PORT or :PORT"),
        (["--web.listen-address=[127.0.0.1]:80"], ALONE, "--web.listen-address: want HOST:PORT"),
        (["--web.listen-address=::1:80"], ALONE, "--web.listen-address: want HOST:PORT"),
        (
            ["--web.listen-address=:8081"],
            ALONE,
            "default: the same address as another listener's: --web.listen-address",
        ),
        (
            ["--web.listen-address=127.0.0.1:8082"],
            ALONE,
            "default: :8082 and 127.0.0.1:8082 overlap: --web.listen-address",
        ),
        (["--web.listen-address=[::1]:8082"], ALONE, "default: :8082 and [::1]:8082 overlap: --web.listen-address"),
        (["--listen.http=0.0.0.0:8083"], ALONE, "--listen.http: 0.0.0.0:8083 and :8083 overlap: default"),
        (["--listen.http=[::]:8083"], ALONE, "--listen.http: [::]:8083 and :8083 overlap: default"),
        (
            ["--listen.http=0.0.0.0:1", "--listen.tcp=127.0.0.2:1"],
            ALONE,
            "--listen.tcp: 127.0.0.2:1 and 0.0.0.0:1 overlap: --listen.http",
        ),
        (
            ["--listen.http=localhost:1", "--listen.tcp=127.0.0.1:1"],
            ALONE,
            "--listen.tcp: 127.0.0.1:1 and localhost:1 overlap: --listen.http",
        ),
        (["--web.telemetry-path=/"], ALONE, "--web.telemetry-path: want a path such as /metrics"),
        (["--web.telemetry-path=/-/ready"], ALONE, "--web.telemetry-path: want a path such as /metrics"),
        (["--log.format=xml"], ALONE, "--log.format: want one of logfmt, json: 'xml'"),
        (["--web.token-file=/no/such"], ALONE, "--web.token-file: cannot read /no/such: No such file or directory"),
        (["--source="], ALONE, "--source: a name is wanted"),
        (["--source=a|b"], ALONE, "--source: a name is printable"),
        ([], {"PEERS": "a", "HOSTNAME": "a|b"}, "HOSTNAME: a name is printable"),
        ([], {"PEERS": "a,a"}, "PEERS: duplicate name: a"),
        ([], {"PEERS": "a,b/c"}, "PEERS: want a host name or an address, without scheme, brackets or port: 'b/c'"),
        ([], {**ALONE, "OVNWATCH_TOKEN": "two words"}, "OVNWATCH_TOKEN: a token is not empty, and printable ASCII"),
        ([], {**ALONE, "HTTP_INTERVAL": "fast"}, "HTTP_INTERVAL: not a number: 'fast'"),
        ([], {**ALONE, "HTTP_INTERVAL": "0"}, "HTTP_INTERVAL: must be from 0.02 to 3600 seconds"),
        ([], {**ALONE, "TCP_INTERVAL": "nan"}, "TCP_INTERVAL: not a number: 'nan'"),
        ([], {**ALONE, "WS_INTERVAL": "inf"}, "WS_INTERVAL: not a number: 'inf'"),
        ([], {**ALONE, "WS_INTERVAL": "1e999"}, "WS_INTERVAL: must be from 0.02 to 3600 seconds"),
        ([], {**ALONE, "HTTP_INTERVAL": "\u0663"}, "HTTP_INTERVAL: not a number: '\u0663'"),
        ([], {**ALONE, "HTTP_INTERVAL": "1_0"}, "HTTP_INTERVAL: not a number: '1_0'"),
        ([], {**ALONE, "HTTP_INTERVAL": "0x1"}, "HTTP_INTERVAL: not a number: '0x1'"),
        ([], {**ALONE, "MAX_HISTORY": "\u0663"}, "MAX_HISTORY: want a whole number from 1 to 999999: '\u0663'"),
        (["--web.listen-address=:\u0663"], ALONE, "--web.listen-address: want HOST:PORT, [ADDRESS]:PORT or :PORT"),
        ([], {"PEERS": "a,224.0.0.1"}, "PEERS: want the address of one host: '224.0.0.1'"),
        ([], {"PEERS": "a,A"}, "PEERS: duplicate name: A, the same as a"),
        ([], {"PEERS": "a.example,a.example."}, "PEERS: duplicate name: a.example., the same as a.example"),
        ([], {**ALONE, "HTTP_TIMEOUT": "-1"}, "HTTP_TIMEOUT: must be above 0 and at most 60 seconds"),
        (
            [],
            {**ALONE, "HTTP_TIMEOUT": "0.1"},
            "HTTP_TIMEOUT: a patience of 0.1 s must not be shorter than the http prompt",
        ),
        ([], {**ALONE, "WS_OPEN_TIMEOUT": "x"}, "WS_OPEN_TIMEOUT: not a number: 'x'"),
        ([], {**ALONE, "TCP_CONNECT_TIMEOUT": "x"}, "TCP_CONNECT_TIMEOUT: not a number: 'x'"),
        ([], {**ALONE, "RECONNECT_DELAY": "x"}, "RECONNECT_DELAY: not a number: 'x'"),
        ([], {**ALONE, "MAX_HISTORY": "2.5"}, "MAX_HISTORY: want a whole number from 1 to 999999: '2.5'"),
        ([], {}, "targets: nothing to probe: name peers in PEERS, --peers or the file's `targets:`"),
        (
            [],
            {"HOSTNAME": "a", "PEERS": "a"},
            "targets: nothing to probe: only we ourselves (a) are named; name peers in PEERS",
        ),
    ],
)
def test_a_bad_flag_or_variable_is_named(argv: list[str], environ: dict[str, str], expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_peer(argv, environ)
    assert len(caught.value.problems) == 1
    assert str(caught.value).startswith(expected)


@pytest.mark.parametrize(
    "listen",
    [
        ("127.0.0.1:1", "127.0.0.2:1", "[::1]:1", "127.0.0.3:1"),
        ("127.0.0.1:1", ":2", "[::]:1", ":3"),  # as the kernel is asked, :: is IPv6 alone
        (":0", ":0", "127.0.0.1:0", "localhost:0"),
    ],
)
def test_addresses_that_do_not_overlap_are_no_problem(listen: Sequence[str]) -> None:
    flags = ("--listen.http", "--listen.tcp", "--listen.ws", "--web.listen-address")
    assert load_peer([f"{flag}={each}" for flag, each in zip(flags, listen, strict=True)], ALONE)


def test_a_name_to_listen_on_that_does_not_resolve_is_a_problem_and_one_to_probe_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = socket.getaddrinfo

    def without_resolver(host: str | None, *args: Any, **how: Any) -> Any:
        if host == "nowhere":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return real(host, *args, **how)

    monkeypatch.setattr("socket.getaddrinfo", without_resolver)
    with pytest.raises(BadInput) as caught:
        load_peer(["--listen.http=nowhere:8082"], {**ALONE, "PEERS": "nowhere"})
    assert str(caught.value) == "--listen.http: cannot listen on nowhere: Name or service not known"
    assert load_peer([], {**ALONE, "PEERS": "nowhere"}).streams


def test_our_own_name_in_other_letters_is_ours() -> None:
    assert {stream.target for stream in load_peer([], {"HOSTNAME": "Node-1", "PEERS": "node-1.,b"}).streams} == {"b"}


def test_a_name_that_only_begins_with_ours_is_another() -> None:
    # It may well be: two clusters may each have a node-1. A peer that answers with our instance is dropped anyway.
    settings = load_peer([], {"HOSTNAME": "node-1", "PEERS": "node-1.east.example,b"})
    assert {stream.target for stream in settings.streams} == {"b", "node-1.east.example"}


SOMEBODY_ELSES = {
    "PEERS_SERVICE_HOST": "10.0.0.1",
    "PEERS_PORT": "tcp://10.0.0.1:80",
    "OVNWATCH_SERVICE_PORT_HTTP": "8082",
    "OVNWATCH_PORT_8082_TCP_ADDR": "10.0.0.1",
    "DASHBOARDS_PORT": "tcp://10.0.0.1:80",
    "PROBE_INTERVAL": "1",
    "HTTP_PROXY": "http://proxy",
    "NODENAME": "n",
    "HOST_NAME": "n",
    "PEER": "",
}


@pytest.mark.parametrize(
    ("environ", "doubts"),
    [
        ({"HTTP_INTERVALL": "2"}, ["HTTP_INTERVALL: unknown variable, did you mean HTTP_INTERVAL?"]),
        ({"PEER": "c"}, ["PEER: unknown variable, did you mean PEERS?"]),
        ({"peers": "c"}, ["peers: unknown variable, did you mean PEERS?"]),
        ({"MAX_HISTROY": "2"}, ["MAX_HISTROY: unknown variable, did you mean MAX_HISTORY?"]),
        ({"OVNWATCH_ZINE": "2"}, ["OVNWATCH_ZINE: unknown variable, did you mean OVNWATCH_ZONE?"]),
        ({**SOMEBODY_ELSES, "POLL_INTERVAL": "1"}, []),
    ],
)
def test_a_variable_one_slip_away_from_ours_is_doubted(environ: dict[str, str], doubts: list[str]) -> None:
    assert [": ".join(doubt) for doubt in load_peer([], {**ALONE, **environ}).doubts] == doubts


def test_who_is_not_in_the_list_of_all_peers_is_told() -> None:
    (doubt,) = load_peer([], {"HOSTNAME": "own", "PEERS": "a,b"}).doubts
    assert doubt.place == "PEERS"
    assert doubt.message.startswith("none of them is our own name, own:")
    assert load_peer([], {"HOSTNAME": "own", "PEERS": "a,OWN."}).doubts == ()


def test_the_bastion_doubts_nothing_that_is_somebody_elses() -> None:
    assert load_bastion([], {"HOSTNAME": "own", "ROUTE_PEERS": "a", **SOMEBODY_ELSES}).doubts == ()


def test_a_doubt_is_told_by_a_check_and_beside_problems() -> None:
    doubt = "HTTP_INTERVALS: unknown variable, did you mean HTTP_INTERVAL?"
    assert start(["--config.check"], {**ALONE, "HTTP_INTERVALS": "2"}) == (
        0,
        "configuration ok: 3 streams\n",
        f"warning: {doubt}\n",
    )
    code, _, err = start([], {"HOSTNAME": "own", "PEER": "a"})
    assert code == 2
    assert err.splitlines()[-1] == "PEER: unknown variable, did you mean PEERS?"


def test_problems_of_flags_environment_and_every_target_come_together(tmp_path: Path) -> None:
    file = """\
unknwn: 1
log: {level: loud}
targets:
- {name: a, interval: 0}
- {name: b, protocols: [ws], prompt: 0.1}
- {name: c, path: pod}
- {name: c, path: pod, protocols: [ws]}
"""
    assert problems(file, tmp_path, ["--wat"], {"MAX_HISTORY": "many", "HOSTNAME": "own"}) == [
        "peer.yaml:1: unknwn: unknown key",
        "peer.yaml:4: targets[0].interval: must be from 0.02 to 3600 seconds",
        "--wat: unknown flag",
        "MAX_HISTORY: want a whole number from 1 to 999999: 'many'",
        "peer.yaml:2: log.level: want one of debug, info, warn, error: 'loud'",
        "peer.yaml:5: targets[1].prompt: a prompt limit of 0.1 s must be shorter than the ws interval, 0.1 s (default)",
        "peer.yaml:7: targets[3]: duplicate name: c by pod over ws, IPv4, is already probed: peer.yaml:6: targets[2]",
    ]


def test_a_file_that_is_not_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "peer.yaml").write_bytes(b"source: \xff\n")
    with pytest.raises(BadInput, match="is not UTF-8: invalid start byte at byte 8"):
        load_peer([f"--config.file={tmp_path / 'peer.yaml'}"], ALONE)


def test_the_same_peer_in_file_and_environment_is_a_duplicate(tmp_path: Path) -> None:
    assert problems("targets: [{name: a}]\n", tmp_path, environ={"PEERS": "a", "HOSTNAME": "own"}) == [
        "PEERS: duplicate name: a by service over http, IPv4, is already probed: peer.yaml:1: targets[0]"
    ]


def test_one_target_by_two_paths_is_no_duplicate(tmp_path: Path) -> None:
    assert len(load("targets: [{name: a}, {name: a, path: nodeport}]\n", folder=tmp_path).streams) == 6


def test_names_of_files_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n")
    settings = load("web: {token_file: secret}\npeers: [a]\n", folder=tmp_path)
    assert settings.token == "s3cret"


def test_the_tokens_precedence_is_flag_variable_file(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("one\n")
    file = "web: {token_file: one}\npeers: [a]\n"
    assert load(file, environ={"OVNWATCH_TOKEN": "two"}, folder=tmp_path).token == "two"
    flag = [f"--web.token-file={tmp_path / 'one'}"]
    assert load("peers: [a]\n", flag, {"OVNWATCH_TOKEN": "two"}, tmp_path).token == "one"


def test_without_a_token_there_is_none() -> None:
    assert load_peer([], {**ALONE, "OVNWATCH_TOKEN": ""}).token is None


def test_tls_true_is_the_systems_authorities_and_false_is_none(tmp_path: Path) -> None:
    streams = load("targets: [{name: a, tls: true}, {name: b, tls: false}]\n", folder=tmp_path).streams
    assert {stream.target: stream.tls for stream in streams} == {"a": Tls(), "b": None}


def test_a_file_that_is_no_certificate_is_told(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing\n")
    (tmp_path / "key.pem").write_text("nothing\n")
    found = problems("targets: [{name: a, tls: {ca_file: ca.pem, cert_file: ca.pem, key_file: key.pem}}]\n", tmp_path)
    assert [line.split(": cannot use")[0] for line in found] == [
        "peer.yaml:1: targets[0].tls.ca_file",
        "peer.yaml:1: targets[0].tls",
    ]


def test_the_systems_authorities_can_be_named_as_a_file(tmp_path: Path) -> None:
    known = ssl.get_default_verify_paths().cafile or ssl.get_default_verify_paths().openssl_cafile
    if Path(known).exists():
        (stream, *_) = load(f"targets: [{{name: a, tls: {{ca_file: {known}}}}}]\n", folder=tmp_path).streams
        assert stream.tls == Tls(ca_file=known)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":0", ("", 0)),
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:80", ("::1", 80)),
        ("localhost:80", ("localhost", 80)),
    ],
)
def test_addresses_in_the_exporter_manner(text: str, expected: tuple[str, int]) -> None:
    assert load_peer([f"--web.listen-address={text}"], ALONE).web_listen == expected


def test_several_listeners_may_each_ask_for_any_free_port() -> None:
    flags = [f"--{name}=127.0.0.1:0" for name in ("listen.http", "listen.tcp", "listen.ws", "web.listen-address")]
    assert set(load_peer(flags, ALONE).listen.values()) == {("127.0.0.1", 0)}


def test_too_many_streams_for_the_open_files_says_how_many_fit() -> None:
    with pytest.raises(BadInput) as caught:
        load_peer([], {"HOSTNAME": "own", "PEERS": ",".join(f"p{n}" for n in range(30))}, descriptors=190)
    assert str(caught.value) == "open files: 90 streams need 199 descriptors, probes may have 190: 84 streams fit"


@given(st.integers(0, 100), st.integers(0, 400))
def test_what_fits_is_what_the_floor_leaves_room_for(streams: int, limit: int) -> None:
    stream = Stream("s", "t", "service", "http", 4, "t", 80, 0.5, 0.15, 3.0)
    assert fits([stream] * streams, limit) == max(0, min(streams, int((limit - 64) / 1.3 + 1e-6)))


def outcome(argv: list[str], environ: Mapping[str, str]) -> PeerSettings | list[str]:
    try:
        return load_peer(argv, environ)
    except BadInput as bad:
        return [problem.place for problem in bad.problems]


@given(st.floats(), st.floats())
def test_times_are_either_refused_or_in_order(every: float, wait: float) -> None:
    found = outcome([], {**ALONE, "WS_INTERVAL": repr(every), "WS_OPEN_TIMEOUT": repr(wait)})
    if isinstance(found, PeerSettings):
        stream = found.streams[2]
        assert 0 < stream.prompt < min(stream.interval, 0.18)
        assert stream.prompt <= stream.patience <= 60
        assert math.isfinite(stream.interval)
    else:
        assert {"WS_INTERVAL", "WS_OPEN_TIMEOUT"} >= set(found) > set()


@given(
    st.lists(st.one_of(st.text(), st.sampled_from([option.flag for option in OPTIONS])), max_size=4),
    st.dictionaries(st.sampled_from([option.variable for option in OPTIONS]), st.text()),
)
def test_whatever_is_given_is_settings_or_problems_never_a_crash(argv: list[str], environ: dict[str, str]) -> None:
    assert outcome(argv, environ)


def start(argv: list[str], environ: Mapping[str, str]) -> tuple[PeerSettings | int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    return at_start(PEER, argv, environ, out, err), out.getvalue(), err.getvalue()


def test_config_check_says_ok_and_starts_nothing() -> None:
    assert start(["--config.check"], ALONE) == (0, "configuration ok: 3 streams\n", "")


def test_config_check_tells_all_problems_and_exits_2() -> None:
    code, out, err = start(["--config.check", "--wat"], {"MAX_HISTORY": "x"})
    assert (code, out) == (2, "")
    assert err.splitlines() == ["--wat: unknown flag", "MAX_HISTORY: want a whole number from 1 to 999999: 'x'"]


def test_help_names_every_option() -> None:
    code, out, _ = start(["--help"], {})
    assert code == 0
    assert all(text in out for option in OPTIONS for text in (option.flag, option.variable, option.key, option.help))


def test_a_good_start_hands_out_the_settings() -> None:
    settings, out, err = start([], ALONE)
    assert isinstance(settings, PeerSettings)
    assert out + err == ""
