"""Exporters that another one asks: entries of its file in, where each is reached out. Pure but for TLS files.

journals:                         # of a bastion; `nodes:` of the migration exporter are the same
  - name: migration
    url: http://bastion-1:9482    # /status, /history and the like are below it
    tls: {ca_file: ca.pem}        # with https; as in `targets:`
    token_file: token             # of a proxy before it that wants one
"""

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, NamedTuple
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator

from exporters import targets, webconfig
from exporters.settings import Said
from exporters.strictyaml import BadInput, Problem
from exporters.targets import STRICT, FileName, Name, Tls, TlsFiles

PORTS = {"http": 80, "https": 443}


class Remote(NamedTuple):
    """One of them; `base` is what comes before /status in a request."""

    name: str
    host: str
    port: int
    base: str
    tls: Tls | None
    token: str = ""

    def head(self, agent: str) -> str:
        """The first header lines of a request to it."""
        where = _bracketed(self.host)
        host = where if self.port == PORTS["https" if self.tls else "http"] else f"{where}:{self.port}"
        bearer = f"Authorization: Bearer {self.token}\r\n" if self.token else ""
        return f"Host: {host}\r\nUser-Agent: {agent}\r\nAccept: application/json\r\n{bearer}"

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://{_bracketed(self.host)}:{self.port}{self.base}"


def url(text: str) -> str:
    """Where an exporter is: http or https, without user and query."""
    targets.reachable(formed(text).hostname or "")
    return text.rstrip("/")


def formed(text: str) -> SplitResult:
    """The parts of such a URL, whose host may be any. Raises ValueError, which tells no password."""
    parts = urlsplit(text)  # raises it, too
    if "@" in (parts.netloc or text) or parts.query or parts.fragment:
        raise ValueError("want no user, query or fragment in it")
    if parts.scheme not in PORTS or not parts.hostname or parts.port == 0:
        raise ValueError(f"want http://HOST:PORT or https://HOST:PORT, not {text!r}")
    if parts.path.strip("/"):
        targets.url_path(parts.path)
    return parts


class RemoteEntry(BaseModel):
    model_config = STRICT
    name: Name
    url: Annotated[str, AfterValidator(url)]
    tls: Annotated[TlsFiles | None, BeforeValidator(targets.mapped)] = None
    token_file: FileName | None = None


def remote(name: str, text: str, tls: Tls | None = None, token: str = "") -> Remote:
    """Of a URL that is one."""
    parts = urlsplit(text)
    secured = (tls or Tls()) if parts.scheme == "https" else None
    port = parts.port or PORTS[parts.scheme]
    return Remote(name, parts.hostname or "", port, parts.path.rstrip("/"), secured, token)


def listed(said: Said, key: str) -> Iterator[Remote]:
    """Those that a key of the file lists; what is wrong with them is noted among its problems."""
    document = said.document
    found = document.data.get(key) if isinstance(document.data, dict) else None
    first: dict[str, str] = {}
    known: dict[tuple[Any, ...], Tls] = {}
    for index, data in enumerate(found if isinstance(found, list) else []):
        entry = document.check(RemoteEntry, data, (key, index))
        if entry is None:
            continue
        place = partial(_place, said, key, index)
        name = targets.same_name(entry.name)
        if name in first:
            said.problems.append(Problem(place("name"), f"duplicate name: {first[name]}"))
            continue
        first[name] = place("name")
        if entry.tls is not None and not entry.url.startswith("https:"):
            said.problems.append(Problem(place("tls"), "goes with https:// only"))
        tls = targets.tls_of(entry.tls, said.folder, place, known, said.problems)
        yield remote(entry.name, entry.url, tls, _token(said, entry.token_file, place("token_file")))


def _token(said: Said, name: str | None, place: str) -> str:
    try:
        return webconfig.read_token(said.folder / name, place) if name else ""
    except BadInput as bad:
        said.problems.extend(bad.problems)
        return ""


def _place(said: Said, key: str, index: int, *path: str) -> str:
    return said.document.place((key, index, *path))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
