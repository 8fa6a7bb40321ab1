"""The only module that talks to Kubernetes: what a cluster holds of some resources, listed and then watched, read-only.

1. A list asks for no resourceVersion, so that no stale cache answers it, and comes in pages. What is not in it is gone.
2. A watch goes on where the list or the watch before it ended. After 410 there is a new list, else one every RESYNC.
3. What is held is current as of `heard`: a list, an event, a bookmark, the orderly end of a watch. Without any of them
   it is what was last known, and whoever looks decides for how long that counts.
4. What a cluster does not have (404) is absent, and looked for again every ABSENT_SECONDS.
5. Answers, events and the number of objects are bounded; pauses between tries grow and are spread.
"""

import contextlib
import importlib
import importlib.util
import logging
import random
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from importlib.metadata import version
from math import inf
from typing import Any
from urllib.parse import urlsplit

import yaml

from exporters import remotes, targets
from exporters.objects import (
    LONGEST_PAUSE,
    REASONS,
    SHORTEST_PAUSE,
    AbsentError,
    Fields,
    Held,
    Key,
    Known,
    List,
    Resource,
    WatchError,
    changed,
    decoded,
    failure,
    key_of,
    listed,
    pause,
    read_bookmark,
    read_event,
    read_list,
    read_status,
)

log = logging.getLogger(__name__)

READ_BYTES = 64 * 1024
PAGE = 250  # objects
MOST_OBJECTS = 20_000  # of one resource
MOST_PAGE_BYTES = 64 * 2**20
MOST_EVENT_BYTES = 4 * 2**20  # etcd takes no object over 1.5 MiB
CONNECT_SECONDS = 5.0
LIST_SECONDS = 60.0  # for a page
WATCH_SECONDS = (180, 240)  # after which the server ends a watch; less than what is last known counts for
GRACE_SECONDS = 10.0  # until we do
RESYNC_SECONDS = 1800.0
ABSENT_SECONDS = 60.0
IN_CLUSTER = "in-cluster"


class ConfigError(ValueError):
    """The way to a cluster cannot be used; args[0] says why."""


# The way to a cluster.


def installed() -> bool:
    return importlib.util.find_spec("kubernetes") is not None


class Cluster:
    """A cluster as a kubeconfig or, for IN_CLUSTER, our pod's service account tells; read anew for each client.

    Raises ConfigError.
    """

    def __init__(self, config: str, context: str = "") -> None:
        self._config = config
        self._context = context or None
        # The package writes a kubeconfig's keys to files; they go with us, and nobody else may read them.
        self._folder = tempfile.TemporaryDirectory(prefix="ovnwatch-")
        self._lock = threading.Lock()
        try:
            self.host: str = self.settings().host
        except ConfigError:
            self._folder.cleanup()
            raise

    def settings(self) -> Any:
        """A kubernetes.client.Configuration."""
        package = importlib.import_module("kubernetes.config")
        settings = importlib.import_module("kubernetes.client").Configuration()
        settings.keep_alive = True  # a connection that is dead is noticed within a minute
        settings.retries = False  # nor are redirects followed: they could lead the token elsewhere
        more = {"context": self._context, "persist_config": False, "temp_file_path": self._folder.name}
        # The package reads a file of the wrong form as if it were right, so that any of these may come.
        wrong = (package.ConfigException, yaml.YAMLError, OSError, ValueError, LookupError, TypeError, AttributeError,
                 RecursionError)  # fmt: skip
        try:
            with self._lock:
                if self._config == IN_CLUSTER:
                    package.load_incluster_config(client_configuration=settings)
                else:
                    package.load_kube_config(self._config, client_configuration=settings, **more)
        except wrong as error:
            raise ConfigError(" ".join(str(error).split())[:200] or type(error).__name__) from None
        return _checked(settings)

    def client(self) -> Any:
        """A kubernetes.client.ApiClient. Raises ConfigError."""
        client = importlib.import_module("kubernetes.client").ApiClient(self.settings())
        client.user_agent = f"ovnwatch/{version('ovnwatch')}"
        return client

    def close(self) -> None:
        self._folder.cleanup()


EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - what a cluster on this machine may write for its address


def _checked(settings: Any) -> Any:
    """The server is to prove who it is, and a token goes to nobody who has not. Raises ConfigError."""
    try:
        parts = remotes.formed(str(settings.host))
        if parts.hostname not in EVERYWHERE:
            targets.reachable(parts.hostname or "")
    except ValueError as error:
        raise ConfigError(f"server: {error}") from None
    beside = importlib.import_module("kubernetes.client.rest").should_bypass_proxies  # by NO_PROXY
    proxied = settings.proxy and not beside(str(settings.host), settings.no_proxy or "")
    if proxied and urlsplit(str(settings.proxy)).scheme not in ("http", "https"):
        raise ConfigError("proxy-url, or HTTPS_PROXY: want http:// or https://")
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise ConfigError(f"{settings.host}: want https://, or http:// to this machine")
    if parts.scheme == "https":
        _check_files(settings)
    return settings


def _check_files(settings: Any) -> None:
    """What the connection would trip over each time. Raises ConfigError."""
    if not settings.verify_ssl:
        raise ConfigError("insecure-skip-tls-verify: name the certificate-authority instead")
    try:
        context = ssl.create_default_context(cafile=settings.ssl_ca_cert)
    except OSError as error:  # SSLError is one
        raise ConfigError(f"certificate-authority: {error.strerror or error}") from None
    try:
        if settings.cert_file:
            context.load_cert_chain(settings.cert_file, settings.key_file, password="")  # never ask a terminal
    except (OSError, ValueError) as error:
        raise ConfigError(f"client-certificate, client-key: {getattr(error, 'strerror', None) or error}") from None


class _Api:
    """One thread's requests, one at a time, until `closing`. Raises WatchError, AbsentError."""

    def __init__(self, cluster: Cluster, closing: threading.Event) -> None:
        self._closing = closing
        try:
            self._client = cluster.client()
        except ConfigError as error:
            raise WatchError("unauthorized", str(error)) from None
        self._errors = (
            importlib.import_module("urllib3.exceptions").HTTPError,
            importlib.import_module("kubernetes.client").ApiException,  # of status 0: TLS failed
            importlib.import_module("kubernetes.config").ConfigException,  # the token's file went
            OSError,
        )
        self._response: Any = None

    def chunks(
        self, path: str, query: list[tuple[str, str]], accept: str, seconds: float
    ) -> Generator[bytes, None, None]:
        """What the server answers a GET, as it comes, for at most so many seconds."""
        end = time.monotonic() + seconds
        try:
            asked = self._client.param_serialize(
                "GET", path, query_params=query, header_params={"Accept": accept}, auth_settings=["BearerToken"]
            )
            response = self._client.call_api(*asked, _request_timeout=(CONNECT_SECONDS, seconds)).response
            self._response = response
            try:
                if self._closing.is_set():  # `stop` came before there was anything to stop
                    raise WatchError("unreachable", "we end")
                if response.status != 200:
                    body = response.read1(READ_BYTES, decode_content=False)
                    raise failure(response.status, body, response.headers.get("Retry-After", ""))
                yield b""  # it is accepted
                while data := response.read1(READ_BYTES, decode_content=False):
                    yield data
                    if time.monotonic() > end:
                        raise WatchError("timeout", f"no end of the answer within {seconds:.0f} s")
            finally:
                self._response = None
                response.close()
        except self._errors as error:
            raise WatchError(_reason(error), str(error)) from None
        except ValueError:  # whose text would tell the token
            raise WatchError("unauthorized", "the token is no line of ASCII") from None

    def stop(self) -> None:
        """From another thread: let a request that waits fail."""
        with contextlib.suppress(AttributeError, ValueError, RuntimeError, OSError):  # it is over, or not yet there
            self._response.shutdown()

    def close(self) -> None:
        self._client.close()


def _reason(error: Exception) -> str:
    name = type(error).__name__
    if "SSL" in str(error) or "SSL" in name:
        return "tls"
    if name == "ConfigException":
        return "unauthorized"
    return "timeout" if "Timeout" in name else "unreachable"


@dataclass
class _State:
    """What a thread and its readers share."""

    held: dict[Key, Held] = field(default_factory=dict)
    heard: float = 0.0  # Unix time
    heard_at: float = 0.0  # the same moment on the clock that nobody sets
    up: bool = False
    absent: bool = False
    failures: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    ended: bool = False


class Watch:
    """A thread that keeps what a cluster holds of one resource, from now until `close`.

    `changed` is called in the thread when something may be different; `clock` tells how old things are.
    """

    def __init__(
        self,
        cluster: Cluster,
        resource: Resource,
        changed: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.resource = resource
        self._cluster = cluster
        self._tell = changed
        self._clock = clock
        self._lock = threading.Lock()  # guards the state
        self._state = _State()
        self._api: _Api | None = None
        self._version = ""  # where the next watch begins; "": after a list
        self._listed = self._missed = 0.0  # monotonic
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._live, name=f"watch-{resource.name}", daemon=True)
        self._thread.start()

    def known(self) -> Known:
        """A copy of what is known now."""
        with self._lock:
            state = self._state
            if state.ended and not self._closing.is_set():
                raise RuntimeError(f"the watch on {self.resource.name} has ended")  # why stands on stderr
            age = self._clock() - state.heard_at if state.heard else inf
            return Known(dict(state.held), state.heard, age, state.up, state.absent, dict(state.failures))

    def stop(self) -> None:
        """Tell the thread to end; the request it waits for fails."""
        self._closing.set()
        if self._api is not None:
            self._api.stop()

    def close(self) -> None:
        self.stop()
        self._thread.join(1.0)  # a connection that is being made is waited for no longer

    def _changed(self) -> None:
        if not self._closing.is_set():
            self._tell()

    # The thread.

    def _live(self) -> None:
        try:
            failed = 0
            while not self._closing.is_set():
                began = time.monotonic()
                wait = self._turn()
                lasted = time.monotonic() - began
                if wait is not None or lasted < SHORTEST_PAUSE:  # a server that ends each watch at once is no better
                    failed = 1 if lasted > LONGEST_PAUSE else failed + 1
                    self._closing.wait(pause(failed, wait or 0.0, random.random()))  # noqa: S311 - no secret
                else:
                    failed = 0
        finally:
            with self._lock:
                self._state.ended = True
            self._changed()

    def _turn(self) -> float | None:
        """List if that is needed, watch until the end; None, or after a failure the seconds that the server wants."""
        try:
            if self._api is None:
                self._api = _Api(self._cluster, self._closing)
            if not self._version or time.monotonic() - self._listed > RESYNC_SECONDS:
                self._list(self._api)
            self._watch(self._api)
        except AbsentError:
            self._hang_up()
            return self._missing()
        except WatchError as error:
            self._hang_up()
            if error.reason == "expired":
                self._version = ""
            self._failed(error)
            return error.wait
        return None

    def _hang_up(self) -> None:
        if self._api is not None:
            self._api.close()
        self._api = None

    def _missing(self) -> float:
        """It is absent. If we hold some of it, then only after a while: a server that starts does not know all yet."""
        self._missed = self._missed or time.monotonic()
        with self._lock:
            lost = bool(self._state.held)
        if lost and time.monotonic() - self._missed < ABSENT_SECONDS:
            self._failed(WatchError("server_error", "404 for what was there"))
            return 0.0
        with self._lock:
            self._state.held = {}
        self._version = ""
        self._told(absent=True, heard=True)
        return ABSENT_SECONDS

    def _failed(self, error: WatchError) -> None:
        with self._lock:
            first, self._state.up = self._state.up, False
            self._state.failures[error.reason] += 1
            first |= sum(self._state.failures.values()) == 1
        if not self._closing.is_set():
            log.log(logging.WARNING if first else logging.DEBUG, "watch on %s: %s", self.resource.name, error)
        self._changed()

    def _told(self, *, absent: bool = False, heard: bool = False, up: bool = False) -> None:
        with self._lock:
            self._state.absent = absent
            self._state.up = up
            if heard:
                self._heard()
        self._changed()

    def _heard(self) -> float:
        """What is held is current now, Unix time; with the lock."""
        self._state.heard, self._state.heard_at = time.time(), self._clock()
        return self._state.heard

    def _list(self, api: _Api) -> None:
        """Raises WatchError, AbsentError."""
        found: dict[Key, Fields] = {}
        query, as_of, more = [*self.resource.selector, ("limit", str(PAGE))], "", ""
        while True:
            page = self._page(api, [*query, *([("continue", more)] if more else [])])
            for each in page.items or ():
                one = self._read(bytes(each))
                found[key_of(one)] = one
            if len(found) > MOST_OBJECTS or (page.metadata.more and not page.items):
                raise WatchError("garbled", f"a list of over {len(found)} objects, or without end")
            as_of, more = page.metadata.version, page.metadata.more
            if not more:
                break
        if not as_of:
            raise WatchError("garbled", "a list without resourceVersion")
        with self._lock:
            self._state.held = listed(self._state.held, found, time.time())
        self._version, self._listed, self._missed = as_of, time.monotonic(), 0.0
        self._told(heard=True, up=self._state.up)

    def _page(self, api: _Api, query: list[tuple[str, str]]) -> List:
        body = bytearray()
        accept = self.resource.accept("PartialObjectMetadataList")
        with contextlib.closing(api.chunks(self.resource.path, query, accept, LIST_SECONDS)) as chunks:
            for data in chunks:
                body += data
                if len(body) > MOST_PAGE_BYTES:
                    raise WatchError("garbled", "the list is too long")
        return decoded(read_list, bytes(body))

    def _watch(self, api: _Api) -> None:
        """Until its orderly end. Raises WatchError, AbsentError."""
        seconds = random.randint(*WATCH_SECONDS)  # noqa: S311 - no secret
        query = [
            *self.resource.selector,
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", self._version),
            ("timeoutSeconds", str(seconds)),
        ]
        accept = self.resource.accept("PartialObjectMetadata")
        rest = bytearray()
        with contextlib.closing(api.chunks(self.resource.path, query, accept, seconds + GRACE_SECONDS)) as chunks:
            for data in chunks:
                if not data:
                    self._told(up=True)
                *lines, last = data.split(b"\n")
                for line in lines:
                    self._hear(bytes(rest + line))
                    rest.clear()
                rest += last
                if len(rest) > MOST_EVENT_BYTES:
                    raise WatchError("garbled", "the event is too long")
        if rest.strip():
            raise WatchError("unreachable", "the connection ended within an event")
        self._told(heard=True, up=True)

    def _hear(self, line: bytes) -> None:
        if not line.strip():
            return
        event = decoded(read_event, line)
        match event.type:
            case "ADDED" | "MODIFIED" | "DELETED":
                one = self._read(bytes(event.object))
                with self._lock:
                    different = changed(self._state.held, event.type, one, self._heard())
                    if len(self._state.held) > MOST_OBJECTS:
                        raise WatchError("garbled", f"over {MOST_OBJECTS} objects")
                if different:  # else it is a repetition
                    self._version = one["metadata"].get("resourceVersion") or self._version
                    self._changed()
            case "BOOKMARK":
                self._version = decoded(read_bookmark, bytes(event.object)).metadata.version or self._version
                with self._lock:
                    self._heard()
            case "ERROR":
                code = decoded(read_status, bytes(event.object)).code
                raise failure(code, bytes(event.object))
            case _:
                raise WatchError("garbled", f"an event of type {event.type[:40]!r}")

    def _read(self, data: bytes) -> Fields:
        one = decoded(self.resource.read, data)
        return {**one, "kind": self.resource.kind, "apiVersion": self.resource.api_version}
