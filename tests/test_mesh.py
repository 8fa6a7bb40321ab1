"""The choice of peers: complete while few, then fair and sticky."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from exporters.probing.mesh import choose

NAMES = st.sets(st.text("abcdefgh0123456789-", min_size=1, max_size=6), min_size=1, max_size=60)


def mesh(count: int, zones: int = 0) -> dict[str, str]:
    return {f"node-{n}": f"zone-{n % zones}" if zones else "" for n in range(count)}


def test_up_to_forty_others_all_are_chosen() -> None:
    peers = mesh(41)
    chosen, rest = choose("node-0", peers)
    assert set(chosen) == peers.keys() - {"node-0"}
    assert rest == ()


def test_beyond_forty_ten_are_chosen_and_the_rest_is_named() -> None:
    peers = mesh(42)
    chosen, rest = choose("node-0", peers)
    assert len(chosen) == 10
    assert sorted([*chosen, *rest, "node-0"]) == sorted(peers)


@given(NAMES, st.integers(0, 30), st.integers(0, 20))
def test_chosen_and_rest_are_all_the_others_each_once(names: set[str], full_up_to: int, k: int) -> None:
    own = min(names)
    chosen, rest = choose(own, dict.fromkeys(names, ""), full_up_to, k)
    assert sorted([*chosen, *rest]) == sorted(names - {own})
    assert len(chosen) == len(names) - 1 if len(names) - 1 <= full_up_to else len(chosen) == min(k, len(names) - 1)


@given(NAMES, st.data())
def test_the_order_peers_are_named_in_is_nothing(names: set[str], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(sorted(names)))
    assert choose("own", dict.fromkeys(shuffled, ""), 3, 3) == choose("own", dict.fromkeys(sorted(names), ""), 3, 3)


def test_a_peer_that_goes_changes_only_the_pairs_with_it() -> None:
    for zones in (0, 4):
        peers = mesh(200, zones)
        gone = "node-77"
        fewer = {peer: zone for peer, zone in peers.items() if peer != gone}
        for own in fewer:
            before, after = set(choose(own, peers)[0]), set(choose(own, fewer)[0])
            assert before - after == before & {gone}
            assert len(after - before) == len(before & {gone})


def test_a_peer_that_comes_moves_few_pairs() -> None:
    peers = mesh(200)
    more = peers | {"node-new": ""}
    moved = sum(set(choose(own, peers)[0]) != set(choose(own, more)[0]) for own in peers)
    assert 1 <= moved <= 30  # 10 are expected; the hash is fixed, so is the number
    for own in peers:
        assert set(choose(own, more)[0]) - set(choose(own, peers)[0]) <= {"node-new"}


def test_each_peer_is_chosen_by_somebody() -> None:
    for count in (60, 500):
        peers = mesh(count)
        chosen_by = Counter(peer for own in peers for peer in choose(own, peers)[0])
        assert chosen_by.keys() == peers.keys()
        assert max(chosen_by.values()) < 30


def test_two_of_every_other_zone_even_beyond_k() -> None:
    peers = mesh(120, zones=12)
    chosen, _ = choose("node-0", peers, own_zone="zone-0")
    counted = Counter(peers[peer] for peer in chosen)
    assert all(counted[f"zone-{n}"] >= 2 for n in range(1, 12))
    assert len(chosen) == 22


def test_zones_within_k_leave_k_as_it_is() -> None:
    peers = mesh(90, zones=3)
    chosen, _ = choose("node-0", peers, own_zone="zone-0")
    assert len(chosen) == 10
    assert min(Counter(peers[peer] for peer in chosen if peers[peer] != "zone-0").values()) >= 2


def test_a_zone_with_one_peer_gives_one() -> None:
    peers = mesh(50) | {"far": "edge"}
    assert "far" in choose("node-0", peers)[0]
