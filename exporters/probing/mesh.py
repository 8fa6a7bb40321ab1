"""Which peers does this one probe? All of them while they are few, then a fair, sticky choice; pure.

1. Up to `full_up_to` other peers: all.
2. Beyond: the k with the highest hash of (own name, peer name). Every peer draws its own order, so each is probed by
   k others on average, and a peer that comes or goes touches only the pairs it is in and their stand-ins.
3. At least two peers of every other known zone are among them, even if that makes more than k.
"""

from collections.abc import Mapping
from hashlib import blake2b

PER_ZONE = 2


def choose(
    own: str, peers: Mapping[str, str], full_up_to: int = 40, k: int = 10, own_zone: str = ""
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names `own` probes and the names it leaves to others, each sorted; `peers` maps name to zone ("" unknown).

    `own` may stand among the peers and is never chosen.
    """
    others = sorted(peers.keys() - {own})
    if len(others) <= full_up_to:
        return tuple(others), ()
    ranked = sorted(others, key=lambda peer: blake2b(f"{own}|{peer}".encode(), digest_size=8).digest(), reverse=True)
    chosen: set[str] = set()
    for zone in {peers[peer] for peer in others} - {own_zone, ""}:
        chosen.update([peer for peer in ranked if peers[peer] == zone][:PER_ZONE])
    for peer in ranked:
        if len(chosen) >= k:
            break
        chosen.add(peer)
    return tuple(sorted(chosen)), tuple(peer for peer in others if peer not in chosen)
