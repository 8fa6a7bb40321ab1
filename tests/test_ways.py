"""Which addresses lead to the same peer, and which is asked first."""

import pytest

from exporters.bastion.ways import Rest, Way, entered, logical, order, peers
from exporters.targets import Stream, Tls


def http(target: str, path: str, host: str = "h", port: int = 8082, url_path: str = "/ping", **more: object) -> Stream:
    plain = Stream("s", target, path, "http", 4, host, port, 1.0, 0.15, 3.0, url_path=url_path)
    return plain if not more else Stream(**{**{key: getattr(plain, key) for key in Stream.__slots__}, **more})


@pytest.mark.parametrize(
    ("target", "path", "name"),
    [
        ("peer-1-lb", "loadbalancer", "peer-1"),
        ("peer-1-np", "nodeport", "peer-1"),
        ("peer-1-route", "route", "peer-1"),
        ("peer-1-svc", "service", "peer-1"),
        ("peer-1-lb", "route", "peer-1-lb"),
        ("shop@node-1", "nodeport", "shop"),
        ("shop-np@node-1", "nodeport", "shop"),
        ("shop", "route", "shop"),
        ("-lb", "loadbalancer", "-lb"),
        ("@x", "nodeport", "@x"),
    ],
)
def test_names_of_ways_to_the_name_of_what_they_lead_to(target: str, path: str, name: str) -> None:
    assert logical(target, path) == name


@pytest.mark.parametrize(
    ("target", "path", "host", "node"),
    [
        ("shop", "route", "192.0.2.1", "where-it-runs"),
        ("shop@node-1", "nodeport", "192.0.2.1", "node-1"),
        ("shop-np", "nodeport", "192.0.2.1", "192.0.2.1"),
        ("shop-np", "nodeport", "", ""),
        ("shop@node-1", "service", "", "where-it-runs"),
    ],
)
def test_a_nodeport_counts_for_the_node_by_which_it_goes_in(target: str, path: str, host: str, node: str) -> None:
    assert entered(target, path, "where-it-runs", host) == node


def test_all_http_ways_to_a_peer_are_found_and_no_others() -> None:
    found = peers(
        [
            http("peer-1-lb", "loadbalancer", "192.0.2.1"),
            http("peer-1-route", "route", "a.example", 443, "/below/ping", tls=Tls()),
            http("shop", "pod", "2001:db8::1", family=6),
            http("web", "ingress", url_path="/health"),
            http("tcp", "pod", protocol="tcp"),
        ]
    )
    assert {name: [way.url for way in leading] for name, leading in found.items()} == {
        "peer-1": ["http://192.0.2.1:8082", "https://a.example:443/below"],
        "shop": ["http://[2001:db8::1]:8082"],
    }
    assert [way.host_header for way in found["peer-1"]] == ["192.0.2.1:8082", "a.example"]


A, B, C = (Way(name, name, "route", 4, name, 80, "", None) for name in "abc")


def test_every_look_asks_another_way_first() -> None:
    assert [order([A, B, C], turn, {}, 0.0)[0] for turn in range(4)] == [A, B, C, A]
    assert order([A, B, C], 1, {}, 0.0) == [B, C, A]


def test_a_way_that_failed_rests_while_there_are_others() -> None:
    rests = {A: Rest(10.0, strict=False)}
    assert order([A, B], 0, rests, 9.0) == [B]
    assert order([A, B], 0, rests, 10.0) == [A, B]


def test_with_all_at_rest_one_is_asked_unless_its_answer_was_none() -> None:
    rests = {A: Rest(10.0, strict=True), B: Rest(10.0, strict=False), C: Rest(10.0, strict=False)}
    assert [order([A, B, C], turn, rests, 9.0) for turn in (0, 1, 2)] == [[B], [B], [C]]
    assert order([A], 0, rests, 9.0) == []
    assert order([], 0, {}, 0.0) == []
