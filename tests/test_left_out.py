"""How many peers are left to others, as a metric."""

from exporters import catalog
from exporters.peer.left_out import LeftOut


def test_the_gauge_follows_the_names_and_is_0_while_all_are_probed() -> None:
    names: list[str] = []
    gauge = LeftOut("a", lambda: names)
    for names[:] in ([], ["b", "c"], ["d"]):
        (family,) = gauge.collect()
        (sample,) = family.samples
        assert (sample.name, sample.labels, sample.value) == (family.name, {"source": "a"}, len(names))
    known = catalog.load().metric(family.name)
    assert (family.type, family.documentation) == (known.kind, known.help)
