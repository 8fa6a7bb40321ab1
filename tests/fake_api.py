"""A Kubernetes API server as far as somebody needs it who lists and watches, with the faults that real ones have.

1. It has the resources of the objects it was given; others are 404. resourceVersions are unique and mean nothing.
2. A list without resourceVersion is consistent; one that names a version, 0 too, is from a cache, see `freeze`.
3. Faults meet the next requests, one each: see `Fault`. `drop` cuts all watches, `forget` makes 410 of old versions.
4. Each watch is told in lines of JSON what its resource has become, since the version it names; bookmarks on request.
"""

import asyncio
import contextlib
import json
import random
import ssl
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import yaml
from aiohttp import web

Object = dict[str, Any]
Fault = Literal[
    "refuse", "429", "500", "401", "403", "410", "cut", "garbage", "half", "slow", "error event", "endless", "redirect"
]
T = TypeVar("T")

TOKEN = "kubernetes-token"
RETRY_AFTER = 1
SLOW_SECONDS = 1.5
LOT = 100  # events that are sent in one go
PLURALS = {
    ("v1", "Node"): "nodes",
    ("v1", "Pod"): "pods",
    ("apps/v1", "DaemonSet"): "daemonsets",
    ("apps/v1", "Deployment"): "deployments",
    ("config.openshift.io/v1", "ClusterOperator"): "clusteroperators",
    ("config.openshift.io/v1", "ClusterVersion"): "clusterversions",
    ("config.openshift.io/v1", "Network"): "networks",
    ("operator.openshift.io/v1", "Network"): "networks",
    ("machineconfiguration.openshift.io/v1", "MachineConfigPool"): "machineconfigpools",
    ("k8s.ovn.org/v1", "EgressIP"): "egressips",
    ("networking.k8s.io/v1", "Ingress"): "ingresses",
}
ALWAYS = ("v1/nodes", "v1/pods", "apps/v1/daemonsets", "apps/v1/deployments")  # other kinds come with their objects


class Logged(NamedTuple):
    number: int
    what: str
    object: Object


class Asked(NamedTuple):
    path: str
    query: Mapping[str, str]
    accept: str
    token: str


@dataclass
class Collection:
    """All objects of a kind, and what became of them."""

    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    log: list[Logged] = field(default_factory=list)
    stale: dict[tuple[str, str], Object] = field(default_factory=dict)  # as the cache still has it


class FakeApi:
    """On a free port of 127.0.0.1, in a thread of its own; all methods may be called from others."""

    def __init__(self, *, repeat: bool = False, shuffle: bool = False, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.repeat, self.shuffle = repeat, shuffle
        self.collections = {name: Collection() for name in ALWAYS}
        self.asked: list[Asked] = []
        self.faults: dict[str, list[Fault]] = {"list": [], "watch": []}
        self.down = False
        self.bookmarks = 0.2  # seconds between two
        self.port = 0
        self.watching: dict[web.StreamResponse, asyncio.Transport] = {}
        self._number = self._forgotten = 0
        self._dice = random.Random(1)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._runner = self._call(self._serve())

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    # -- what a test does

    def put(self, objects: Iterable[tuple[bool, Object]]) -> None:
        """Objects come, change, or, with False, go."""

        async def change() -> None:
            batch = list(objects)
            if self.shuffle:
                self._dice.shuffle(batch)
            for there, each in batch:
                self._put(there, each)
            async with self._changed:
                self._changed.notify_all()

        self._call(change())

    def fail(self, kind: Literal["list", "watch"], *faults: Fault) -> None:
        self.faults[kind] += faults

    def drop(self) -> None:
        """All watches are cut off."""

        async def cut() -> None:
            for transport in self.watching.values():
                transport.abort()

        self._call(cut())

    def forget(self) -> None:
        """Nobody can watch from where it was any more."""
        self._forgotten = self._number

    def freeze(self) -> None:
        """What is listed by a version is as now, from now on."""
        for each in self.collections.values():
            each.stale = dict(each.objects)

    def version(self, kind: str) -> str:
        """Of the newest object of a kind."""
        return _version(max((each.log[-1].number for name, each in self.collections.items() if name.endswith(kind))))

    def config(self, folder: Path, **cluster: Any) -> str:
        """A kubeconfig that leads here."""
        path = folder / "kubeconfig"
        content = {
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [
                {
                    "name": "c",
                    "cluster": {"server": f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}", **cluster},
                }
            ],
            "users": [{"name": "u", "user": {"token": TOKEN}}],
        }
        path.write_text(yaml.safe_dump(content))
        return str(path)

    def close(self) -> None:
        self.drop()
        self._call(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- the server

    async def _serve(self) -> web.AppRunner:
        self._changed = asyncio.Condition()
        app = web.Application()
        app.router.add_get("/{tail:.*}", self._get)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self.tls)
        await site.start()
        self.port = runner.addresses[0][1]
        return runner

    def _put(self, there: bool, each: Object) -> None:
        self._number += 1
        about = each["metadata"]
        key = (about.get("namespace", ""), about["name"])
        name = f"{each['apiVersion']}/{PLURALS.get((each['apiVersion'], each['kind']), each['kind'].lower() + 's')}"
        collection = self.collections.setdefault(name, Collection())
        before = collection.objects.get(key)
        uid = before["metadata"]["uid"] if before else f"uid-{self._number}"
        managed = [{"manager": "kubelet", "fieldsV1": {"f:status": {}}}]
        about = {**about, "uid": uid, "resourceVersion": _version(self._number), "managedFields": managed}
        now = {**each, "metadata": about}
        what = "DELETED" if not there else "MODIFIED" if before else "ADDED"
        if there:
            collection.objects[key] = now
        else:
            collection.objects.pop(key, None)
        collection.log.append(Logged(self._number, what, now))
        if self.repeat and before:  # what was already told comes once more
            collection.log.append(Logged(self._number, "MODIFIED", before))
            collection.log.append(Logged(self._number, what, now))

    async def _get(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        token = request.headers.get("Authorization", "")
        self.asked.append(Asked(request.path, query, request.headers.get("Accept", ""), token))
        if self.down:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        watch = query.get("watch") == "true"
        faults = self.faults["watch" if watch else "list"]
        fault = faults.pop(0) if faults else None
        if token != f"Bearer {TOKEN}":
            return _status(401, "Unauthorized")
        if answer := await self._failed(request, fault):
            return answer
        _, _, path = request.path.partition("/apis/" if request.path.startswith("/apis/") else "/api/")
        namespace = ""
        if "/namespaces/" in path:
            head, _, rest = path.partition("/namespaces/")
            namespace, _, plural = rest.partition("/")
            path = f"{head}/{plural}"
        collection = self.collections.get(path)
        if collection is None:
            return web.Response(status=404, text="404 page not found")
        partial = "as=PartialObjectMetadata" in request.headers.get("Accept", "")
        only = query.get("fieldSelector", "").removeprefix("metadata.name=")
        wanted = dict(each.split("=") for each in query.get("labelSelector", "").split(",") if each).items()

        def shown(each: Object) -> Object | None:
            about = each["metadata"]
            if (namespace and about.get("namespace") != namespace) or (only and about["name"] != only):
                return None
            if not wanted <= about.get("labels", {}).items():
                return None
            return {"kind": "PartialObjectMetadata", "metadata": about} if partial else each

        return await self._watch(request, collection, shown, fault) if watch else self._list(query, collection, shown)

    async def _failed(self, request: web.Request, fault: Fault | None) -> web.StreamResponse | None:
        match fault:
            case "refuse":
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            case "429":
                answer = _status(429, "TooManyRequests")
                answer.headers["Retry-After"] = str(RETRY_AFTER)
                return answer
            case "500" | "401" | "403" | "410":
                return _status(int(fault), "Expired" if fault == "410" else "InternalError")
            case "garbage":
                return web.Response(text='{"kind": "List", "items": [{]\n')
            case "endless":
                response = web.StreamResponse()
                await response.prepare(request)
                with contextlib.suppress(ConnectionError):
                    while True:
                        await response.write(b" " * 65536)
                return response
            case "redirect":
                return web.Response(status=302, headers={"Location": f"http://127.0.0.1:{self.port}/elsewhere"})
            case "slow":
                await asyncio.sleep(SLOW_SECONDS)
        return None

    def _list(
        self, query: Mapping[str, str], collection: Collection, shown: Callable[[Object], Object | None]
    ) -> web.Response:
        stale = bool(query.get("resourceVersion"))
        known = collection.stale if stale else collection.objects
        found = [each for each in map(shown, known.values()) if each is not None]
        begin, limit = int(query.get("continue") or 0), int(query.get("limit") or 0) or len(found) + 1
        metadata = {"resourceVersion": _version(self._number)}
        if begin + limit < len(found):
            metadata["continue"] = str(begin + limit)
        items = [{name: part for name, part in each.items() if name not in ("kind", "apiVersion")} for each in found]
        return web.json_response({"kind": "List", "metadata": metadata, "items": items[begin : begin + limit]})

    async def _watch(
        self,
        request: web.Request,
        collection: Collection,
        shown: Callable[[Object], Object | None],
        fault: Fault | None,
    ) -> web.StreamResponse:
        since = _number(request.query["resourceVersion"])
        if since < self._forgotten:
            return _status(410, "Expired")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        assert request.transport is not None
        self.watching[response] = request.transport
        end = self._loop.time() + float(request.query.get("timeoutSeconds", "1800"))
        try:
            if fault == "error event":
                said = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
                await response.write(_line("ERROR", said))
                return response
            if fault == "half":
                await response.write(b'{"type": "MODIFIED", "object": {"meta')
                return response
            if fault == "cut":
                request.transport.abort()
                return response
            await self._tell(request, response, collection, shown, since, end)
        except (ConnectionError, asyncio.CancelledError):
            pass  # the other side went, or we do
        finally:
            del self.watching[response]
        return response

    async def _tell(
        self,
        request: web.Request,
        response: web.StreamResponse,
        collection: Collection,
        shown: Callable[[Object], Object | None],
        since: int,
        end: float,
    ) -> None:
        place = next((at for at, each in enumerate(collection.log) if each.number > since), len(collection.log))
        while self._loop.time() < end:
            lot = collection.log[place : place + LOT]
            place += len(lot)
            lines = [(each.what, shown(each.object)) for each in lot]
            if told := b"".join(_line(what, each) for what, each in lines if each is not None):
                await response.write(told)
            if lot:
                continue
            try:
                async with asyncio.timeout(min(self.bookmarks, end - self._loop.time())), self._changed:
                    await self._changed.wait_for(lambda: len(collection.log) > place)  # noqa: B023 - waited for here
            except TimeoutError:
                if request.query.get("allowWatchBookmarks") == "true" and len(collection.log) == place:
                    await response.write(_line("BOOKMARK", {"metadata": {"resourceVersion": _version(self._number)}}))


def _line(what: str, each: Object) -> bytes:
    return json.dumps({"type": what, "object": each}).encode() + b"\n"


def _status(code: int, reason: str) -> web.Response:
    said = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": f"so says {reason}"}
    return web.json_response(said, status=code)


def _version(number: int) -> str:
    """Unique, and in no order."""
    return f"v{number * 2654435761 % 2**32:08x}"


def _number(version: str) -> int:
    return int(version[1:], 16) * pow(2654435761, -1, 2**32) % 2**32


@contextlib.contextmanager
def serving(*, repeat: bool = False, shuffle: bool = False, tls: ssl.SSLContext | None = None) -> Iterator[FakeApi]:
    api = FakeApi(repeat=repeat, shuffle=shuffle, tls=tls)
    try:
        yield api
    finally:
        api.close()
