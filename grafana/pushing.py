"""Boards into a Grafana over its API: into one folder, each only where it differs from what is there."""

import contextlib
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple

SECONDS = 30.0
LONGEST = 16 * 1024 * 1024  # bytes of an answer
SAID = 300  # characters of an error that are repeated
ABSENT = (404,)
THERE = (409, 412)  # a folder of that uid or name


class RemoteError(Exception):
    """A server did not do it; the message says what and why."""


class Grafana(NamedTuple):
    """Where a Grafana is, and what it knows us by."""

    url: str
    token: str
    context: ssl.SSLContext | None = None

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, fine: tuple[int, ...] = ()) -> Any:
        """Its answer, None for a status that is `fine`. Raises RemoteError."""
        request = urllib.request.Request(  # noqa: S310 # the command takes http and https only
            f"{self.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=SECONDS, context=self.context) as answer:  # noqa: S310
                return json.loads(answer.read(LONGEST))
        except urllib.error.HTTPError as error:
            if error.code in fine:
                return None
            raise RemoteError(f"{method} {path}: {error.code} {_said(error)}") from None
        except (OSError, ValueError) as error:
            raise RemoteError(f"{method} {path}: {getattr(error, 'reason', error)}") from None


def push(grafana: Grafana, board: Mapping[str, Any], folder: str) -> bool:
    """Make Grafana have the board in the folder of that uid; False: it had. Raises RemoteError."""
    there = grafana.ask("GET", f"/api/dashboards/uid/{board['uid']}", fine=ABSENT)
    if there and _has(there.get("dashboard"), board) and there.get("meta", {}).get("folderUid") == folder:
        return False
    body = {"dashboard": {**board, "id": None}, "folderUid": folder, "overwrite": True, "message": "ovnwatch"}
    grafana.ask("POST", "/api/dashboards/db", body)
    return True


def make_folder(grafana: Grafana, uid: str, title: str) -> None:
    """Make the folder if there is none of that uid. Raises RemoteError."""
    if grafana.ask("GET", f"/api/folders/{uid}", fine=ABSENT) is None:
        grafana.ask("POST", "/api/folders", {"uid": uid, "title": title}, fine=THERE)


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


def _said(error: urllib.error.HTTPError) -> str:
    """What Grafana said in an error, as one plain line."""
    text = error.read(LONGEST).decode(errors="replace")
    with contextlib.suppress(ValueError, AttributeError):
        text = str(json.loads(text).get("message", text))
    return "".join(each if each.isprintable() else " " for each in text)[:SAID]
