"""`ovnwatch dashboards`: the forms that sites take are whole, faults are said, and a Grafana gets what it lacks."""

import json
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from exporters import catalog
from grafana import asking, checking, command, console

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
BOARDS = {file.stem: json.loads(file.read_text()) for file in sorted((ROOT / "grafana/dashboards").glob("*.json"))}
CONSOLE_TYPES = {"graph", "singlestat", "table"}  # of those that OpenShift's console draws
CONFIG_MAP = 1024 * 1024
APPLIED = 256 * 1024  # what an annotation holds, in which `kubectl apply` keeps the whole object

each_board = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)


def rendered(tmp_path: Path, form: str, *argv: str) -> dict[str, Any]:
    assert command.main(["render", f"--form={form}", f"--output-dir={tmp_path}", *argv]) == 0
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    return {str(file.relative_to(tmp_path)): read(file) for file in files}


def read(file: Path) -> Any:
    return json.loads(file.read_text()) if file.suffix == ".json" else yaml.safe_load(file.read_text())


# --- forms


def test_files_are_the_boards(tmp_path: Path) -> None:
    assert rendered(tmp_path, "json") == {f"{name}.json": board for name, board in BOARDS.items()}


def test_provisioning_names_the_folder_of_the_boards(tmp_path: Path) -> None:
    found = rendered(tmp_path, "provisioning")
    (provider,) = found.pop("provisioning/ovnwatch.yaml")["providers"]
    assert (provider["type"], provider["allowUiUpdates"]) == ("file", False)
    assert provider["options"]["path"].startswith("/")
    assert found == {f"dashboards/{name}.json": board for name, board in BOARDS.items()}


def test_the_sidecar_finds_config_maps_by_their_label(tmp_path: Path) -> None:
    for name, made in rendered(tmp_path, "sidecar", "--namespace=monitoring").items():
        assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert made["metadata"]["namespace"] == "monitoring"
        assert_config_map(made, BOARDS[name.removesuffix(".yaml")])


def test_an_operator_takes_the_objects(tmp_path: Path) -> None:
    found = rendered(tmp_path, "operator", "--instance-label=team=network")
    assert len(found) == len(BOARDS)
    for name, made in found.items():
        assert made["spec"]["instanceSelector"] == {"matchLabels": {"team": "network"}}
        assert json.loads(made["spec"]["json"]) == BOARDS[name.removesuffix(".yaml")]
        assert len(json.dumps(made)) < APPLIED


def test_the_console_gets_what_it_draws(tmp_path: Path) -> None:
    found = rendered(tmp_path, "console", "--namespace=ignored")
    assert len(found) == len(BOARDS)
    for name, made in found.items():
        assert made["metadata"]["namespace"] == "openshift-config-managed"
        assert made["metadata"]["labels"]["console.openshift.io/dashboard"] == "true"
        assert_config_map(made, console.console(BOARDS[name.removesuffix(".yaml")]))


def assert_config_map(made: Mapping[str, Any], board: Mapping[str, Any]) -> None:
    assert (made["apiVersion"], made["kind"]) == ("v1", "ConfigMap")
    ((file, data),) = made["data"].items()
    assert re.fullmatch(r"ovnwatch-[a-z]+\.json", file)
    assert json.loads(data) == board
    assert len(json.dumps(made).encode()) < APPLIED < CONFIG_MAP


def test_several_clusters_are_chosen_from_in_every_form(tmp_path: Path) -> None:
    for board in rendered(tmp_path, "json", "--multi-cluster").values():
        assert [each["hide"] for each in board["templating"]["list"] if each["name"] == "cluster"] == [0]


# --- the console's form


@each_board
def test_the_console_reads_only_what_it_knows(board: dict[str, Any]) -> None:
    made = console.console(board)
    known = {each["name"] for each in made["templating"]["list"]}
    assert "cluster" not in known
    panels = [panel for row in made["rows"] for panel in row["panels"]]
    assert {panel["type"] for panel in panels} <= CONSOLE_TYPES
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(0 < panel["span"] <= 12 and panel["title"] and panel["description"] for panel in panels)
    for expr in [target["expr"] for panel in panels for target in panel["targets"]]:
        named = set(re.findall(r"\$(\w+)", expr))
        assert named <= known | {"__interval", "__rate_interval", "__range"}
        assert "cluster=" not in expr
        assert not re.search(r"\{,|,\}|,,|\{\}", expr)
    for variable in made["templating"]["list"]:
        assert set(re.findall(r"\$(\w+)", variable["query"])) <= known - {variable["name"]}


@each_board
def test_the_console_asks_what_grafana_asks(board: dict[str, Any]) -> None:
    """Of what it draws: each metric of a panel is there in the other form, too."""
    made = {
        (panel["id"] // 10, target["refId"]): target["expr"]
        for row in console.console(board)["rows"]
        for panel in row["panels"]
        for target in panel["targets"]
    }
    there = {(panel["id"], target["refId"]): target["expr"] for panel in asking.panels(board)
             for target in panel.get("targets", ())}  # fmt: skip
    assert made.keys() <= there.keys()
    assert len(made) > 0.75 * len(there)
    for key, expr in made.items():
        assert catalog.metrics_in(expr) == catalog.metrics_in(there[key])


# --- checking


def test_our_boards_are_whole(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["check"]) == 0
    assert f"{len(BOARDS)} boards, 0 problems" in capsys.readouterr().out


def broken(board: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is said -> a board of which it is true."""
    row, first, second, *others = board["panels"]
    yield "has no uid", {name: each for name, each in board.items() if name != "uid"}
    yield "its uid is longer", board | {"uid": "o" * 41}
    yield "schemaVersion 12", board | {"schemaVersion": 12}
    yield "several panels have the id", board | {"panels": [row, first, second | {"id": first["id"]}, *others]}
    yield "lies on", board | {"panels": [row, first, second | {"gridPos": first["gridPos"]}, *others]}
    yield "has no description", board | {"panels": [row, first | {"description": ""}, second, *others]}
    yield "asks nothing", board | {"panels": [row, first | {"targets": []}, second, *others]}
    yield "is wider", board | {"panels": [row, first | {"gridPos": {"x": 20, "y": 0, "w": 9, "h": 1}}, *others]}
    asks = {**first["targets"][0], "expr": "up{job=~'$nowhere'}[$__range_ms]"}
    yield (
        "that are not there: __range_ms, nowhere",
        board | {"panels": [row, first | {"targets": [asks]}, second, *others]},
    )
    more = [second | {"id": 2_000_000 + n, "gridPos": {"x": 0, "y": 900 + n, "w": 1, "h": 1}} for n in range(20)]
    yield "when it is opened", board | {"panels": [*board["panels"], *more]}
    yield "bytes, more than", board | {"description": "o" * 300_000}


@pytest.mark.parametrize(
    ("said", "board"), [*broken(BOARDS["overview"])], ids=lambda each: each if isinstance(each, str) else ""
)
def test_what_is_wrong_is_said(
    said: str, board: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert any(said in each for each in checking.problems(board))
    file = tmp_path / "board.json"
    file.write_text(json.dumps(board))
    assert command.main(["check", str(file)]) == 2
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_what_is_no_board_is_an_error(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "board.json").write_text(text)
    assert command.main(["check", str(tmp_path / "board.json")]) == 1
    assert "ovnwatch dashboards: " in capsys.readouterr().err


def misshapen(board: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The place that is named -> a document that has another shape there."""
    row, first, *others = board["panels"]
    target = {name: each for name, each in first["targets"][0].items() if name != "expr"}
    yield "$.uid", board | {"uid": None}
    yield "$.schemaVersion", board | {"schemaVersion": "39"}
    yield "$.panels", board | {"panels": 3}
    yield "$.panels[0]", board | {"panels": ["x"]}
    yield "`gridPos` - at `$.panels[1]`", board | {"panels": [row, {"type": "stat", "id": 1}]}
    yield (
        "$.panels[1].gridPos.x",
        board | {"panels": [row, first | {"gridPos": first["gridPos"] | {"x": "0"}}, *others]},
    )
    yield "$.panels[1].id", board | {"panels": [row, first | {"id": [1]}, *others]}
    yield "$.panels[1].targets[0]", board | {"panels": [row, first | {"targets": [target]}, *others]}
    yield "$.templating", board | {"templating": None}
    yield "`list` - at `$.templating`", board | {"templating": {}}
    yield "$.templating.list[0].type", board | {"templating": {"list": [{"type": "adhoc", "name": "any"}]}}
    yield "recursion", "[" * 100_000


@pytest.mark.parametrize(("said", "document"), [*misshapen(BOARDS["overview"])], ids=lambda each: str(each)[:40])
def test_what_has_not_the_shape_of_a_board_is_named(
    said: str, document: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "board.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    assert command.main(["check", str(file)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(file) in line
    assert said in line


def test_queries_without_data_are_named(httpserver: HTTPServer, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(request: Request) -> Response:
        found = [{"metric": {}, "value": [0, "1"]}] if "ovnwatch_stream_state" in request.form["query"] else []
        return Response(json.dumps({"status": "success", "data": {"result": found}}))

    httpserver.expect_request(re.compile("/api/v1/query(_range)?"), method="POST").respond_with_handler(answer)
    file = str(ROOT / "grafana/dashboards/overview.json")
    assert command.main(["check", file, "--prometheus", httpserver.url_for("/")]) == 2
    said = capsys.readouterr().out
    assert "Coverage A finds nothing" in said
    assert "Down now A" not in said


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "<html>",
        "[]",
        "{}",
        '{"data": {"result": 3}}',
        '{"data": {"result": [0, "1"]}}',
        '{"data": {"result": ' + "[" * 9999,
    ],
)
def test_what_no_prometheus_answers_is_an_error(
    answer: str, httpserver: HTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    httpserver.expect_request(re.compile("/api/v1/query.*")).respond_with_data(answer)
    assert command.main(["check", "--prometheus", httpserver.url_for("/")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(r"ovnwatch dashboards: [\w ]+ A: ", line)


def test_prometheus_is_told_a_token(httpserver: HTTPServer, token: Path) -> None:
    header = {"Authorization": f"Bearer {TOKEN}"}
    found = {"data": {"result": [{"metric": {}, "value": [0, "1"]}]}}
    httpserver.expect_request(re.compile("/api/v1/query.*"), headers=header).respond_with_json(found)
    assert command.main(["check", "--prometheus", httpserver.url_for("/"), f"--token-file={token}"]) == 0


def test_a_prometheus_that_does_not_answer_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["check", "--prometheus", "http://127.0.0.1:1"]) == 1
    assert "http://127.0.0.1:1" in capsys.readouterr().err


# --- pushing

TOKEN = "glsa_secret"


class Fake:
    """A Grafana that keeps what it is given and adds what a real one does."""

    def __init__(self, server: HTTPServer) -> None:
        self.folders: dict[str, str] = {}
        self.boards: dict[str, dict[str, Any]] = {}
        self.posts: list[str] = []
        server.expect_request(re.compile("/api/.*")).respond_with_handler(self.answer)

    def answer(self, request: Request) -> Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return Response(json.dumps({"message": "Invalid API key\x1b[0m"}), 401)
        if request.method == "POST":
            self.posts.append(request.path)
            return self.take(request.path, json.loads(request.data))
        kind, _, uid = request.path.removeprefix("/api/").rpartition("/")
        there = self.folders.get(uid) if kind == "folders" else self.boards.get(uid)
        return Response(json.dumps(there), 200) if there else Response('{"message": "not found"}', 404)

    def take(self, path: str, body: dict[str, Any]) -> Response:
        if path == "/api/folders":
            self.folders[body["uid"]] = body["title"]
        else:
            board = body["dashboard"]
            assert body["overwrite"] is True
            assert body["folderUid"] in self.folders
            kept = board | {"id": 7, "version": 3, "annotations": board["annotations"] | {"more": 1}}
            self.boards[board["uid"]] = {"dashboard": kept, "meta": {"folderUid": body["folderUid"]}}
        return Response("{}")


@pytest.fixture
def token(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    return file


def push(httpserver: HTTPServer, token: Path, *argv: str) -> int:
    return command.main(["push", "--url", httpserver.url_for("/"), f"--token-file={token}", *argv])


def test_a_second_push_changes_nothing(httpserver: HTTPServer, token: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = Fake(httpserver)
    assert push(httpserver, token) == 0
    assert fake.boards.keys() == {board["uid"] for board in BOARDS.values()}
    assert fake.folders == {"ovnwatch": "ovnwatch"}
    assert "overview: pushed" in capsys.readouterr().out
    fake.posts.clear()
    assert push(httpserver, token) == 0
    assert fake.posts == []
    assert "overview: is there" in capsys.readouterr().out


def test_what_somebody_changed_or_moved_is_put_right(httpserver: HTTPServer, token: Path) -> None:
    fake = Fake(httpserver)
    assert push(httpserver, token) == 0
    fake.boards["ovnwatch-ovs"]["dashboard"]["panels"].pop()
    fake.boards["ovnwatch-ovn"]["meta"]["folderUid"] = "elsewhere"
    fake.posts.clear()
    assert push(httpserver, token) == 0
    assert fake.posts == ["/api/dashboards/db"] * 2
    assert fake.boards["ovnwatch-ovs"]["dashboard"]["panels"] == BOARDS["ovs"]["panels"]


def test_a_refusal_is_one_plain_line(httpserver: HTTPServer, token: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Fake(httpserver)
    token.write_text("wrong")
    assert push(httpserver, token) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "401 Invalid API key" in line
    assert "\x1b" not in line
    assert "wrong" not in line


UID = "/api/dashboards/uid/"


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/api/folders/", Response("<html>log in</html>")),
        ("/api/folders/", Response("[" * 100_000)),
        ("/api/folders/", Response('{"message": "no such right"}', 403)),
        ("/api/folders", Response('["no such right"]', 403)),
        (UID, Response("{}", 500)),
        (UID, Response("", 503)),
        ("/api/dashboards/db", Response('{"message": "Cannot save provisioned dashboard"}', 400)),
        ("/api/dashboards/db", Response("null, really", 200)),
    ],
)
def test_whatever_a_grafana_answers_is_one_line(
    path: str, answer: Response, httpserver: HTTPServer, token: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exact = re.compile(f"{path}[^/]*" if path.endswith("/") else f"{path}$")
    httpserver.expect_request(exact).respond_with_response(answer)
    Fake(httpserver)
    assert push(httpserver, token) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert httpserver.url_for(path) in line
    assert len(line) < 500


@pytest.mark.parametrize("answer", ["null", "[]", "3", '{"meta": null}', '{"dashboard": [], "meta": {}}'])
def test_a_board_that_is_none_is_replaced(answer: str, httpserver: HTTPServer, token: Path) -> None:
    httpserver.expect_request(re.compile(UID)).respond_with_data(answer)
    fake = Fake(httpserver)
    assert push(httpserver, token) == 0
    assert len(fake.boards) == len(BOARDS)


def test_a_token_goes_nowhere_else(httpserver: HTTPServer, token: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = Response("", 302, {"Location": httpserver.url_for("/elsewhere")})
    httpserver.expect_request(re.compile("/api/.*")).respond_with_response(to)
    assert push(httpserver, token) == 1
    assert "302" in capsys.readouterr().err
    assert all(request.path != "/elsewhere" for request, _ in httpserver.log)


def test_an_answer_that_ends_too_early_is_one_line(token: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        Thread(target=answer, args=(listener,), daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        assert command.main(["push", "--url", url, f"--token-file={token}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert url in line


@pytest.mark.parametrize("text", ["", "\n", "a\x00b", "t\u00f6ken", "two words", "x" * 100_000])
def test_a_file_without_a_token_is_an_error(
    httpserver: HTTPServer, token: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    token.write_text(text)
    assert push(httpserver, token) == 1
    assert f"{token} holds no token" in capsys.readouterr().err


def test_a_file_without_a_certificate_is_named(token: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--url", "https://127.0.0.1:1", f"--token-file={token}", f"--ca-file={token}"]
    assert command.main(["push", *flags]) == 1
    assert f"{token} holds no certificate" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["push", "--url", "ftp://grafana", "--token-file", "t"],
        ["push", "--url", "http://user:secret@grafana", "--token-file", "t"],
        ["push", "--url", "http://grafana?x=1", "--token-file", "t"],
        ["push", "--url", "http://grafana", "--token-file", "t", "--folder", "No Such"],
        ["check", "--range", "0"],
        ["check", "--range", "nan"],
        ["check", "--range", "1e18"],
        ["render", "--form", "nonsense", "--output-dir", "d"],
        ["render", "--output-dir", "d", "--instance-label", "nothing"],
        ["render"],
        [],
    ],
)
def test_bad_flags_are_no_verdict(argv: list[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        command.main(argv)
