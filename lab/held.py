"""When did a busy machine hold up the relays or a peer? A hold-up is a true interruption that nobody injected. Pure.

1. A hold-up shorter than MEANT of a prompt limit fails no probe, and is forgotten.
2. Interruptions that no probe fits between are one to a stream: a hold-up that begins less than an interval and a
   prompt limit after an injected interruption draws its end out, one that ends so shortly before it its start.
3. An entry that nobody injected is explained by hold-ups on its stream's way that add up to what its probes needed to
   fail: part of a prompt limit for each of them.
"""

from collections.abc import Iterable, Mapping, Sequence

from exporters.calibrate.injection import Bracket, Truth
from exporters.settings import Stream

Span = tuple[float, float]  # monotonic seconds
Held = Mapping[str, Sequence[Span]]

RELAYS = "relays"
MEANT = 0.5
TOGETHER = 0.02  # seconds between two hold-ups that are one


def merged(spans: Iterable[Span]) -> list[Span]:
    """Spans in order, with those that overlap or nearly touch made one."""
    result: list[Span] = []
    for begin, end in sorted(spans):
        if result and begin <= result[-1][1] + TOGETHER:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((begin, end))
    return result


def on_way(held: Held, stream: Stream) -> list[Span]:
    """The hold-ups that fail a probe of the stream: of the relays and of its target."""
    spans = merged([*held.get(RELAYS, ()), *held.get(stream.target, ())])
    return [(begin, end) for begin, end in spans if end - begin >= MEANT * stream.prompt]


def within(spans: Iterable[Span], begin: float, end: float) -> float:
    """Seconds of the spans that lie in [begin, end]."""
    return sum(max(0.0, min(end, last) - max(begin, first)) for first, last in spans)


def drawn_out(truth: Truth, stream: Stream, spans: Sequence[Span]) -> Truth:
    """The truth of an interruption with the hold-ups that a stream cannot tell from it (rule 2)."""
    reach = stream.interval + stream.prompt
    before, after = truth[0].before, truth[1].after
    for begin, end in spans:
        if end > after and begin <= after + reach:
            after = end
    for begin, end in reversed(spans):
        if begin < before and end >= before - reach:
            before = begin
    return Bracket(before, truth[0].after), Bracket(truth[1].before, after)


def explain(begin: float, end: float, lower: float, stream: Stream, spans: Sequence[Span]) -> bool:
    """Do hold-ups explain an entry in [begin, end] that is `lower` seconds long at least (rule 3)?"""
    failed = lower / stream.interval + 1
    return within(spans, begin, end) >= MEANT * stream.prompt * failed
