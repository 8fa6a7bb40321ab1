"""`ovnwatch bastion discover`: what of a cluster can be probed from outside, as a bastion's file, once or kept current.

The file is replaced as a whole, and only when something is different; what it had is kept for an hour after it went.
While the API is away it stays as it is.
"""

import argparse
import contextlib
import http.client
import os
import signal
import sys
import tempfile
import threading
import time
import urllib.error
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from exporters import kube, logs, reach, strictyaml, times, webconfig
from exporters.discovery.find import Found, Key, find
from exporters.discovery.kept import Last, entries, keep, resumed, withdrawn
from exporters.discovery.resources import NEEDS, resource
from exporters.ends import Parser, StartError
from exporters.kube import Cluster, ConfigError, Watch
from exporters.objects import Known
from exporters.plain import plain
from exporters.strictyaml import BadInput
from exporters.targets import Target

PATHS = ("nodeport", "loadbalancer", "route", "ingress")  # that lead in from outside
OURS = "app.kubernetes.io/name=ovnwatch"
SETTLE_SECONDS = 1.0  # what belongs together comes by several watches
TICK_SECONDS = 10.0  # between two tries of what failed, and looks at what is an hour old
RELOAD_SECONDS = 30.0
WITHDRAWN = "x-withdrawn"  # the key under which a file says when it was that what is gone was seen last
GONE = ("name", "path", "family", "seen")
HEADER = "# Written by `ovnwatch bastion discover`, which replaces it.\n"


def main(argv: Sequence[str]) -> int:
    """0: printed or written, or told to end; 2: there is nothing to probe; 1: it could not be found out or written."""
    args = _parser().parse_args(argv)
    logs.set_up("info", "logfmt")
    try:
        return _watch(args) if args.watch else _once(args)
    except (StartError, OSError, BadInput) as error:
        print(f"ovnwatch bastion discover: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="ovnwatch bastion discover", description=__doc__, allow_abbrev=False)
    parser.add_argument("--kubeconfig", required=True, metavar="FILE", help="of the cluster; in-cluster in a pod")
    parser.add_argument("--context", default="", help="of that file; its current one if not given")
    parser.add_argument("--namespace", default="ovnwatch", help="where to look [%(default)s]")
    parser.add_argument(
        "--selector", default=OURS, metavar="LABELS", help="of Services, Routes, Ingresses [%(default)s]"
    )
    parser.add_argument("--path", type=_paths, default=PATHS, dest="paths", metavar="PATHS",
                        help=f"with commas, of {', '.join(NEEDS)} [{','.join(PATHS)}]")  # fmt: skip
    parser.add_argument("--node-address", choices=("InternalIP", "ExternalIP", "Hostname"), default="InternalIP",
                        help="by which NodePorts are reached [%(default)s]")  # fmt: skip
    parser.add_argument("--base", type=Path, metavar="FILE", help="a bastion's file without targets, to put them in")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write there instead of printing")
    parser.add_argument("--watch", action="store_true", help="keep the output current until ended")
    parser.add_argument("--reload-url", type=reach.http_url, metavar="URL",
                        help="with --watch: of the bastion that shall read it again")  # fmt: skip
    reach.add_flags(parser)
    parser.add_argument("--timeout", type=_seconds, default=30.0, metavar="SECONDS", help="for the API [%(default)g]")
    return parser


def _paths(text: str) -> tuple[str, ...]:
    paths = tuple(text.split(","))
    if unknown := [each for each in paths if each not in NEEDS]:
        raise argparse.ArgumentTypeError(f"want some of {', '.join(NEEDS)}, not {unknown[0]!r}")
    return paths


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) <= 3600:
            return seconds
    raise argparse.ArgumentTypeError(f"want up to 3600 seconds, not {text!r}")


# --- what there is


class _Watches:
    """The watches that the paths need; `woken` when one of them may know something else."""

    def __init__(self, args: argparse.Namespace) -> None:
        if not kube.installed():
            raise StartError("needs the Python package kubernetes: install ovnwatch[kubernetes]")
        try:
            self._cluster = Cluster(args.kubeconfig, args.context)
        except ConfigError as error:
            raise StartError(f"{args.kubeconfig}: {error}") from None
        self._args = args
        self.woken = threading.Event()
        plurals = dict.fromkeys(each for path in args.paths for each in NEEDS[path])
        # A slice has its Service's labels only where a controller made it.
        chosen = {each: "" if each == "endpointslices" else args.selector for each in plurals}
        self._watches = [
            Watch(self._cluster, resource(each, args.namespace, labels), self.woken.set)
            for each, labels in chosen.items()
        ]

    def known(self) -> Mapping[str, Known]:
        return {each.resource.name: each.known() for each in self._watches}

    def found(self) -> Found | None:
        """What there is; None while some of it is not known."""
        known = self.known()
        if not all(each.heard for each in known.values()):
            return None
        objects = {name: [held.object for held in each.objects.values()] for name, each in known.items()}
        return find(objects, self._args.paths, self._args.node_address)

    def missing(self) -> str:
        """What is not known, and why."""
        said = []
        for name, each in self.known().items():
            if not each.heard:
                reasons = [reason for reason, count in each.failures.items() if count]
                said.append(f"{name}: {', '.join(reasons) or 'no answer yet'}")
        return "; ".join(said)

    def close(self) -> None:
        for each in self._watches:
            each.stop()
        for each in self._watches:
            each.close()
        self._cluster.close()


@contextlib.contextmanager
def _watching(args: argparse.Namespace) -> Iterator[_Watches]:
    watches = _Watches(args)
    try:
        yield watches
    finally:
        watches.close()


def _first(watches: _Watches, seconds: float) -> Found:
    """What there is, once all of it is known. Raises StartError."""
    deadline = time.monotonic() + seconds
    while (found := watches.found()) is None:
        if time.monotonic() > deadline:
            raise StartError(f"not known within {seconds:g} s: {watches.missing()}")
        watches.woken.wait(0.2)
        watches.woken.clear()
    return found


# --- what becomes of it


def _once(args: argparse.Namespace) -> int:
    with _watching(args) as watches:
        found = _first(watches, args.timeout)
    _tell(found.left_out)
    if not found.entries:
        print("ovnwatch bastion discover: there is nothing to probe", file=sys.stderr)
        return 2
    text = _text(keep({}, found.entries, 0.0), {}, _base(args))
    if args.output:
        _write(args.output, text)
    else:
        print(text, end="")
    return 0


def _watch(args: argparse.Namespace) -> int:
    if args.output is None:
        raise StartError("--watch needs --output")
    reach.reach(args)  # that it can be
    _base(args)
    ended = threading.Event()
    with _watching(args) as watches:

        def end(*_: object) -> None:
            ended.set()
            watches.woken.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, end)
        (kept, gone), told, due = _kept(args.output), list[str](), False
        while not ended.is_set():
            found = watches.found()
            if found is not None:
                told = _tell(found.left_out, told)
                now = time.monotonic()
                kept = keep(kept, found.entries, now)
                gone = withdrawn(kept, gone, now, time.time())
                due = (_written(args, kept, gone) or due) and bool(args.reload_url)
                due = due and not _reloaded(args)
            watches.woken.wait(TICK_SECONDS)
            if watches.woken.is_set() and not ended.is_set():
                ended.wait(SETTLE_SECONDS)
            watches.woken.clear()
    return 0


def _tell(left_out: Sequence[str], told: Sequence[str] = ()) -> list[str]:
    """Say what is left out, once."""
    for each in left_out:
        if each not in told:
            print(f"left out: {each}", file=sys.stderr, flush=True)
    return list(left_out)


def _base(args: argparse.Namespace) -> str:
    """The text before the targets. Raises BadInput for one that has targets itself."""
    if args.base is None:
        return ""
    text = webconfig.read_text(args.base, "--base")
    document = strictyaml.load(text, str(args.base))
    if isinstance(document.data, dict) and "targets" in document.data:
        document.add("stands here already: leave it to what is found", ("targets",), document.lines["targets",])
    if document.problems:
        raise BadInput(document.in_order())
    return text if text.endswith("\n") or not text else f"{text}\n"


def _text(kept: Mapping[Key, Last], gone: Mapping[Key, str], base: str) -> str:
    body: dict[str, Any] = {"targets": entries(kept)}
    if gone:
        body[WITHDRAWN] = [dict(zip(GONE, (*key, seen), strict=True)) for key, seen in gone.items()]
    return HEADER + base + yaml.safe_dump(body, sort_keys=False, default_flow_style=None, width=10_000)


def _kept(path: Path) -> tuple[dict[Key, Last], dict[Key, str]]:
    """What the file has that was written before us, and when what of it was gone had been seen last.

    Of the rest nobody knows when: it counts for an hour from now.
    """
    if not path.exists():
        return {}, {}
    document = strictyaml.load(webconfig.read_text(path, "--output"), str(path))
    data = document.data if isinstance(document.data, dict) else {}
    listed, noted = (found if isinstance(found := data.get(key), list) else [] for key in ("targets", WITHDRAWN))
    gone = {
        (str(each["name"]), str(each["path"]), each["family"]): str(each["seen"])
        for each in noted
        if isinstance(each, dict) and set(GONE) <= each.keys() and each["family"] in (4, 6) and _is_past(each["seen"])
    }
    known = [each for each in listed if _is_target(each)]
    return resumed(known, gone, time.monotonic(), time.time()), gone


def _is_past(moment: object) -> bool:
    try:
        return times.seconds(str(moment)) <= time.time()
    except ValueError:
        return False


def _is_target(each: object) -> bool:
    try:
        Target.model_validate(each)
    except ValidationError:
        return False
    return isinstance(each, dict) and {"name", "path", "host"} <= each.keys() and each.get("family") in (None, 4, 6)


def _write(path: Path, text: str) -> bool:
    """Replace the file by one of that text, unless it has it; whether it had not."""
    with contextlib.suppress(FileNotFoundError):
        if path.read_bytes() == text.encode():
            return False
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        try:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink()
            raise
    print(f"{path} is written", file=sys.stderr, flush=True)
    return True


def _written(args: argparse.Namespace, kept: Mapping[Key, Last], gone: Mapping[Key, str]) -> bool:
    """Whether the file is another now. Where it cannot be written it stays as it is; one that never was ends us."""
    try:
        return bool(kept) and _write(args.output, _text(kept, gone, _base(args)))
    except (OSError, BadInput) as error:
        if not args.output.exists():
            raise
        print(f"ovnwatch bastion discover: {args.output} stays as it is: {error}", file=sys.stderr, flush=True)
        return False


def _reloaded(args: argparse.Namespace) -> bool:
    """Have the bastion read its file again; it is asked once more later where it does not."""
    try:
        reach.post(f"{args.reload_url}/-/reload", reach.reach(args), seconds=RELOAD_SECONDS)
    except urllib.error.HTTPError as error:
        said = f"answers {reach.refusal(error)}"
    except (OSError, ValueError, http.client.HTTPException, BadInput) as error:
        said = str(error) or type(error).__name__
    else:
        return True
    print(plain(f"{args.reload_url}: {' '.join(said.split())}"[:700]), file=sys.stderr, flush=True)
    return False
