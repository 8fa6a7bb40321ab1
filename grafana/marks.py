"""The annotations that boards share: what happened, and when, over every graph. They cost little on a large site."""

from grafana import looks, nodes
from grafana.boards import Mark

CLUSTER = '{cluster=~"$cluster"}'
PHASES = Mark(
    "Phases",
    f"max by (cluster, kind, phase) (ovnwatch_migration_phase{CLUSTER})",
    "{{kind}}: {{phase}}",
    looks.BLUE,
)
TURNS = Mark(
    "Nodes' turns",
    f"max by (cluster, k8s_node, phase) (ovnwatch_node_phase{CLUSTER})",
    "{{k8s_node}}: {{phase}}",
    looks.LIGHT_GREY,
)
OUTAGES = Mark(
    "Outages",
    'max by (cluster, target) (ALERTS{cluster=~"$cluster",alertname="OvnwatchStreamDown",alertstate="firing"})',
    "{{target}} is not reached",
    looks.VERMILION,
)
RESTARTS = Mark(
    "Restarts of OVS and OVN",
    nodes.named(
        nodes.just(nodes.of("ovnwatch_node_daemon_start_timestamp_seconds", 'daemon=~"ov[ns].*"')) + " == 1",
        "daemon",
        function="max",
    ),
    "{{daemon}} of {{k8s_node}} was started",
    looks.ORANGE,
)
MOVES = Mark(
    "Egress moves",
    nodes.together(nodes.just(f"ovnwatch_ovn_snat_move_timestamp_seconds{CLUSTER}") + " == 1"),
    "an egress address moved",
    looks.PURPLE,
)
GATEWAYS = Mark(
    "Gateway moves",
    nodes.together(nodes.just(f"ovnwatch_ovn_gateway_move_timestamp_seconds{CLUSTER}") + " == 1"),
    "another chassis took a gateway",
    looks.PURPLE,
)
# What boards without a choice of nodes show, and the others.
OF_THE_CLUSTER = (PHASES, TURNS, OUTAGES, MOVES)
ALL = (*OF_THE_CLUSTER, GATEWAYS, RESTARTS)
