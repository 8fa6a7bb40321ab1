"""Lists and watches of a cluster, against a server with faults; what is kept of them, without one."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_api import RETRY_AFTER, TOKEN, FakeApi, Fault, serving
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.config import incluster_config
from running import wait_for
from servers import make_certificates

from exporters import kube
from exporters.kube import IN_CLUSTER, Cluster, ConfigError, Watch
from exporters.migration.resources import RESOURCES
from exporters.objects import (
    LONGEST_ASKED,
    LONGEST_PAUSE,
    MOST_SEEN,
    SHORTEST_PAUSE,
    AbsentError,
    Held,
    Key,
    Resource,
    WatchError,
    changed,
    decoded,
    failure,
    listed,
    pause,
)

pytestmark = pytest.mark.slow

NODES, DAEMON_SET = RESOURCES[0], RESOURCES[1]
FLANNEL = RESOURCES[2]
POOLS = next(each for each in RESOURCES if each.name == "machineconfigpools")


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with serving() as server:
        yield server


def node(name: str, boot_id: str = "b", **about: Any) -> dict[str, Any]:
    status = {"nodeInfo": {"bootID": boot_id}, "conditions": [{"type": "Ready", "status": "True"}], "images": [1] * 9}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, **about}, "status": status}


class Watched:
    """A watch, and how often it said that something changed."""

    def __init__(self, api: FakeApi, folder: Path, resource: Resource = NODES) -> None:
        self.changes = 0
        self.cluster = Cluster(api.config(folder))
        self.watch = Watch(self.cluster, resource, self._count)

    def _count(self) -> None:
        self.changes += 1

    def names(self) -> set[str]:
        return {name for _, name in self.watch.known().objects}

    def boots(self) -> dict[str, str]:
        held = self.watch.known().objects
        return {name: each.object["status"]["nodeInfo"]["bootID"] for (_, name), each in held.items()}

    def failures(self) -> dict[str, int]:
        return {reason: count for reason, count in self.watch.known().failures.items() if count}

    def close(self) -> None:
        self.watch.close()
        self.cluster.close()


@pytest.fixture
def watch(api: FakeApi, tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def make(resource: Resource = NODES) -> Watched:
        made.append(Watched(api, tmp_path, resource))
        return made[-1]

    yield make
    for each in made:
        each.close()


Make = Callable[..., Watched]


def test_what_a_cluster_has_is_listed_in_pages_and_watched(
    api: FakeApi, watch: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube, "PAGE", 3)
    api.put((True, node(f"n{number}")) for number in range(8))
    one = watch()
    wait_for(lambda: one.watch.known().up)
    assert one.names() == {f"n{number}" for number in range(8)}
    api.put([(True, node("n9")), (True, node("n1", "b2")), (False, node("n0"))])
    wait_for(lambda: one.boots().get("n1") == "b2" and "n9" in one.names())
    assert "n0" not in one.names()
    assert not one.failures()
    lists = [each for each in api.asked if "watch" not in each.query]
    assert len(lists) == 3
    assert all("resourceVersion" not in each.query for each in lists), "a stale cache could answer"
    assert {each.token for each in api.asked} == {f"Bearer {TOKEN}"}


def test_only_what_is_needed_is_asked_for(api: FakeApi, watch: Make) -> None:
    about = {"name": "kube-flannel-ds", "namespace": "kube-flannel", "annotations": {"a": "b"}}
    flannel = {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": about, "spec": {"template": "x"}}
    api.put([(True, flannel), (True, {**flannel, "metadata": {**about, "name": "other"}})])
    one = watch(FLANNEL)
    wait_for(lambda: one.watch.known().up)
    (held,) = one.watch.known().objects.values()
    assert held.object.keys() == {"kind", "apiVersion", "metadata"}
    assert held.object["kind"] == "DaemonSet"
    assert held.object["metadata"]["annotations"] == {}
    assert all("as=PartialObjectMetadata" in each.accept for each in api.asked)
    assert {each.query["fieldSelector"] for each in api.asked} == {"metadata.name=kube-flannel-ds"}


def test_a_dropped_watch_goes_on_where_it_was(api: FakeApi, watch: Make) -> None:
    api.put([(True, node("n1"))])
    one = watch()
    wait_for(lambda: one.watch.known().up and api.watching)
    for number in range(2, 6):
        wait_for(lambda: api.watching)
        api.drop()
        api.put([(True, node("n1", f"b{number}"))])
        wait_for(lambda wanted=f"b{number}": one.boots() == {"n1": wanted})  # type: ignore[misc]
    assert sum("watch" not in each.query for each in api.asked) == 1, "no new list was needed"


@pytest.mark.parametrize("fault", ["410", "error event"])
def test_after_410_there_is_a_new_list(api: FakeApi, watch: Make, fault: Fault) -> None:
    api.put([(True, node("n1")), (True, node("n2"))])
    one = watch()
    wait_for(lambda: one.watch.known().up and api.watching)
    before = one.watch.known().objects["", "n2"]
    api.fail("watch", fault)
    api.drop()
    api.put([(False, node("n1"))])
    api.forget()
    wait_for(lambda: one.names() == {"n2"})
    assert one.failures()["expired"] >= 1
    assert one.watch.known().objects["", "n2"] is before, "the same version is the same object"


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("refuse", "unreachable"),
        ("500", "server_error"),
        ("429", "throttled"),
        ("401", "unauthorized"),
        ("403", "forbidden"),
        ("garbage", "garbled"),
        ("redirect", "server_error"),
        ("endless", "garbled"),
    ],
)
def test_a_list_that_fails_is_tried_again(
    api: FakeApi, watch: Make, fault: Fault, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube, "MOST_PAGE_BYTES", 2**20)
    api.put([(True, node("n1"))])
    api.fail("list", fault, fault)
    began = time.monotonic()
    one = watch()
    wait_for(lambda: one.watch.known().up)
    assert one.failures() == {reason: 2}
    assert one.names() == {"n1"}
    assert not any(each.path == "/elsewhere" for each in api.asked), "nobody leads our token elsewhere"
    if fault == "429":
        assert time.monotonic() - began >= 2 * RETRY_AFTER


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("cut", "unreachable"), ("half", "unreachable"), ("garbage", "garbled"), ("500", "server_error")],
)
def test_a_watch_that_fails_goes_on(api: FakeApi, watch: Make, fault: Fault, reason: str) -> None:
    api.put([(True, node("n1"))])
    api.fail("watch", fault)
    one = watch()
    wait_for(lambda: api.watching and one.watch.known().up)
    api.put([(True, node("n2"))])
    wait_for(lambda: one.names() == {"n1", "n2"})
    assert one.failures() == {reason: 1}


def test_a_slow_answer_is_an_answer_and_one_without_end_is_none(
    api: FakeApi, watch: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.put([(True, node("n1"))])
    api.fail("list", "slow")
    one = watch()
    wait_for(lambda: one.watch.known().up)
    assert not one.failures()
    monkeypatch.setattr(kube, "LIST_SECONDS", 0.5)
    api.fail("list", "slow")
    other = watch()
    wait_for(lambda: other.watch.known().up)
    assert other.failures() == {"timeout": 1}


def test_an_orderly_end_is_no_failure_and_is_heard(api: FakeApi, watch: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube, "WATCH_SECONDS", (1, 1))
    api.bookmarks = 60.0
    api.put([(True, node("n1"))])
    one = watch()
    wait_for(lambda: one.watch.known().up)
    first = one.watch.known().heard
    wait_for(lambda: one.watch.known().heard > first)
    assert not one.failures()
    assert sum("watch" not in each.query for each in api.asked) == 1


def test_bookmarks_are_heard_and_move_where_a_watch_goes_on(api: FakeApi, watch: Make) -> None:
    api.put([(True, node("n1"))])
    one = watch(DAEMON_SET)
    wait_for(lambda: one.watch.known().up)
    first = one.watch.known().heard
    api.put([(True, node("n2"))])  # others' changes
    wait_for(lambda: one.watch.known().heard > first + api.bookmarks)
    api.forget()
    api.drop()
    wait_for(lambda: sum(each.query.get("watch") == "true" for each in api.asked) == 2)
    wait_for(lambda: one.watch.known().up)
    assert "expired" not in one.failures()


def test_a_new_list_comes_at_times(api: FakeApi, watch: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kube, "WATCH_SECONDS", (1, 1))
    monkeypatch.setattr(kube, "RESYNC_SECONDS", 0.0)
    api.put([(True, node("n1"))])
    one = watch()
    wait_for(lambda: sum("watch" not in each.query for each in api.asked) >= 2)
    assert one.names() == {"n1"}


def test_what_a_cluster_does_not_have_is_absent_and_looked_for(
    api: FakeApi, watch: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kube, "ABSENT_SECONDS", 0.2)
    one = watch(POOLS)
    wait_for(lambda: one.watch.known().absent)
    assert one.watch.known().heard
    assert not one.failures()
    pool = {"apiVersion": POOLS.api_version, "kind": POOLS.kind, "metadata": {"name": "worker"}}
    api.put([(True, pool)])
    wait_for(lambda: one.names() == {"worker"})
    assert not one.watch.known().absent
    del api.collections[f"{POOLS.api_version}/{POOLS.plural}"]
    api.drop()
    wait_for(lambda: one.failures().get("server_error"))
    wait_for(lambda: one.watch.known().absent)
    assert one.names() == set()


def test_a_server_that_is_gone_leaves_what_was_last_known(api: FakeApi, watch: Make) -> None:
    api.put([(True, node("n1"))])
    one = watch()
    wait_for(lambda: one.watch.known().up)
    api.down = True
    api.drop()
    wait_for(lambda: not one.watch.known().up)
    heard = one.watch.known().heard
    wait_for(lambda: one.failures().get("unreachable", 0) >= 3)
    assert (one.names(), one.watch.known().heard) == ({"n1"}, heard)
    api.down = False
    wait_for(lambda: one.watch.known().up and one.watch.known().heard > heard)


def test_a_watch_ends_at_once_whatever_it_waits_for(api: FakeApi, tmp_path: Path) -> None:
    api.bookmarks = 60.0
    one = Watched(api, tmp_path)
    wait_for(lambda: api.watching)
    one.close()
    assert not [each for each in threading.enumerate() if each.name == "watch-nodes"]


def test_a_bug_is_told(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(Watch, "_list", lambda *_: 1 / 0)
    one = Watched(api, tmp_path)
    wait_for(lambda: one.changes)  # the last word of its thread
    with pytest.raises(RuntimeError, match="has ended"):
        one.watch.known()
    one.close()


# --- the way there


def test_what_others_take_for_a_server_is_one(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Cluster(api.config(tmp_path, server="https://0.0.0.0:6443"))
    monkeypatch.setenv("HTTPS_PROXY", "proxy:3128")
    with pytest.raises(ConfigError, match="HTTPS_PROXY"):
        Cluster(api.config(tmp_path, server="https://10.0.0.1"))
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8")
    Cluster(api.config(tmp_path, server="https://10.0.0.1"))
    for server in ("https://admin:s3cret@10.0.0.1", "admin:s3cret@10.0.0.1", "ftp://admin:s3cret@10.0.0.1"):
        with pytest.raises(ConfigError, match="server: want no user") as told:
            Cluster(api.config(tmp_path, server=server))
        assert "s3cret" not in str(told.value)


def test_a_kubeconfig_that_cannot_be_used_says_why(api: FakeApi, tmp_path: Path) -> None:
    for text in ("[]", "a: b", "", "{", "current-context: x\ncontexts: []\nclusters: []\nusers: []\n"):
        (tmp_path / "config").write_text(text)
        with pytest.raises(ConfigError, match=r"."):
            Cluster(str(tmp_path / "config"))
    with pytest.raises(ConfigError):
        Cluster(str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="certificate-authority"):
        Cluster(api.config(tmp_path, server="https://127.0.0.1:1", **{"insecure-skip-tls-verify": True}))
    with pytest.raises(ConfigError, match="https"):
        Cluster(api.config(tmp_path, server="http://192.0.2.1"))
    (tmp_path / "garbage.pem").write_text("x")
    for change, wrong in (
        ({"server": "https://127.0.0.1:99999"}, "server: Port out of range"),
        ({"server": "https://a b:1"}, "server: want a host name"),
        ({"server": "api:6443"}, "server: want http"),
        ({"server": "https://127.0.0.1:1", "certificate-authority": str(tmp_path / "garbage.pem")}, "certificate-auth"),
        ({"proxy-url": "socks5://user:secret@x:1"}, "^proxy-url, or HTTPS_PROXY: want http:// or https://$"),
    ):
        with pytest.raises(ConfigError, match=wrong):
            Cluster(api.config(tmp_path, **change))
    (tmp_path / "config").write_text("[" * 3000)
    with pytest.raises(ConfigError, match="recursion"):
        Cluster(str(tmp_path / "config"))
    with pytest.raises(ConfigError):
        Cluster(api.config(tmp_path), "another")
    with pytest.raises(ConfigError):
        Cluster(IN_CLUSTER)


@pytest.mark.parametrize(("authority", "trusted"), [("ca.pem", True), ("self.pem", False)])
def test_a_server_proves_who_it_is_before_it_gets_the_token(tmp_path: Path, authority: str, trusted: bool) -> None:
    certificates = make_certificates(tmp_path)
    with serving(tls=certificates.server()) as api:
        api.put([(True, node("n1"))])
        cluster = Cluster(api.config(tmp_path, **{"certificate-authority": str(tmp_path / authority)}))
        one = Watch(cluster, NODES, lambda: None)
        wait_for(lambda: one.known().up or one.known().failures["tls"])
        assert (one.known().up, bool(api.asked)) == (trusted, trusted)
        one.close()
        cluster.close()


def test_in_a_pod_its_service_account_is_used(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("first")
    (tmp_path / "ca.crt").write_bytes((make_certificates(tmp_path).folder / "ca.pem").read_bytes())
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(api.port))
    cluster = Cluster(IN_CLUSTER)
    assert cluster.host == f"https://127.0.0.1:{api.port}"
    assert cluster.settings().verify_ssl
    (tmp_path / "token").write_text("second")
    assert "second" in cluster.settings().api_key["BearerToken"]
    cluster.close()


@pytest.mark.parametrize("token", ["se\r\ncret", "sécret✓"])
def test_a_token_that_cannot_be_sent_is_a_failure_and_not_told(
    api: FakeApi, tmp_path: Path, caplog: pytest.LogCaptureFixture, token: str
) -> None:
    path = Path(api.config(tmp_path))
    users = [{"name": "u", "user": {"token": token}}]
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"users": users}))
    cluster = Cluster(str(path))
    one = Watch(cluster, NODES, lambda: None)
    wait_for(lambda: one.known().failures["unauthorized"])
    one.close()
    cluster.close()
    assert not api.asked
    assert "no line of ASCII" in caplog.text
    assert "cret" not in caplog.text


def test_the_token_is_never_logged(
    api: FakeApi, watch: Make, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.DEBUG):
        api.fail("list", "401", "403", "500", "garbage")
        one = watch()
        wait_for(lambda: one.watch.known().up)
    assert "watch on nodes: unauthorized" in caplog.text
    assert TOKEN not in caplog.text + "".join(capfd.readouterr())


# --- what is kept


def held(versions: str, uid: str = "u") -> Held:
    return Held({}, 1.0, uid, tuple(versions))


def thing(version: str, uid: str = "u", name: str = "a") -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": uid, "resourceVersion": version}}


A: Key = ("", "a")


def test_what_was_left_behind_does_not_come_back() -> None:
    known = {A: held("c")}
    assert not changed(known, "MODIFIED", thing("c"), 2.0)
    assert changed(known, "MODIFIED", thing("b"), 3.0), "no order is read from versions"
    with pytest.raises(WatchError, match="expired"):
        changed(known, "MODIFIED", thing("c"), 4.0)
    assert known[A].versions == ("b", "c")
    assert not changed(known, "DELETED", thing("z", uid="another"), 5.0)
    assert changed(known, "ADDED", thing("c", uid="another"), 6.0)
    assert known[A].versions == ("c",)
    assert changed(known, "DELETED", thing("z", uid="another"), 7.0)
    assert not changed(known, "DELETED", thing("z", uid="another"), 8.0)
    assert known == {}


def test_a_list_is_right_whatever_was_before() -> None:
    known = {A: held("cba"), ("", "gone"): held("x")}
    after = listed(known, {A: thing("b"), ("", "new"): thing("n", name="new")}, 2.0)
    assert {key: each.versions[0] for key, each in after.items()} == {A: "b", ("", "new"): "n"}
    assert listed(after, {A: thing("b")}, 3.0)[A] is after[A]


@given(st.lists(st.text("abcdefghijkl", min_size=1, max_size=1), max_size=50))
def test_versions_that_are_remembered_are_bounded(versions: list[str]) -> None:
    known: dict[Key, Held] = {}
    for version in versions:
        with contextlib.suppress(WatchError):
            changed(known, "MODIFIED", thing(version), 1.0)
    assert all(len(each.versions) <= MOST_SEEN + 1 for each in known.values())
    assert all(len(set(each.versions)) == len(each.versions) for each in known.values())


@given(st.integers(1, 10**6), st.floats(0, 1e9), st.floats(0, 1))
def test_pauses_grow_are_spread_and_end(failed: int, asked: float, dice: float) -> None:
    found = pause(failed, asked, dice)
    assert SHORTEST_PAUSE / 2 <= found <= LONGEST_ASKED * 1.1
    assert found >= min(asked, LONGEST_ASKED)
    assert pause(failed, 0.0, dice) <= LONGEST_PAUSE
    assert pause(failed, 0.0, 1.0) >= pause(failed, 0.0, 0.0) * 1.9


@pytest.mark.parametrize(
    ("status", "body", "header", "reason", "wait"),
    [
        (429, b"{}", "7", "throttled", 7.0),
        (504, b'{"code": 504, "details": {"retryAfterSeconds": 1}}', "", "server_error", 1.0),
        (503, b"<html>", "x", "server_error", 0.0),
        (410, b'{"reason": "Expired"}', "", "expired", 0.0),
    ],
)
def test_what_an_answer_means(status: int, body: bytes, header: str, reason: str, wait: float) -> None:
    error = failure(status, body, header)
    assert isinstance(error, WatchError)
    assert (error.reason, error.wait) == (reason, wait)
    assert isinstance(failure(404, b"404 page not found"), AbsentError)


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda each: each.name)
@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"metadata": {"name": "a b"}}', b'{"metadata": {"name": 1}}'])
def test_what_is_no_object_is_refused(resource: Resource, data: bytes) -> None:
    with pytest.raises(WatchError, match="garbled"):
        decoded(resource.read, data)
