"""`ovnwatch COMMAND`: finds the module that does the command and imports no other."""

import difflib
import importlib
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import NamedTuple


class Command(NamedTuple):
    """A module whose `main(argv) -> int` does the work, and what it does in one line."""

    module: str
    line: str


COMMANDS = {
    "peer": Command("exporters.peer.command", "probe the other peers, answer their probes, serve metrics and history"),
    "bastion": Command(
        "exporters.bastion.command", "probe from outside by every way that leads in, serve a page of what all see"
    ),
    "node": Command("exporters.node.start", "tell what a node's links, bonds, bridges and OVS are doing"),
    "migration": Command(
        "exporters.migration.command", "tell which phase of a migration the cluster and each node is in"
    ),
    "calibrate": Command(
        "exporters.calibrate.command", "inject known interruptions, compare with what is measured, give a verdict"
    ),
    "history": Command("exporters.history.command", "show, export or verify what an exporter has recorded"),
    "report": Command("alerts.report.command", "what a window cost and why, held against a budget"),
    "gate": Command("alerts.report.gate", "wait until a bastion says that the next node may go, or must not"),
    "preflight": Command("alerts.preflight.command", "before a window: is everything that it needs ready?"),
    "rules": Command("alerts.command", "write or check the Prometheus rules that metrics.yaml describes"),
    "dashboards": Command("grafana.command", "write Grafana's dashboards as a site takes them, check or push them"),
    "demo": Command(
        "lab.demo", "interrupt three peers on this machine, judge what they measured and which alerts came"
    ),
    "lab": Command("lab.ovn.command", "a real OVN of some chassis on this machine, in network namespaces; needs root"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code, or 2 for a command there is not."""
    command, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if command in ("-h", "--help", "help"):
        print(usage())
        return 0
    if command == "--version":
        print(f"ovnwatch {version('ovnwatch')}")
        return 0
    if command not in COMMANDS:
        close = difflib.get_close_matches(command, COMMANDS, 1)
        meant = f"did you mean {close[0]}?" if close else usage()
        print(f"ovnwatch: {f'no command {command!r}' if command else 'which command?'}, {meant}", file=sys.stderr)
        return 2
    try:
        return int(importlib.import_module(COMMANDS[command].module).main(rest))
    except KeyboardInterrupt:  # before the command could see to it itself
        return 1


def usage() -> str:
    """What `ovnwatch --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {command.line}" for name, command in COMMANDS.items()]
    return "\n".join(
        ["usage: ovnwatch COMMAND [flags]", "", *lines, "", "ovnwatch COMMAND --help says more; --version"]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
