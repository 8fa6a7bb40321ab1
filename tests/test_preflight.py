"""`ovnwatch preflight`: each verdict, and real exporters, Prometheus and Alertmanager, whole and broken."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import ANY_PORT, Exporter, clean, flags, killed_at_the_end, wait_for

from alerts.preflight import checks
from alerts.preflight.checks import Alerted, Check, Scraped, Stream
from alerts.preflight.checks import Exporter as Told
from alerts.preflight.command import main
from lab import monitoring
from lab.children import hold_port

Capture = pytest.CaptureFixture[str]
TOKEN = "secret"
UP = Stream("a|b|pod|tcp|4", "up")


def verdicts(found: Sequence[Check]) -> list[str]:
    return [each.verdict for each in found]


# --- pure


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        (Told("u", wrong="does not answer"), ["fail"]),
        (Told("u", "m", probes=False), ["pass"]),
        (Told("u", "a"), ["fail"]),
        (Told("u", "a", streams=[UP, UP]), ["pass"]),
        (Told("u", "a", streams=[UP, Stream("a|c|pod|tcp|4", "down", "refused")]), ["fail"]),
        (Told("u", "a", streams=[UP, Stream("a|c|pod|tcp|4", "unknown")]), ["unknown"]),
    ],
)
def test_paths(told: Told, wanted: list[str]) -> None:
    found = [*checks.paths([told])]
    assert verdicts(found) == wanted
    assert all(each.do for each in found if each.verdict != "pass"), "what to do is said"


def test_a_thousand_streams_that_are_down_are_told_in_a_few_lines() -> None:
    streams = [Stream(f"a|t{number}|pod|tcp|4", "down", "refused") for number in range(1000)]
    found = [*checks.paths([Told("u", "a", streams=streams)])]
    assert len(found) == checks.MOST_STREAMS + 1
    assert found[-1].found == f"and {1000 - checks.MOST_STREAMS} streams more"


@pytest.mark.parametrize(
    ("offsets", "wanted"),
    [
        ([(0.0, 0.01), (0.5, 0.01)], ["pass", "pass"]),
        ([(-1.5, 0.01), (1.5, 0.01)], ["fail", "fail"]),
        ([(0.0, 0.01), (1.9, 0.5)], ["unknown", "unknown"]),
        ([(0.0, 0.01), (0.1, 0.01), (5.0, 0.01)], ["fail", "fail", "fail"]),
        ([(3.0, 0.01)], ["fail"]),
        ([(0.3, 0.01)], ["pass"]),
    ],
)
def test_clocks(offsets: list[tuple[float, float]], wanted: list[str]) -> None:
    told = [Told(f"u{place}", f"s{place}", offset=off, error=error) for place, (off, error) in enumerate(offsets)]
    assert verdicts([*checks.clocks(told, 2.0)]) == wanted


def test_a_wrong_token_is_told_apart_from_none_set() -> None:
    told = [Told("u", str(status), token=status) for status in (204, 401, 403, 404, 0)]
    found = [*checks.tokens(told, given=True)]
    assert verdicts(found) == ["pass", "fail", "fail", "unknown", "unknown"]
    assert "another token" in found[1].found
    assert "no token set" in found[2].found
    assert verdicts([*checks.tokens(told[:1], given=False)]) == ["unknown"]


def test_scrapes() -> None:
    told = [Told("u", name) for name in ("fresh", "old", "down", "odd", "none")]
    series = [
        Scraped("fresh", 5.0, up=True),
        Scraped("fresh", 500.0, up=False),
        Scraped("old", 200.0, up=True),
        Scraped("down", 5.0, up=False),
        Scraped("odd", 5.0, None),
    ]
    assert verdicts([*checks.scrapes(told, series, "")]) == ["pass", "fail", "fail", "unknown", "fail"]
    assert verdicts([*checks.scrapes(told, [], "does not answer")]) == ["fail"]


@pytest.mark.parametrize(
    ("alerted", "wanted"),
    [
        (Alerted(wrong="does not answer"), ["fail"]),
        (Alerted(seconds=0.1, receivers=["pager"], over=True), ["pass", "pass"]),
        (Alerted(seconds=0.1, held="silenced by 1", over=True), ["fail", "pass"]),
        (Alerted(over=True), ["fail", "pass"]),
        (Alerted(seconds=0.1, listened=True, over=False), ["pass", "fail", "unknown"]),
        (Alerted(seconds=0.1, listened=True, called=2.0, over=True), ["pass", "pass", "pass"]),
    ],
)
def test_alerts(alerted: Alerted, wanted: list[str]) -> None:
    assert verdicts([*checks.alerts(alerted, "A", 60.0)]) == wanted


def test_all_of_it() -> None:
    one = Check("paths", "a", "pass", "")
    assert checks.verdict([one]) == "pass"
    assert checks.verdict([one, one._replace(verdict="unknown")]) == "unknown"
    assert checks.verdict([one, one._replace(verdict="unknown"), one._replace(verdict="fail")]) == "fail"
    assert checks.verdict([]) == "unknown"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["--url=http://b"],
        ["--url=http://b", "--skip=alerts"],
        ["--url=ftp://b", "--skip=alerts", "--skip=prometheus"],
        ["--url=http://b", "--skip=alerts", "--skip=prometheus", "--alert-label=x"],
    ],
)
def test_flags_that_do_not_do_end_with_1(argv: list[str], capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


# --- real ones


@contextmanager
def running(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=clean(os.environ))
    try:
        yield process
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()


def told(capsys: Capture, *argv: str) -> tuple[int, list[dict[str, Any]]]:
    code = main([*argv, "--output=json"])
    printed = capsys.readouterr()
    assert not printed.err
    document = json.loads(printed.out)
    assert {"pass": 0, "fail": 2, "unknown": 1}[document["verdict"]] == code
    return code, document["checks"]


def of(found: list[dict[str, Any]], check: str) -> list[str]:
    return [each["verdict"] for each in found if each["check"] == check]


@pytest.mark.slow
@pytest.mark.system("prometheus", "prometheus-alertmanager")
def test_all_that_is_ready_passes_and_what_is_broken_is_named(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVNWATCH_TOKEN", TOKEN)
    prometheus, alertmanager = monitoring.programs()
    with killed_at_the_end() as started:
        target = {"name": "b", "host": "127.0.0.1", "protocols": ["tcp"]}
        one = Exporter(tmp_path / "e.log", "migration", "--web.listen-address=127.0.0.1:0", "--source=m",
                       OVNWATCH_TOKEN=TOKEN)  # fmt: skip
        started.append(one)
        wait_for(one.ready)
        echo = Exporter(tmp_path / "x.log", "peer", "--peers=b", "--source=x", *flags(ANY_PORT))
        started.append(echo)
        wait_for(echo.ready)
        file = tmp_path / "b.yaml"
        target["ports"] = {"tcp": echo.ports["tcp"]}  # type: ignore[assignment]
        file.write_text(yaml.safe_dump({"source": "bastion", "targets": [target]}))
        bastion = Exporter(tmp_path / "b.log", "bastion", "--config.file", str(file), *flags(ANY_PORT),
                           OVNWATCH_TOKEN=TOKEN)  # fmt: skip
        started.append(bastion)
        wait_for(lambda: bastion.ready() and '"state": "up"' in bastion.get("/status")[1])
        with hold_port() as first, hold_port() as second, hold_port() as third:
            ports = [each.getsockname()[1] for each in (first, second, third)]
            jobs = {"ovnwatch": [f"127.0.0.1:{each.ports['web']}" for each in (one, bastion)]}
            (tmp_path / "prometheus.yaml").write_text(monitoring.prometheus_config(jobs, "", tmp_path / "rules"))
            (tmp_path / "alertmanager.yaml").write_text(monitoring.alertmanager_config(ports[2]))
            commands = [
                monitoring.command("prometheus", prometheus, tmp_path, ports[0]),
                monitoring.command("alertmanager", alertmanager, tmp_path, ports[1]),
            ]
            with running(commands[0], tmp_path / "p.log"), running(commands[1], tmp_path / "a.log"):
                urls = [f"--url=http://127.0.0.1:{each.ports['web']}" for each in (one, bastion)]
                argv = [
                    *urls, f"--prometheus=http://127.0.0.1:{ports[0]}", f"--alertmanager=http://127.0.0.1:{ports[1]}",
                ]  # fmt: skip
                webhook = f"--webhook.listen-address=127.0.0.1:{ports[2]}"
                wait_for(lambda: told(capsys, *argv)[0] == 0, 60.0, 1.0)
                code, found = told(capsys, *argv, webhook, "--alert-timeout=30")
                assert code == 0, found
                assert of(found, "alerts") == ["pass"] * 3
                assert main([*argv]) == 0
                assert capsys.readouterr().out.splitlines()[-1] == "PASS"

                monkeypatch.setenv("OVNWATCH_TOKEN", "another")
                code, found = told(capsys, *argv)
                assert (code, of(found, "tokens")) == (2, ["fail", "fail"])
                monkeypatch.setenv("OVNWATCH_TOKEN", TOKEN)
                unset = f"--url=http://127.0.0.1:{echo.ports['http']}"
                code, found = told(capsys, unset, "--skip=prometheus", "--skip=alerts", "--skip=paths")
                assert (code, of(found, "tokens")) == (2, ["fail"])
                assert "no token set" in str(found)
                assert echo.end() == 0
                wait_for(lambda: '"state": "down"' in bastion.get("/status")[1])
                code, found = told(capsys, *argv)
                assert (code, of(found, "paths")) == (2, ["pass", "fail"])
                assert one.end() == 0
                code, found = told(capsys, *argv)
                assert (code, of(found, "paths")[0]) == (2, "fail")
        code, found = told(capsys, *argv[1:])
        assert (code, of(found, "prometheus"), of(found, "alerts")) == (2, ["fail"], ["fail"])


@contextmanager
def serving(body: bytes) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_address[1]}"
        found.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("body", [b"no", b"[]", b"{}", b"[" * 100_000, b"\xff\x1b[31m"])
def test_what_is_none_of_them_is_told(body: bytes, capsys: Capture) -> None:
    with serving(body) as url:
        code, found = told(capsys, f"--url={url}", f"--prometheus={url}", f"--alertmanager={url}")
    assert code == 2
    assert of(found, "paths") == of(found, "prometheus") == ["fail"]
    assert "pass" not in [each["verdict"] for each in found if each["check"] != "alerts"]
    assert "\x1b" not in json.dumps(found, ensure_ascii=False)
