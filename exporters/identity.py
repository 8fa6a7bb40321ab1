"""Who we are: what every reply of a peer carries, so that a prober knows which process, pod and boot it reached.

And who others are to those who shall not know their addresses.
"""

import hashlib
import os
import platform
import uuid
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Identity:
    """One process of ours.

    `instance` is new at every start, `boot_id` at every boot of the node; `source` is the name the
    probes and targets use, `pod` the host name that status pages show.
    """

    instance: str
    source: str
    node: str
    zone: str
    boot_id: str
    pod: str
    version: str


def identify(source: str, node: str, zone: str) -> Identity:
    """Return this process' identity; `boot_id` is empty where the kernel does not show one."""
    try:
        boot_id = BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        boot_id = ""
    return Identity(
        instance=uuid.uuid4().hex,
        source=source,
        node=node,
        zone=zone,
        boot_id=boot_id,
        pod=os.environ.get("HOSTNAME") or platform.node(),
        version=version("ovnwatch"),
    )


def hashed(address: str) -> str:
    """The same text for the same address on every node. It keeps addresses from a glance, not from who tries all."""
    return hashlib.sha256(address.encode()).hexdigest()[:12]
