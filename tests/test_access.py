"""Who may ask the web side, over real TLS: certificates and their names, passwords, tokens, and all of them rotated."""

import base64
import http.client
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest
import yaml
from on_loop import Loop, running_loop
from running import CODE, ECHOES, Exporter, clean, flags, killed_at_the_end, wait_for
from scraped_by import scraping
from servers import Certificates, make_certificates

from exporters import access as access_module
from exporters.access import Access
from exporters.exposition import Exposition, Info, make_registry
from exporters.web import Serving, make_app, serve

pytestmark = pytest.mark.slow

HASH = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
TLS = {"cert_file": "good.pem", "key_file": "key"}
MUTUAL = {**TLS, "client_ca_file": "ca.pem", "client_auth_type": "RequireAndVerifyClientCert"}
Answer = tuple[int, str]


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return make_certificates(tmp_path)


@pytest.fixture
def on() -> Iterator[Loop]:
    with running_loop() as loop:
        yield loop


class Site:
    """A web side under an access of its own."""

    def __init__(self, on: Loop, folder: Path, config: dict[str, Any], token: str | None = None) -> None:
        self.on, self.folder = on, folder
        self.write(config)
        token_file = folder / "token"
        if token:
            token_file.write_text(token)
        self.access = Access(folder / "web.yml", token, token_file if token else None)
        self.serving: Serving = on(self.start())

    async def start(self) -> Serving:
        async def reload() -> list[str]:
            return []

        exposition = Exposition(make_registry(Info("ovnwatch_build_info", "What runs.", {"version": "1"})))
        app = make_app(exposition, name="x", ready=lambda: True, access=self.access, reload=reload)
        return await serve(app, "127.0.0.1", 0)

    def write(self, config: dict[str, Any]) -> None:
        (self.folder / "web.yml").write_text(yaml.safe_dump(config))

    def look(self) -> None:
        self.on(self.access.look(self.serving.renew))

    def ask(
        self,
        path: str = "/-/healthy",
        method: str = "GET",
        *,
        authority: str = "ca.pem",
        name: str = "",
        **headers: str,
    ) -> Answer:
        """The answer; over TLS with the certificate of that name, if the site has any."""
        port = self.serving.port
        if self.access.config.tls:
            context = trusting(self.folder / authority, self.folder, name)
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                "127.0.0.1", port, timeout=30, context=context
            )
        else:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


def trusting(authority: Path, folder: Path, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority))
    if name:
        context.load_cert_chain(folder / f"{name}.pem", folder / "key")
    return context


def basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


@pytest.fixture
def site(on: Loop, certificates: Certificates) -> Iterator[Callable[..., Site]]:
    sites: list[Site] = []

    def begin(config: dict[str, Any], token: str | None = None) -> Site:
        sites.append(Site(on, certificates.folder, config, token))
        return sites[-1]

    yield begin
    for each in sites:
        on(each.serving.close())


def refused(site: Site, **how: Any) -> bool:
    try:
        site.ask(**how)
    except (ssl.SSLError, ConnectionError, http.client.RemoteDisconnected):
        return True
    return False


def test_a_certificate_of_the_authority_lets_in(site: Callable[..., Site]) -> None:
    mutual = site({"tls_server_config": MUTUAL})
    assert mutual.ask(name="good") == (200, "healthy\n")
    assert refused(mutual)
    assert refused(mutual, name="self")
    assert refused(mutual, name="expired")


@pytest.mark.parametrize(
    ("allowed", "status"),
    [(["other", "localhost"], 200), (["127.0.0.1"], 200), (["0:0::1"], 200), (["LOCALHOST"], 403), (["*"], 403)],
)
def test_the_certificate_must_be_for_an_allowed_name(
    site: Callable[..., Site], allowed: list[str], status: int
) -> None:
    named = site({"tls_server_config": {**MUTUAL, "client_allowed_sans": allowed}})
    for path in ("/metrics", "/-/healthy", "/nothing-there"):
        assert (named.ask(path, name="good")[0] == 403) == (status == 403)


def test_passwords(site: Callable[..., Site]) -> None:
    users = site({"basic_auth_users": {"ann": HASH}}, token="t-1")
    for _ in range(2):  # of which the second is remembered
        assert users.ask(Authorization=basic("ann", "secret"))[0] == 200
        for wrong in ("", basic("ann", "wrong"), basic("bob", "secret"), basic("", ""), "Basic ?", "Bearer secret"):
            assert users.ask("/metrics", Authorization=wrong)[0] == 401
    assert users.ask(Authorization=basic("ann", "x" * 100))[0] == 401  # more than bcrypt reads
    assert users.ask(Authorization="Bearer t-1")[0] == 200
    assert users.ask("/-/reload", "POST", Authorization=basic("ann", "secret"))[0] == 401
    assert users.ask("/-/reload", "POST", Authorization="Bearer t-1")[0] == 200


def test_checking_passwords_holds_up_nobody_and_has_a_bound(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    go = threading.Event()
    checked: list[bytes] = []

    def slow(password: bytes, _: bytes) -> bool:
        checked.append(password)
        return go.wait(60) and password == b"secret"

    monkeypatch.setattr(access_module, "matches", slow)
    users = site({"basic_auth_users": {"ann": HASH}}, token="t-1")
    answers: list[int] = []

    def ask(number: int) -> None:
        answers.append(users.ask(Authorization=basic("ann", f"wrong {number}"))[0])

    asking = [threading.Thread(target=ask, args=(number,)) for number in range(access_module.WAITING + 3)]
    for each in asking:
        each.start()
    wait_for(lambda: answers == [503] * 3)
    assert users.ask(Authorization="Bearer t-1")[0] == 200  # meanwhile
    assert len(checked) == 1
    go.set()
    for each in asking:
        each.join(60)
    assert sorted(answers) == [401] * access_module.WAITING + [503] * 3


def test_headers_are_set_and_a_pages_own_stay(site: Callable[..., Site]) -> None:
    own = {"Content-Security-Policy": "default-src *", "X-Frame-Options": "deny"}
    port = site({"http_server_config": {"headers": own}}).serving.port
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/")
    response = connection.getresponse()
    assert response.headers["X-Frame-Options"] == "deny"
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    connection.close()


def test_a_new_certificate_and_authority_without_a_lost_connection(
    site: Callable[..., Site], certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> None:
    mutual = site({"tls_server_config": MUTUAL})
    kept = http.client.HTTPSConnection(
        "127.0.0.1", mutual.serving.port, timeout=30, context=trusting(Path(certificates.ca), mutual.folder, "good")
    )
    kept.request("GET", "/-/healthy")
    assert kept.getresponse().read() == b"healthy\n"
    new = make_certificates(tmp_path_factory.mktemp("new")).folder
    old = tmp_path_factory.mktemp("old")
    for name in ("ca.pem", "good.pem", "key"):
        shutil.copy(mutual.folder / name, old)
        shutil.copy(new / name, mutual.folder)
    mutual.look()
    assert mutual.ask(name="good")[0] == 200
    mutual.folder, newer = old, mutual.folder
    assert refused(mutual, name="good"), "the old authority's"
    kept.request("GET", "/-/healthy")  # http.client connects anew by itself, with the old authority
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        kept.getresponse()
    mutual.folder = newer
    assert mutual.serving.listening.alive()
    for _ in range(20):
        mutual.on(mutual.serving.renew(mutual.access.config.tls or pytest.fail("no TLS")))
        assert mutual.ask(name="good")[0] == 200
    assert len(mutual.serving.listening.servers) == len(mutual.serving.listening.sockets) == 1


def test_what_cannot_be_used_changes_nothing_and_is_told_once(
    site: Callable[..., Site], caplog: pytest.LogCaptureFixture
) -> None:
    mutual = site({"tls_server_config": MUTUAL}, token="t-1")
    (mutual.folder / "good.pem").write_text("half a certificate")
    for _ in range(3):
        mutual.look()
    told = [each.getMessage() for each in caplog.records if "not reloaded" in each.getMessage()]
    assert len(told) == 1
    assert "cert_file" in told[0]
    mutual.folder, broken = make_certificates_like(mutual.folder), mutual.folder
    assert mutual.ask(name="good")[0] == 200
    mutual.folder = broken
    mutual.write({})
    mutual.look()
    assert "TLS came or went, which needs a restart" in caplog.text


def make_certificates_like(folder: Path) -> Path:
    """A copy of the certificates in which good.pem, which a test broke, is signed anew by the same authority."""
    copy = folder / "copy"
    copy.mkdir()
    for name in ("ca.pem", "key", "names", "request"):
        shutil.copy(folder / name, copy)
    signed = ("-CA", "ca.pem", "-CAkey", "key", "-CAcreateserial", "-days", "2", "-extfile", "names")
    made = ["openssl", "x509", "-req", "-in", "request", *signed, "-out", "good.pem"]
    subprocess.run(made, cwd=copy, check=True, capture_output=True)
    return copy


def test_a_new_token_and_new_passwords(site: Callable[..., Site]) -> None:
    users = site({"basic_auth_users": {"ann": HASH}}, token="t-1")
    assert users.ask("/-/reload", "POST", Authorization="Bearer t-1")[0] == 200
    (users.folder / "token").write_text("t-22\n")
    users.write({"basic_auth_users": {"ann": bcrypt.hashpw(b"other", bcrypt.gensalt(4)).decode()}})
    users.look()
    assert users.ask("/-/reload", "POST", Authorization="Bearer t-1")[0] == 401
    assert users.ask("/-/reload", "POST", Authorization="Bearer t-22")[0] == 200
    assert users.ask(Authorization=basic("ann", "secret"))[0] == 401
    assert users.ask(Authorization=basic("ann", "other"))[0] == 200


# --- as people run it

COMMANDS = {
    "peer": ["peer", *flags(dict.fromkeys(ECHOES, "127.0.0.1:0")), "--peers=b"],
    "bastion": ["bastion", *flags(dict.fromkeys(ECHOES, "off"))],
    "node": ["node"],
    "migration": ["migration"],
}


@pytest.mark.slow
@pytest.mark.system("prometheus")
def test_every_exporter_is_scraped_by_a_prometheus_with_a_client_certificate(certificates: Certificates) -> None:
    folder = certificates.folder
    (folder / "web.yml").write_text(
        yaml.safe_dump(
            {"tls_server_config": {**MUTUAL, "client_allowed_sans": ["localhost"]}, "basic_auth_users": {"ann": HASH}}
        )
    )
    with killed_at_the_end() as running:
        for name, argv in COMMANDS.items():
            own = {"METALLB_PEERS": '{"b-lb": "127.0.0.9"}'} if name == "bastion" else {}
            listen = ("--web.listen-address=127.0.0.1:0", f"--web.config.file={folder / 'web.yml'}", "--source=a")
            running.append(Exporter(folder / f"{name}.log", *argv, *listen, **own))
        wait_for(lambda: all("web" in each.ports for each in running))
        ports = {name: each.ports["web"] for name, each in zip(COMMANDS, running, strict=True)}
        files = {
            f"{name}_file": str(folder / path)
            for name, path in (("ca", "ca.pem"), ("cert", "good.pem"), ("key", "key"))
        }
        good = {"scheme": "https", "tls_config": files, "basic_auth": {"username": "ann", "password": "secret"}}
        jobs = {name: {**good, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]} for name, port in ports.items()}
        jobs["nobody"] = {
            **jobs["node"], "tls_config": {"ca_file": files["ca_file"]}
        }  # fmt: skip
        with scraping(folder, jobs) as query:
            wait_for(lambda: len(query("ovnwatch_build_info")) == len(COMMANDS), 60)
            wait_for(lambda: query('up{job="nobody"}'), 60)
            assert {each["metric"]["job"]: each["value"][1] for each in query("up")} == {
                **dict.fromkeys(COMMANDS, "1"), "nobody": "0"
            }  # fmt: skip
        assert [each.end() for each in running] == [0] * len(running), [each.said() for each in running]


@pytest.mark.slow
def test_a_running_exporter_takes_a_rotated_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t-1")
    with killed_at_the_end() as running:
        listen = ("--web.listen-address=127.0.0.1:0", f"--web.token-file={tmp_path / 'token'}")
        running.append(Exporter(tmp_path / "log", "migration", *listen))
        wait_for(running[0].ready)

        def mark(token: str) -> int:
            return running[0].get("/api/phases", method="POST", token=token)[0]

        assert (mark("t-1"), mark("t-2")) == (400, 401)
        (tmp_path / "new").write_text("t-2")
        (tmp_path / "new").rename(tmp_path / "token")  # as the kubelet does
        wait_for(lambda: mark("t-2") == 400)
        assert mark("t-1") == 401


def test_a_bad_file_is_told_at_start(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text("tls_server_config: {cert_file: a, key_file: b}")
    for command, argv in COMMANDS.items():
        given = [*argv, f"--web.config.file={tmp_path / 'web.yml'}", "--source=a", "--config.check"]
        more = {"METALLB_PEERS": '{"b-lb": "127.0.0.9"}'} if command == "bastion" else {}
        start = [sys.executable, "-c", CODE, *given]
        environ = {**clean(os.environ), **more}
        ran = subprocess.run(start, check=False, env=environ, capture_output=True, text=True)
        assert ran.returncode == 2
        assert f"{tmp_path / 'web.yml'}:1: tls_server_config.cert_file: cannot read" in ran.stderr
        assert "key_file: cannot read" in ran.stderr
