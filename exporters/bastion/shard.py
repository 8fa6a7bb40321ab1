"""Which of several bastions probes a stream? Pure.

Rendezvous hashing: each shard draws a number for the stream and the highest wins. Every stream is in exactly one shard,
they are about equally many, and one shard more takes streams from the others and moves no other.
"""

import re
from hashlib import blake2b
from typing import NamedTuple

from exporters.targets import Stream


class Shard(NamedTuple):
    """One of `total` equal parts; the first is number 0."""

    number: int
    total: int


def shard(text: str) -> Shard:
    """`0/3` as a Shard. Raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,2})/([0-9]{1,2})", text)
    if not found or not int(found[1]) < int(found[2]):
        raise ValueError(f"want I/N with N up to 99 and I from 0 to N - 1, such as 0/3: {text!r}")
    return Shard(int(found[1]), int(found[2]))


def ours(stream: Stream, mine: Shard) -> bool:
    """Is the stream in our shard? Our name is not asked, since every shard has its own."""
    key = f"{stream.target}|{stream.path}|{stream.protocol}|{stream.family}"

    def draw(number: int) -> bytes:
        return blake2b(f"{number}|{key}".encode(), digest_size=8).digest()

    return mine.number == max(range(mine.total), key=draw)
