"""Where OVS' and OVN's daemons keep their sockets and pid files: on OpenShift, upstream, MicroOVN and plain hosts.

Pure: what is in the folders is given. `candidates` says which to look at, `choose` which of them it is.
"""

from collections.abc import Collection, Mapping
from pathlib import PurePosixPath

# /var/run is a link to /run on every host of today; with the host's root mounted elsewhere it may lead out of it, so
# both are tried. MicroOVN's snap has its own folders. OVN of OpenShift 4.14 and later is in ovn-ic.
OVS_FOLDERS = ("var/run/openvswitch", "run/openvswitch", "var/snap/microovn/common/run/switch")
OVN_FOLDERS = ("var/run/ovn-ic", "run/ovn-ic", "var/run/ovn", "run/ovn", "var/snap/microovn/common/run/ovn")
# Where MicroOVN itself is asked, below its snap's folder.
MICROOVN, CONTROL = "var/snap/microovn/common", "state/control.socket"
# Daemons by what they belong to; each writes <name>.pid.
OVS_DAEMONS = ("ovs-vswitchd", "ovsdb-server")
OVN_DAEMONS = ("ovn-controller", "ovn-northd", "ovnnb_db", "ovnsb_db")
# What a daemon that runs under another name is called by the kernel, which keeps 15 characters.
COMMANDS = {"ovnnb_db": "ovsdb-server", "ovnsb_db": "ovsdb-server"}


def candidates(folders: Collection[str], given: str | None, root: str, snap_common: str = "") -> list[str]:
    """Folders to look at, best first: only the one that was `given`, if one was; it is a path as we see it."""
    if given:
        return [given]
    snap = [f"{snap_common}/run/{PurePosixPath(each).name}" for each in folders if "snap" in each and snap_common]
    return [*snap, *(str(PurePosixPath(root) / each) for each in folders)]


def choose(listings: Mapping[str, Collection[str]], daemons: Collection[str]) -> str | None:
    """The folder, of those that are there with what they hold: the first in which a daemon has left its pid file.

    Else the first with any socket or pid file, of daemons that stopped; None where no folder has any.
    """
    wanted = {f"{daemon}.pid" for daemon in daemons}
    for folder, names in listings.items():
        if wanted & set(names):
            return folder
    for folder, names in listings.items():
        if any(name.endswith((".pid", ".sock", ".ctl", ".mgmt")) for name in names):
            return folder
    return None
