"""`ovnwatch lab`: a real OVN of some chassis on one machine, in network namespaces; needs root."""

import argparse
import importlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from exporters.ends import Parser
from lab.ovn import run, status, topology
from lab.ovn.run import LabError
from lab.ovn.topology import MOST_CENTRALS, MOST_CHASSIS, Lab

PREFIX = "ow"
NO_COMMAND = 127  # as shells have it


def main(argv: Sequence[str]) -> int:
    """0: done, or all of it runs; 2: something of it does not run (status); 1: anything else; exec: the command's."""
    argv, command = _split(argv)
    args = _parser().parse_args(argv)
    args.command = command
    try:
        missing = run.lacking()
        if missing:
            print("".join(f"ovnwatch lab: missing: {each}\n" for each in missing), end="", file=sys.stderr)
            return 1
        return int(args.work(args))
    except LabError as error:
        print(f"ovnwatch lab: {error}", file=sys.stderr)
    except BrokenPipeError:  # whoever read our output has gone, and shall not hear of the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a folder that cannot be made, or written to
        print(f"ovnwatch lab: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        pass
    return 1


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is ours, and what is behind the first `--`: argparse would take more of them away."""
    at = [*argv, "--"].index("--")
    return [*argv[:at]], [*argv[at + 1 :]]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="ovnwatch lab", description="A real OVN on this machine, in network namespaces; needs root.")
    common = Parser(add_help=False)
    common.add_argument("--prefix", type=_prefix, default=PREFIX, help="of its namespaces; one lab each [%(default)s]")
    common.add_argument("--dir", type=_folder, help="its files [/run/ovnwatch-lab/PREFIX]")
    subs = parser.add_subparsers(required=True, metavar="up|down|status|exec|demo|alarms", parser_class=Parser)
    sub = subs.add_parser("up", parents=[common], help="build it, or start what of it does not run")
    sub.add_argument("--chassis", type=_chassis, default=3, help=f"how many, {MOST_CHASSIS} at most [%(default)s]")
    raft = sub.add_argument("--raft", type=int, default=1, choices=(1, MOST_CENTRALS), help="members of the databases")
    raft.metavar = "1|3"
    sub.set_defaults(work=_up)
    sub = subs.add_parser("down", parents=[common], help="remove it, and all that runs in it")
    sub.set_defaults(work=_down)
    sub = subs.add_parser("status", parents=[common], help="what of it runs, and who carries what")
    sub.add_argument("--output", choices=status.FORMS, default="table", help="[%(default)s]")
    sub.set_defaults(work=_status)
    sub = subs.add_parser("demo", help="see a workload, a chassis and an egress IP move in a lab of its own")
    sub.add_argument("--prefix", type=_prefix, default="owdemo", help="of its namespaces [%(default)s]")
    sub.add_argument("--once", action="store_true", help="end after the script: 0 all was seen, 2 it was not")
    sub.add_argument("--keep", action="store_true", help="keep the folder with configurations, data and logs")
    sub.set_defaults(work=_demo)
    sub = subs.add_parser("alarms", help="break a lab of its own and see that each alert arrives, and none before")
    sub.add_argument("--prefix", type=_prefix, default="owalarm", help="of its namespaces [%(default)s]")
    sub.add_argument("--quiet", type=float, default=10.0, metavar="SECONDS", help="of nothing broken [%(default)s]")
    sub.add_argument("--keep", action="store_true", help="keep the folder with configurations, data and logs")
    sub.set_defaults(work=_alarms)
    sub = subs.add_parser("exec", parents=[common], help="run a command on a host of it: exec ch1 -- ovs-vsctl show")
    sub.usage = "%(prog)s [-h] [--prefix PREFIX] [--dir DIR] HOST -- COMMAND"
    sub.add_argument("host", help="ch1, w1, central1, outside")
    sub.set_defaults(work=_exec)
    return parser


def _prefix(text: str) -> str:
    if not run.PREFIX.fullmatch(text):
        raise argparse.ArgumentTypeError(f"want up to ten small letters and digits, a letter first: {text!r}")
    return text


def _folder(text: str) -> Path:
    path = Path(text).absolute()
    if len(os.fsencode(path)) > run.LONGEST_FOLDER or any(not char.isprintable() or char in ' ,"' for char in text):
        raise argparse.ArgumentTypeError(f"want {run.LONGEST_FOLDER} characters at most, no space, comma or quote")
    return path


def _chassis(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_CHASSIS:
        raise argparse.ArgumentTypeError(f"want 1 to {MOST_CHASSIS}: {text!r}")
    return int(text)


def _at(args: argparse.Namespace) -> Path:
    return args.dir or run.default_folder(args.prefix)


def _up(args: argparse.Namespace) -> int:
    lab = Lab(args.prefix, _at(args), args.chassis, args.raft)
    print(f"{run.told(lab)} is up" if run.up(lab) else f"{run.told(lab)} was up already")
    return 0


def _down(args: argparse.Namespace) -> int:
    print("it is down" if run.down(args.prefix, _at(args)) else "there was none")
    return 0


def _status(args: argparse.Namespace) -> int:
    found = status.read(_known(args))
    sys.stdout.writelines(status.FORMS[args.output](found))
    sys.stdout.flush()
    return {True: 0, False: 2, None: 1}[found["well"]]


def _demo(args: argparse.Namespace) -> int:
    demo = importlib.import_module("lab.ovn.demo")  # takes a second, and no other command needs it
    return int(demo.main(args, Lab(args.prefix, run.default_folder(args.prefix))))


def _alarms(args: argparse.Namespace) -> int:
    alarms = importlib.import_module("lab.ovn.alarms")
    return int(alarms.main(args, alarms.lab_of(args.prefix)))


def _exec(args: argparse.Namespace) -> int:
    lab = _known(args)
    if not args.command:
        raise LabError("exec wants a command behind --, as in: exec ch1 -- ovs-vsctl show")
    if args.host not in lab.hosts:
        raise LabError(f"no host {args.host!r}; there are {' '.join(lab.hosts)}")
    environ = {**os.environ, **topology.environ(lab, args.host)}
    if shutil.which(args.command[0], path=environ.get("PATH")) is not None:
        os.execvpe("ip", ["ip", "netns", "exec", lab.namespace(args.host), *args.command], environ)
    print(f"ovnwatch lab: exec: no command {args.command[0]!r}", file=sys.stderr)
    return NO_COMMAND


def _known(args: argparse.Namespace) -> Lab:
    found = run.known(args.prefix, _at(args))
    if found is None or not found.complete:
        prefix = "" if args.prefix == PREFIX else f" --prefix {args.prefix}"
        raise LabError(f"there is no lab with prefix {args.prefix}; `ovnwatch lab up{prefix}` makes one")
    return found.lab


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
