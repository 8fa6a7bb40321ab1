"""What the collectors of OVN read: daemons by their control sockets, and the databases by a watch on each.

A node that never had a daemon of OVN has no rows of it; one that had it, or is configured for it, and has it no more
has a failure.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exporters.node import ovsdb, unixhttp
from exporters.node.daemons import OVN_DAEMONS
from exporters.node.failing import NotCollectedError
from exporters.node.host import Host, text
from exporters.node.ovn import controller, daemons, microovn, raft
from exporters.node.ovn.northbound import Northbound
from exporters.node.ovn.remote import Remote
from exporters.node.ovn.southbound import Southbound
from exporters.node.ovn.watch import View, Watch
from exporters.node.ovs import memory
from exporters.node.rows import Found, Row
from exporters.node.rpc import Deadline
from exporters.node.unixctl import Unixctl

DATABASES = {"ovnnb_db": ("OVN_Northbound", "ovn-nb"), "ovnsb_db": ("OVN_Southbound", "ovn-sb")}


def _folder(host: Host, daemon: str) -> Path | None:
    """The folder of a daemon's sockets; None where it never was. Raises NotCollectedError where it is gone."""
    try:
        folder = host.ovn()
    except NotCollectedError:
        # A folder that was named and never had a daemon is a mistake; that its daemons ended is told of these alone.
        if daemon in host.ovn_seen or (host.paths.ovn and host.ovn_seen.isdisjoint(OVN_DAEMONS)):
            raise
        return None
    if (folder / f"{daemon}.pid").exists():
        host.ovn_seen.add(daemon)
        return folder
    if daemon in host.ovn_seen:
        raise NotCollectedError(f"{daemon} does not run: there is no {folder / f'{daemon}.pid'}")
    return None


def ovn_controller(host: Host, deadline: Deadline) -> Iterator[Found]:
    folder = _folder(host, "ovn-controller")
    if folder is None and not _configured(host, deadline):
        return
    if folder is not None:
        tables = ovsdb.select(host.ovs() / "db.sock", "Open_vSwitch", controller.TABLES, deadline)
        yield from controller.rows(tables)
    with Unixctl(folder or host.ovn(), "ovn-controller", deadline) as daemon:
        connected = daemons.connected(daemon.run("connection-status"))
        yield Row("ovnwatch_ovn_connected", ("ovn-controller", "OVN_Southbound"), connected)
        yield from controller.cache_rows(controller.cache(daemon.run("lflow-cache/show-stats")))
        yield from _measured("ovn-controller", daemon)


def _configured(host: Host, deadline: Deadline) -> bool:
    """Whether OVS is told to be a chassis; a node without OVS is told nothing."""
    try:
        socket = host.ovs() / "db.sock"
        only = {"Open_vSwitch": ("external_ids",)}
        return controller.wanted(ovsdb.select(socket, "Open_vSwitch", only, deadline))
    except (NotCollectedError, OSError):  # the collectors of OVS say so
        return False


def _measured(name: str, daemon: Unixctl) -> Iterator[Row]:
    yield from daemons.engine_rows(name, daemons.engine(daemon.run("inc-engine/show-stats")))
    yield from daemons.stopwatch_rows(name, daemons.stopwatches(daemon.run("stopwatch/show")))
    yield from memory.rows(name, memory.parse(daemon.run("memory/show")))


def ovn_northd(host: Host, deadline: Deadline) -> Iterator[Found]:
    folder = _folder(host, "ovn-northd")
    if folder is None:
        return
    with Unixctl(folder, "ovn-northd", deadline) as daemon:
        yield from daemons.northd_rows(daemons.northd_state(daemon.run("status")))
        for short, (name, _) in zip(("nb", "sb"), DATABASES.values(), strict=True):
            connected = daemons.connected(daemon.run(f"{short}-connection-status"))
            yield Row("ovnwatch_ovn_connected", ("ovn-northd", name), connected)
        yield from _measured("ovn-northd", daemon)


def ovn_servers(host: Host, deadline: Deadline) -> Iterator[Found]:
    failed = []
    for daemon, (database, _) in DATABASES.items():
        try:
            folder = _folder(host, daemon)
            if folder is not None:
                yield from _server(host, folder, daemon, deadline)
        except (NotCollectedError, OSError) as error:
            failed.append(f"{database}: {error}")
    if failed:
        raise NotCollectedError("; ".join(failed))


def _server(host: Host, folder: Path, name: str, deadline: Deadline) -> Iterator[Row]:
    database, file = DATABASES[name]
    # Its control socket has no pid in its name, as ovn-ctl starts it.
    with Unixctl(folder, name, deadline, folder / f"{name}.ctl") as daemon:
        yield from memory.rows(name, memory.parse(daemon.run("memory/show")))
        size = _size(host, daemon.pid)
        if size is not None:
            yield Row("ovnwatch_ovn_database_bytes", (database,), size)
        told = ovsdb.select(folder / f"{name}.sock", "_Server", raft.SERVER_TABLES, deadline)
        served = raft.served(database, told["Database"])
        yield from raft.served_rows(database, served, _packaged(host, file))
        if served.model == "clustered":
            cluster = raft.parse(daemon.run("cluster/status", database))
            yield from raft.rows(database, cluster)
            led = host.ovn_led[database] = raft.step(host.ovn_led.get(database), cluster.leader, time.time())
            yield from raft.led_rows(database, led)


def _size(host: Host, pid: int) -> int | None:
    """Bytes of the database's file, as the server names it; None where we may not look."""
    process = host.paths.proc / str(pid)
    try:
        words = text(process / "cmdline").split("\0")
        given = next((each for each in words[1:] if each.endswith(".db") and not each.startswith("-")), None)
        if given is None:
            return None
        at = process / "root" / given.lstrip("/") if given.startswith("/") else process / "cwd" / given
        return at.stat().st_size
    except OSError:
        return None


def _packaged(host: Host, file: str) -> str:
    """The version of the schema that is installed here; "" where there is none, as in a container."""
    try:
        return raft.schema_version(text(host.paths.root / f"usr/share/ovn/{file}.ovsschema"))
    except OSError:
        return ""


def micro_ovn(host: Host, deadline: Deadline) -> Iterator[Found]:
    """MicroOVN's members, then its databases' schemas: a member that is being upgraded may not tell these."""
    socket = host.microovn()
    if socket is None:
        return

    def ask(url: str) -> Any:
        return microovn.answer(unixhttp.get(socket, url, deadline))

    yield from microovn.member_rows(ask(microovn.MEMBERS))
    failed = []
    for database in microovn.DATABASES:
        try:
            versions = (ask(microovn.schema(database, "active")), ask(microovn.schema(database, "expected")))
            yield from microovn.schema_rows({database: versions})
        except (NotCollectedError, OSError) as error:
            failed.append(f"{database}: {error}")
    if failed:
        raise NotCollectedError("; ".join(failed))


def northbound(host: Host, deadline: Deadline) -> Iterator[Found]:
    remotes = host.databases.northbound
    yield from _watched(host, Northbound(host.databases.hashed), remotes, "ovnnb_db", deadline)


def southbound(host: Host, deadline: Deadline) -> Iterator[Found]:
    remotes = host.databases.southbound
    yield from _watched(host, Southbound(host.databases.chassis), remotes, "ovnsb_db", deadline)


def _watched(host: Host, view: View, remotes: tuple[Remote, ...], daemon: str, deadline: Deadline) -> Iterator[Row]:
    if view.name not in host.watches:
        found = remotes or _here(host, daemon)
        if not found:
            return
        host.watches[view.name] = Watch(view, found, host.databases.files)
    yield from host.watches[view.name].rows(deadline)


def _here(host: Host, daemon: str) -> tuple[Remote, ...]:
    """The database's server on this node, if it has one."""
    folder = _folder(host, daemon)
    return (Remote("unix", str(folder / f"{daemon}.sock"), "", 0),) if folder else ()
