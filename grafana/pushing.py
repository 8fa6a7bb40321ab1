"""Boards into a Grafana over its API: into one folder, each only where it differs from what is there."""

import json
from collections.abc import Mapping
from typing import Any

from grafana.remote import Remote

ABSENT = (404,)
THERE = (409, 412)  # a folder of that uid or name


def push(grafana: Remote, board: Mapping[str, Any], folder: str) -> bool:
    """Make Grafana have the board in the folder of that uid; False: it had. Raises RemoteError."""
    there = grafana.ask("GET", f"/api/dashboards/uid/{board['uid']}", fine=ABSENT)
    if _has(there, {"dashboard": board, "meta": {"folderUid": folder}}):
        return False
    body = {"dashboard": {**board, "id": None}, "folderUid": folder, "overwrite": True, "message": "ovnwatch"}
    grafana.ask("POST", "/api/dashboards/db", json.dumps(body).encode())
    return True


def make_folder(grafana: Remote, uid: str, title: str) -> None:
    """Make the folder if there is none of that uid. Raises RemoteError."""
    if grafana.ask("GET", f"/api/folders/{uid}", fine=ABSENT) is None:
        grafana.ask("POST", "/api/folders", json.dumps({"uid": uid, "title": title}).encode(), fine=THERE)


def _has(there: Any, ours: Any) -> bool:
    """Is all of ours there? Grafana adds an id, a version and at times what a newer one knows."""
    if isinstance(ours, Mapping):
        return isinstance(there, Mapping) and all(_has(there.get(name), each) for name, each in ours.items())
    if isinstance(ours, list):
        return (
            isinstance(there, list)
            and len(there) == len(ours)
            and all(_has(one, other) for one, other in zip(there, ours, strict=True))
        )
    return bool(there == ours)
