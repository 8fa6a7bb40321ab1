"""The PromQL that boards of nodes share: what a node exporter tells, under the name of its node.

1. A series of a node exporter names no node, as it names no scrape: its node's name comes by a join, over what tells
   scrapes apart, with ovnwatch_node_info.
2. `instance` is a hidden variable that holds the scrapes of the chosen nodes, so that a query for a few nodes reads
   the series of these alone. The join says the same, where a hidden variable is not known.
3. Where rules record the same from whoever tells it (our node exporter, ovn-kubernetes, cgroups), boards read that: it
   is there where our node exporter is not, and limits are on it. Its nodes are named already, and what only our node
   exporter tells is one series a node, which nothing has to bring together.
4. What several exporters tell alike (the databases of OVN are watched from two or three nodes) is brought together
   `by` what it is about, without the node. No name is sought for that: it is enough to know which scrapes are chosen.
5. What costs is each series in each step: of 500 nodes' own series, the ten with most are asked for at fewer POINTS.
"""

from collections.abc import Sequence

from grafana import panels, parts
from grafana.boards import Choice
from grafana.grid import Size
from grafana.parts import Panel, Query

CHOICES = (
    Choice("k8s_node", "Node", "ovnwatch_node_info"),
    Choice("instance", "Scrape", "ovnwatch_node_info", hidden=True),
)
SCRAPE = "cluster, job, instance"
ONLY = 'cluster=~"$cluster",instance=~"$instance"'
NODE = 'cluster=~"$cluster",k8s_node=~"$k8s_node"'
NAMES = f"max by ({SCRAPE}, k8s_node) (ovnwatch_node_info{{{NODE}}})"
POINTS = parts.POINTS // 2  # of what the series of each node are joined for
SOON = 120  # seconds for which an event is marked: four scrapes 30 s apart


def of(metric: str, matchers: str = "") -> str:
    """The series of a metric on the chosen nodes, as their exporters have them."""
    return f"{metric}{{{ONLY}{f',{matchers}' if matchers else ''}}}"


def recorded(name: str, matchers: str = "", over: str = "", labels: Sequence[str] = ()) -> str:
    """A recorded series of the chosen nodes, whoever tells what it is made of; with `over`, its most in that range."""
    made = f"{name}{{{NODE}{f',{matchers}' if matchers else ''}}}"
    by = ", ".join(("cluster", "k8s_node", *labels))
    return f"max by ({by}) ({f'max_over_time({made}[{over}])' if over else made})"


def rate(metric: str, matchers: str = "") -> str:
    """What a counter gains each second."""
    return f"rate({of(metric, matchers)}[$__rate_interval])"


def gained(metric: str, matchers: str = "") -> str:
    """What a counter gained in the range."""
    return f"increase({of(metric, matchers)}[$__range])"


def named(expr: str, *labels: str, function: str = "sum") -> str:
    """One value a node, and for each set of values of further labels."""
    return f"{function} by ({', '.join(('cluster', 'k8s_node', *labels))}) ({joined(expr)})"


def joined(expr: str) -> str:
    """The series of an expression with their node's name; it must have kept what tells scrapes apart."""
    return f"({expr}) * on ({SCRAPE}) group_left (k8s_node) {NAMES}"


def chosen(expr: str) -> str:
    """The series of an expression that are of the chosen nodes; it must have kept what tells scrapes apart."""
    return f"({expr}) and on ({SCRAPE}) ovnwatch_node_info{{{NODE}}}"


def together(expr: str, *labels: str, function: str = "max") -> str:
    """One value for the whole cluster, and for each set of values of labels, whichever nodes tell it."""
    return f"{function} by ({', '.join(('cluster', *labels))}) ({expr})"


def top(expr: str, count: int = 10) -> str:
    return f"topk({count}, {expr})"


def leading(expr: str, *labels: str, function: str = "max") -> str:
    """The ten of nodes' own series that have most; names are sought for these alone."""
    return named(top(chosen(expr)), *labels, function=function)


def busiest(name: str, label: str) -> str:
    """The ten with most, of what is recorded of several things on each node; only these are brought together."""
    return f"max by (cluster, k8s_node, {label}) ({top(f'{name}{{{NODE}}}')})"


def just(timestamp: str) -> str:
    """1 for SOON seconds after a moment, else 0; of a gauge that holds that moment."""
    return f"(time() - {timestamp} < bool {SOON})"


def started(daemons: str) -> str:
    """Daemons that were started within the range, 1 each; `daemons` is a matcher."""
    return f"(time() - {of('ovnwatch_node_daemon_start_timestamp_seconds', daemons)} < bool $__range_s)"


def ten(
    key: str,
    title: str,
    description: str,
    expr: str,
    *,
    unit: str,
    threshold: str = "",
    width: int = 6,
    points: int = parts.POINTS,
) -> Panel:
    """The ten nodes that have most of something, over time; `expr` gives no others."""
    query, size = Query(expr, "{{k8s_node}}"), Size(width, 7)
    return panels.timeseries(key, title, description, [query], unit=unit, size=size, threshold=threshold, points=points)
