"""When did a busy machine hold up the relays or a peer? A hold-up is a true interruption that nobody injected. Pure.

1. What fails a probe is the sum of the hold-ups on its way: of the relays and of its target, each counted once.
2. Hold-ups less than a prompt limit apart are one, from the first to the last; below MEANT of a prompt limit in all
   they fail no probe.
3. Interruptions that no probe fits between are one to a stream: a hold-up that begins less than an interval and a
   prompt limit after an injected interruption draws its end out, one that ends so shortly before it its start.
4. An entry that nobody injected is explained by hold-ups that add up to what its probes needed to fail: MEANT of a
   prompt limit for each of them.
"""

from collections.abc import Iterable, Mapping, Sequence

from exporters.calibrate.injection import Bracket, Truth
from exporters.settings import Stream

Span = tuple[float, float]  # monotonic seconds
Held = Mapping[str, Sequence[Span]]

RELAYS = "relays"
MEANT = 0.5


def merged(spans: Iterable[Span]) -> list[Span]:
    """Spans in order, with those that overlap made one."""
    result: list[Span] = []
    for begin, end in sorted(spans):
        if result and begin <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((begin, end))
    return result


def on_way(held: Held, stream: Stream) -> list[Span]:
    """The hold-ups of the relays and of the stream's target."""
    return merged([*held.get(RELAYS, ()), *held.get(stream.target, ())])


def within(spans: Iterable[Span], begin: float, end: float) -> float:
    """Seconds of the spans that lie in [begin, end]."""
    return sum(max(0.0, min(end, last) - max(begin, first)) for first, last in spans)


def failing(spans: Sequence[Span], stream: Stream) -> list[Span]:
    """From when to when hold-ups can have failed a probe of the stream (rule 2)."""
    close: list[Span] = []
    for begin, end in spans:
        if close and begin < close[-1][1] + stream.prompt:
            close[-1] = (close[-1][0], end)
        else:
            close.append((begin, end))
    return [(begin, end) for begin, end in close if within(spans, begin, end) >= MEANT * stream.prompt]


def drawn_out(truth: Truth, stream: Stream, spans: Sequence[Span]) -> Truth:
    """The truth of an interruption with the hold-ups that a stream cannot tell from it (rule 3)."""
    reach = stream.interval + stream.prompt
    before, after = truth[0].before, truth[1].after
    close = failing(spans, stream)
    for begin, end in close:
        if end > after and begin <= after + reach:
            after = end
    for begin, end in reversed(close):
        if begin < before and end >= before - reach:
            before = begin
    return Bracket(before, truth[0].after), Bracket(truth[1].before, after)


def explain(begin: float, end: float, lower: float, stream: Stream, spans: Sequence[Span]) -> bool:
    """Do hold-ups explain an entry in [begin, end] that is `lower` seconds long at least (rule 4)?"""
    failed = lower / stream.interval + 1
    return within(spans, begin, end) >= MEANT * stream.prompt * failed
