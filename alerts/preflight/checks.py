"""Is everything ready for a window? What exporters, Prometheus and Alertmanager said in, a verdict on each out. Pure.

1. `fail` is what is known to be wrong; `unknown` what could not be found out, which is no pass either.
2. Each says what was found, and what to do where it is no pass.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

Verdict = Literal["pass", "fail", "unknown"]
MOST_STREAMS = 20  # of one exporter that are told one by one
FRESH_SECONDS = 90.0  # since a scrape; three of every half minute
SCRAPE = "add it to Prometheus' scrape_configs, as in manifests/scrape"


class Check(NamedTuple):
    """`about`: the exporter, or what else was asked."""

    check: str
    about: str
    verdict: Verdict
    found: str
    do: str = ""


class Stream(NamedTuple):
    key: str
    state: str
    cause: str = ""


class Exporter(NamedTuple):
    """What one told; `wrong`: why it did not. `offset`: seconds its clock is ahead of ours, give or take `error`.

    `token`: the status of its answer to an authenticated request, 0 where there was none. `probes`: whether it is one
    that does.
    """

    url: str
    source: str = ""
    wrong: str = ""
    probes: bool = True
    streams: Sequence[Stream] = ()
    offset: float = 0.0
    error: float = 0.0
    token: int = 0

    @property
    def name(self) -> str:
        return self.source or self.url


def verdict(checks: Iterable[Check]) -> Verdict:
    """Of all of them."""
    said = {each.verdict for each in checks}
    return "fail" if "fail" in said else "unknown" if "unknown" in said or not said else "pass"


def paths(exporters: Iterable[Exporter]) -> Iterator[Check]:
    """Does every path answer?"""
    for each in exporters:
        if each.wrong:
            yield Check(
                "paths", each.url, "fail", each.wrong, "start it, or leave it out; nothing watches in its place"
            )
        elif not each.probes:
            yield Check("paths", each.name, "pass", "answers; it probes nothing")
        elif not each.streams:
            yield Check("paths", each.name, "fail", "it probes nothing", "name peers or targets in its configuration")
        else:
            yield from _streams(each)


def _streams(exporter: Exporter) -> Iterator[Check]:
    bad = [each for each in exporter.streams if each.state != "up"]
    up = len(exporter.streams) - len(bad)
    if not bad:
        yield Check("paths", exporter.name, "pass", f"all {up} streams up")
    for each in bad[:MOST_STREAMS]:
        down = each.state in ("down", "frozen")
        found = f"{each.key.replace('|', ' ')}: {each.state}{f' ({each.cause})' if each.cause else ''}"
        do = "mend it, or take the target out: it would count from the first second" if down else "wait, or look why"
        yield Check("paths", exporter.name, "fail" if down else "unknown", found, do)
    if len(bad) > MOST_STREAMS:
        rest = bad[MOST_STREAMS:]
        said: Verdict = "fail" if any(each.state in ("down", "frozen") for each in rest) else "unknown"
        yield Check("paths", exporter.name, said, f"and {len(rest)} streams more", "see its page")


def clocks(exporters: Iterable[Exporter], limit: float) -> Iterator[Check]:
    """Do they agree within so many seconds, each with every other one? A single one is held against ours."""
    known = [each for each in exporters if not each.wrong]
    others = known if len(known) > 1 else [*known, Exporter("", "this machine")]
    for each in known:
        far = max((other for other in others if other is not each), key=lambda other: abs(other.offset - each.offset))
        apart, error = abs(each.offset - far.offset), each.error + far.error
        found = f"{each.offset:+.3f} s from ours, {apart:.3f} s (± {error:.3f}) from {far.name}"
        if apart - error > limit:
            said: Verdict = "fail"
        else:
            said = "pass" if apart + error <= limit else "unknown"
        do = (
            "" if said == "pass" else f"let NTP set the clocks: phases and outages are held together within {limit:g} s"
        )
        yield Check("clocks", each.name, said, found, do)


def tokens(exporters: Iterable[Exporter], *, given: bool) -> Iterator[Check]:
    """Would they let us open windows and mark phases?"""
    for each in exporters:
        if each.wrong:
            continue
        if not given:
            yield Check("tokens", each.name, "unknown", "no token to try", "give --web.token-file or OVNWATCH_TOKEN")
            continue
        said, found, do = _TOKENS.get(each.token, _NO_ANSWER)
        yield Check("tokens", each.name, said, found, do)


_NO_ANSWER: tuple[Verdict, str, str] = ("unknown", "it does not say", "ask it by itself; an older version cannot tell")
_TOKENS: Mapping[int, tuple[Verdict, str, str]] = {
    204: ("pass", "the token works", ""),
    401: ("fail", "it has another token", "give both the same one"),
    403: ("fail", "it has no token set, and refuses all", "start it with --web.token-file or OVNWATCH_TOKEN"),
}


class Scraped(NamedTuple):
    """A series of ours in Prometheus: its source, its age in seconds, and whether its target is up (None: unknown)."""

    source: str
    age: float
    up: bool | None


def scrapes(exporters: Iterable[Exporter], series: Sequence[Scraped], wrong: str) -> Iterator[Check]:
    """Does Prometheus scrape each of them, and did it lately?"""
    if wrong:
        yield Check("prometheus", "Prometheus", "fail", wrong, "start it, or give its --prometheus URL")
        return
    for each in exporters:
        if each.wrong:
            continue
        own = sorted((one for one in series if one.source == each.source), key=lambda one: one.age)
        if not own:
            yield Check("prometheus", each.name, "fail", "Prometheus has no series of it", SCRAPE)
            continue
        newest = own[0]
        found = f"scraped {max(0.0, newest.age):.0f} s ago"
        if newest.up is False or newest.age > FRESH_SECONDS:
            state = " and its target is down now" if newest.up is False else ""
            yield Check("prometheus", each.name, "fail", f"{found}{state}", "see Prometheus' page of targets")
        elif newest.up is None:
            yield Check("prometheus", each.name, "unknown", f"{found}, but no target fits", "see its page of targets")
        else:
            yield Check("prometheus", each.name, "pass", found)


class Alerted(NamedTuple):
    """What became of the test alert. `wrong`: why it could not be sent; `held`: what keeps it back.

    `seconds`: until Alertmanager had it, None: it never had. `called`: until the webhook was called, None: it was not,
    or nobody listened. `over`: Alertmanager took it off again.
    """

    wrong: str = ""
    seconds: float | None = None
    receivers: Sequence[str] = ()
    held: str = ""
    listened: bool = False
    called: float | None = None
    over: bool = False


def alerts(found: Alerted, name: str, waited: float) -> Iterator[Check]:
    """Does an alert arrive, and go again?"""
    about = "Alertmanager"
    if found.wrong:
        yield Check("alerts", about, "fail", found.wrong, "start it, or give its --alertmanager URL")
        return
    if found.seconds is None:
        yield Check("alerts", about, "fail", f"took {name} and does not list it", "look into its log")
    elif found.held:
        yield Check("alerts", about, "fail", f"{name} is {found.held}", "end that silence or inhibition")
    else:
        where = ", ".join(found.receivers) or "no receiver"
        yield Check("alerts", about, "pass", f"has {name} after {found.seconds:.1f} s, for {where}")
    if found.listened and found.called is None:
        do = "route it to this webhook; group_wait may be longer than --alert-timeout"
        yield Check("alerts", "webhook", "fail", f"was not called within {waited:g} s", do)
    elif found.called is not None:
        yield Check("alerts", "webhook", "pass", f"was called after {found.called:.1f} s")
    if found.over:
        yield Check("alerts", "resolved", "pass", f"{name} is off the list again")
    else:
        yield Check("alerts", "resolved", "unknown", f"{name} is still listed", "it ends by itself in five minutes")
