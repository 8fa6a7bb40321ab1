"""One question to a server over HTTP, and whatever goes wrong with it in one line."""

import contextlib
import http.client
import json
import ssl
import urllib.error
import urllib.request
from typing import Any, NamedTuple

SECONDS = 30.0
LONGEST = 64 * 1024 * 1024  # bytes of an answer
SAID = 300  # characters of an error that are repeated
JSON, FORM = "application/json", "application/x-www-form-urlencoded"
FAILURES = (OSError, ValueError, RecursionError, http.client.HTTPException)


class RemoteError(Exception):
    """A server did not do it; the message says which, what and why."""


class _Stay(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else: a token is for one server, and what is sent would not come along."""

    def redirect_request(self, *_: object) -> None:
        return None


class Remote(NamedTuple):
    """Where a server is, and what it knows us by."""

    url: str
    token: str = ""
    context: ssl.SSLContext | None = None

    def ask(
        self, method: str, path: str, body: bytes | None = None, *, kind: str = JSON, fine: tuple[int, ...] = ()
    ) -> Any:
        """Its answer, which is JSON; None for a status that is `fine`. Raises RemoteError."""
        headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {self.token}"} if self.token else {})
        what = f"{method} {self.url}{path}"
        try:
            # The command takes http and https only.
            request = urllib.request.Request(f"{self.url}{path}", body, headers, method=method)  # noqa: S310
            opener = urllib.request.build_opener(_Stay, urllib.request.HTTPSHandler(context=self.context))
            with opener.open(request, timeout=SECONDS) as answer:
                text = answer.read(LONGEST + 1)
            if len(text) > LONGEST:
                raise RemoteError(f"{what}: the answer is longer than {LONGEST} bytes")
            return json.loads(text)
        except urllib.error.HTTPError as error:
            if error.code in fine:
                return None
            raise RemoteError(f"{what}: {error.code} {_said(error)}") from None
        except FAILURES as error:
            raise RemoteError(f"{what}: {_plain(str(getattr(error, 'reason', error)))}") from None


def _said(error: urllib.error.HTTPError) -> str:
    """What a server said in an error, where it says something."""
    text = ""
    with contextlib.suppress(*FAILURES):
        text = error.read(LONGEST).decode(errors="replace")
        answer = json.loads(text)
        text = str(answer.get("message") or answer.get("error") or text) if isinstance(answer, dict) else text
    return _plain(text or error.reason)


def _plain(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)[:SAID]
