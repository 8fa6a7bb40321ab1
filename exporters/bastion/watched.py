"""When was a stream of ours not observed? The seconds that it counted as observed in, spans without them out. Pure."""

from exporters.verdict.coverage import Span

MOST = 100  # spans that are told apart; of more only the sum is known
NEAR = 1.0  # seconds between two that pass for one


class Watched:
    """One stream since `begin`, when it had counted `observed` seconds; `slack`: what may not be counted yet.

    Times are those of a clock that knows suspensions, spans in Unix time.
    """

    def __init__(self, begin: float, observed: float, slack: float) -> None:
        self.spans: list[Span] = []
        self._begin = begin
        self._observed = self._last = observed
        self.slack = slack
        self._lost = 0.0

    def tell(self, now: float, wall: float, observed: float) -> None:
        """It has counted so many seconds by `now`, which is `wall` in Unix time."""
        if observed < self._last:  # another one of that name, as after a reload
            self._begin, self._observed, self._lost = now, observed, 0.0
        self._last = observed
        lost = now - self._begin - (observed - self._observed) - self.slack
        if lost <= self._lost:
            return
        more, self._lost = lost - self._lost, lost
        span = Span(wall - more, wall, "unobserved")
        if self.spans and span.begin - self.spans[-1].end < NEAR:
            before = self.spans.pop()
            more += before.end - before.begin  # the sum stays what it is
        elif len(self.spans) >= MOST:
            more += sum(each.end - each.begin for each in self.spans)
            self.spans = []
        self.spans.append(Span(wall - more, wall, "unobserved"))
