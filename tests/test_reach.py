"""Commands that ask exporters behind a private authority, client certificates and passwords, over real TLS."""

import socket
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import bcrypt
import pytest
import yaml
from running import ANY_PORT, Exporter, flags, killed_at_the_end, wait_for
from servers import make_certificates

from alerts.preflight.command import main as preflight
from alerts.report import gate as gate_module
from alerts.report.command import main as report
from alerts.report.gate import main as gate
from exporters.history.command import main as history
from exporters.migration.mark import main as mark

pytestmark = pytest.mark.slow

TOKEN = "secret"
Capture = pytest.CaptureFixture[str]

# By name, how it is called and what it returns where it is let in. Nothing is up here, and nothing was observed.
COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], Sequence[str], int]] = {
    "gate": (gate, ("--timeout=0",), 2),
    "report": (report, ("--from=2026-01-02T03:04:05Z", "--to=2026-01-02T03:04:06Z"), 2),
    "history show": (history, ("show",), 0),
    "history export": (history, ("export",), 0),
    "history verify": (history, ("verify",), 0),
    "mark": (mark, ("reboot", "--node=n1"), 0),
    "preflight": (preflight, ("--skip=prometheus", "--skip=alerts", "--skip=paths"), 0),
}
of_each = pytest.mark.parametrize("command", COMMANDS)


class Site:
    """A bastion and a migration exporter that let in who has a certificate of ours, and a password or the token."""

    def __init__(self, folder: Path, running: list[Exporter], closed: int) -> None:
        self.folder = folder
        make_certificates(folder)
        (folder / "token").write_text(f"{TOKEN}\n")
        mutual = {"cert_file": "good.pem", "key_file": "key", "client_ca_file": "ca.pem",
                  "client_auth_type": "RequireAndVerifyClientCert"}  # fmt: skip
        users = {"ann": bcrypt.hashpw(b"password", bcrypt.gensalt(4)).decode()}
        (folder / "web.yml").write_text(yaml.safe_dump({"tls_server_config": mutual, "basic_auth_users": users}))
        secured = f"--web.config.file={folder / 'web.yml'}"
        self.started = {
            "bastion": Exporter(folder / "b.log", "bastion", secured, "--source=b", *flags(ANY_PORT),
                                ROUTE_PEERS=f"http://127.0.0.1:{closed}", OVNWATCH_TOKEN=TOKEN),
            "migration": Exporter(folder / "m.log", "migration", secured, "--source=m",
                                  "--web.listen-address=127.0.0.1:0", OVNWATCH_TOKEN=TOKEN),
        }  # fmt: skip
        running += self.started.values()
        for each in self.started.values():
            wait_for(lambda each=each: "web" in each.ports)  # type: ignore[misc]

    def ask(self, command: str, *more: str) -> int:
        main, argv, _ = COMMANDS[command]
        of = self.started["migration" if command == "mark" else "bastion"]
        return main([*argv, f"--url=https://127.0.0.1:{of.ports['web']}", *more])

    def flags(self, *names: str) -> list[str]:
        files = {"ca": "ca.pem", "cert": "good.pem", "key": "key", "web.token": "token"}
        return [f"--{name}-file={self.folder / files[name]}" for name in names]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with killed_at_the_end() as running, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        yield Site(tmp_path_factory.mktemp("site"), running, closed.getsockname()[1])


@of_each
def test_with_authority_certificate_and_token_they_are_let_in(site: Site, command: str, capsys: Capture) -> None:
    assert site.ask(command, *site.flags("ca", "cert", "key", "web.token")) == COMMANDS[command][2], capsys.readouterr()


@of_each
def test_the_token_may_be_a_variable(
    site: Site, command: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVNWATCH_TOKEN", TOKEN)
    assert site.ask(command, *site.flags("ca", "cert", "key")) == COMMANDS[command][2], capsys.readouterr()


LACKING = pytest.mark.parametrize(
    ("given", "says"),
    [
        (("web.token",), "certificate verify failed"),
        (("ca", "web.token"), ""),  # how a server refuses who shows none is its library's word
        (("ca", "cert", "key"), "401"),
    ],
)


@pytest.mark.parametrize("command", [each for each in COMMANDS if each != "preflight"])
@LACKING
def test_who_lacks_one_of_them_is_told(
    site: Site, command: str, given: Sequence[str], says: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OVNWATCH_TOKEN", raising=False)
    code = site.ask(command, *site.flags(*given))
    printed = capsys.readouterr()
    said = printed.out + printed.err
    assert code == 1
    assert len(said.splitlines()) <= 2
    if command == "mark" and "web.token" not in given:
        assert "no token" in said
    else:
        assert says in said


@LACKING
def test_preflight_says_it_of_each_exporter(
    site: Site, given: Sequence[str], says: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OVNWATCH_TOKEN", raising=False)
    urls = [f"--url=https://127.0.0.1:{each.ports['web']}" for each in site.started.values()]
    assert preflight([*urls, "--skip=prometheus", "--skip=alerts", *site.flags(*given)]) == 2
    lines = capsys.readouterr().out.splitlines()
    failed = [line for line in lines if line.startswith("FAIL ")]
    assert len(failed) == len(urls)
    assert all(says in line for line in failed)


@of_each
@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--ca-file=/nowhere"], ["--ca-file: cannot use /nowhere: No such file or directory"]),
        (["--ca-file={folder}/key"], ["--ca-file: cannot use {folder}/key: "]),
        (["--cert-file={folder}/good.pem"], ["--cert-file, --key-file: cert_file and key_file go together"]),
        (["--cert-file={folder}/good.pem", "--key-file=/nowhere"], ["--key-file: cannot read /nowhere: "]),
        (
            ["--ca-file=/nowhere", "--web.token-file=/nowhere"],
            ["--ca-file: cannot use", "--web.token-file: cannot read /nowhere: No such file or directory"],
        ),
    ],
)
def test_files_that_cannot_be_used_are_told_all_at_once(
    site: Site, command: str, argv: Sequence[str], says: Sequence[str], capsys: Capture
) -> None:
    assert site.ask(command, *(each.format(folder=site.folder) for each in argv)) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(says)
    for line, wanted in zip(lines, says, strict=True):
        assert line.startswith(wanted.format(folder=site.folder))


def test_a_mark_does_not_follow_where_it_is_sent_with_the_token(capsys: Capture, tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.path, self.headers.get("Authorization", "")))
            self.send_response(302)
            self.send_header("Location", "/elsewhere")
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    (tmp_path / "token").write_text(TOKEN)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"--url=http://127.0.0.1:{server.server_address[1]}"
        assert mark(["drain", url, f"--web.token-file={tmp_path / 'token'}"]) == 1
        server.shutdown()
    assert asked == [("/api/phases", f"Bearer {TOKEN}")]
    assert "302" in capsys.readouterr().err


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nno",
        b"",
    ],
)
def test_a_mark_to_who_is_no_migration_exporter_is_told(answer: bytes, capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = Thread(target=serve)
        thread.start()
        url = f"--url=http://127.0.0.1:{listener.getsockname()[1]}"
        assert mark(["drain", url, f"--web.token-file={tmp_path / 'token'}"]) == 1
        thread.join()
    assert capsys.readouterr().err.count("\n") == 1


def test_a_gate_does_not_wait_a_minute_for_who_says_nothing(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gate_module.ANSWER_SECONDS <= 10
    monkeypatch.setattr(gate_module, "ANSWER_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert gate([f"--url=http://127.0.0.1:{listener.getsockname()[1]}", "--timeout=0"]) == 1
    assert "no whole answer in 1 s" in capsys.readouterr().out
