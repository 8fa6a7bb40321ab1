"""Events that OVS counts: `coverage/show`, of which the totals are the counters.

    Event coverage, avg rate over last: 5 seconds, last minute, last hour,  hash=034d0ebd:
    rconn_queued               0.0/sec     0.333/sec        0.0056/sec   total: 20
    101 events never hit

An event that was never hit is not shown: it is 0 where this OVS has it, and unknown where it has not.
"""

import re
from collections.abc import Iterator, Mapping, Set

from exporters.node.failing import GarbledError
from exporters.node.rows import Row

LINE = re.compile(r"^(\w{1,100}) +[\d.]+/sec +[\d.]+/sec +[\d.]+/sec +total: (\d{1,20})$", re.ASCII | re.MULTILINE)
HEAD = "Event coverage,"
# Packets that were dropped, by reason: of the userspace datapath, and by what the flow tables wanted.
DROP = re.compile(r"(?:datapath_)?drop_\w+")

# What says how OVS is doing. The rest, mostly of its own data structures, is shown by flag.
CURATED = frozenset(
    re.findall(
        r"\w+",
        """
    bridge_reconfigure conntrack_full conntrack_zone_full datapath_drop_hw_miss_recover datapath_drop_invalid_bond
    datapath_drop_invalid_port datapath_drop_invalid_recirc datapath_drop_invalid_tnl_port datapath_drop_lock_error
    datapath_drop_meter datapath_drop_nsh_decap_error datapath_drop_recirc_error datapath_drop_rx_invalid_packet
    datapath_drop_sample_error datapath_drop_tunnel_pop_error datapath_drop_tunnel_push_error
    datapath_drop_upcall_error datapath_drop_userspace_action_error dpif_execute dpif_execute_error dpif_flow_del
    dpif_flow_del_error dpif_flow_flush dpif_flow_get dpif_flow_get_error dpif_flow_put dpif_flow_put_error
    dpif_port_add dpif_port_del drop_action_bridge_not_found drop_action_congestion drop_action_forwarding_disabled
    drop_action_inconsistent_group drop_action_of_pipeline drop_action_recursion_too_deep drop_action_stack_too_deep
    drop_action_too_many_mpls_labels drop_action_too_many_resubmit drop_action_unsupported_packet_type flow_extract
    handler_duplicate_upcall long_poll_interval mac_learning_evicted mac_learning_moved netlink_overflow
    netlink_received netlink_recv_jumbo netlink_sent ofproto_dpif_expired ofproto_flush ofproto_packet_out
    ofproto_recv_openflow ofproto_reinit_ports ofproto_update_port packet_in_overflow pstream_open rconn_discarded
    rconn_overflow rconn_queued rconn_sent rev_flow_table rev_port_toggled rev_reconfigure revalidate_missed_dp_flow
    revalidate_missing_dp_flow stream_open txn_aborted txn_error txn_incomplete txn_success txn_try_again
    txn_unchanged txn_uncommitted ukey_dp_change ukey_invalid_stat_reset upcall_flow_limit_grew
    upcall_flow_limit_hit upcall_flow_limit_kill upcall_flow_limit_reduced upcall_flow_limit_scaled
    upcall_ukey_contention upcall_ukey_replace vconn_open vconn_received vconn_sent xlate_actions
    xlate_actions_oversize xlate_actions_too_many_output
        """,
    )
)


def parse(text: str) -> dict[str, int]:
    """Events that were hit, and how often. Raises GarbledError."""
    if not text.startswith(HEAD):
        raise GarbledError("coverage/show does not begin as it should")
    return {event: int(total) for event, total in LINE.findall(text)}


def number(text: str) -> int:
    """The answer of `coverage/read-counter`. Raises GarbledError."""
    if not re.fullmatch(r"\d{1,20}\s*", text, re.ASCII):
        raise GarbledError("coverage/read-counter answers no number")
    return int(text)


def rows(totals: Mapping[str, int], there: Set[str], every: bool) -> Iterator[Row]:
    """The events shown, those `there` are in this OVS with 0 where they were never hit; `every`: not only curated."""
    shown = totals.keys() | there if every else there & CURATED | totals.keys() & CURATED
    for event in sorted(shown):
        name = "ovnwatch_ovs_drops_total" if DROP.fullmatch(event) else "ovnwatch_ovs_coverage_events_total"
        yield Row(name, (event,), totals.get(event, 0))
