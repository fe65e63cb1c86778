"""The raters' server: nothing is lost, nothing leaks, nobody else comes in."""

from __future__ import annotations

import csv
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from sonomime.runtime.support.errors import ConfigError, InputError, OutputError, SonomimeError
from sonomime.training.study import serve, session
from sonomime.training.study.answers import answers_file
from sonomime.training.study.serve import MOST_BODY, Server, serving
from sonomime.training.study.session import MOST_COMMENT
from sonomime.training.study.study_folder import clip_file, read_study

ANSWER = {"position": 1, "rating": 4, "real": True, "comment": "", "seconds": 2.5}
JSON = {"Content-Type": "application/json"}


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def ask(
    url: str, path: str, data: Any = None, headers: dict[str, str] | None = None, method: str = ""
) -> Reply:
    """A request, its path sent as it is."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=30)
    body = data if data is None or isinstance(data, bytes) else json.dumps(data).encode()
    method = method or ("GET" if data is None else "POST")
    connection.request(method, path, body, (JSON if body else {}) | (headers or {}))
    reply = connection.getresponse()
    content = reply.read()
    connection.close()
    return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, content)


@contextmanager
def running(
    study: Path, rater: str = "anna", bind: str = "127.0.0.1", port: int = 0
) -> Iterator[Server]:
    with serving(study, rater, bind, port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def rows(study: Path, rater: str = "anna") -> list[dict[str, str]]:
    return list(csv.DictReader(answers_file(study, rater).open()))


def test_every_answer_is_in_the_file_at_once_and_can_be_changed(study: Path) -> None:
    order = read_study(study).orders[0]
    with running(study) as server:
        assert [row["clip"] for row in rows(study)] == list(order), "from the start"
        said = {**ANSWER, "comment": 'a "word", and\nanother\x07'}
        assert ask(server.url, "/answer", said).status == 200
        first = rows(study)[0]
        assert (first["rating"], first["real"], first["seconds"]) == ("4", "real", "2.5")
        assert first["comment"] == 'a "word", and\nanother\\x07' and first["answered"]
        assert {row["rating"] for row in rows(study)[1:]} == {""}
        changed = {**ANSWER, "rating": 2, "real": False, "position": 15}
        assert ask(server.url, "/answer", changed).status == 200
        last = rows(study)[14]
        assert (last["rating"], last["real"]) == ("2", "synthetic")
        state = json.loads(ask(server.url, "/state").body)
        assert state["answers"][14]["rating"] == 2 and state["answers"][1]["rating"] is None
        assert state["real_or_fake"] is True and state["rater"] == "anna"
    assert {row["position"]: row["order"] for row in rows(study)}["15"] == "1"


@contextmanager
def command(study: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command in a process of its own, and its address."""
    main = "import sys; from sonomime.cli import main; sys.exit(main())"
    words = ["study", "serve", str(study), "--rater", "anna", "--port", "0"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", main, *words], text=True, **streams) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def test_answers_outlive_a_kill_and_the_rater_goes_on(study: Path) -> None:
    answers: list[Any] = []
    for position in (1, 2, 3):
        with command(study) as (process, url):
            found = json.loads(ask(url, "/state").body)["answers"]
            assert [answer["rating"] for answer in found[: position - 1]] == answers
            sent = {**ANSWER, "position": position, "rating": position}
            assert ask(url, "/answer", sent).status == 200
            process.send_signal(signal.SIGKILL)
        answers.append(position)
    assert [row["rating"] for row in rows(study)[:4]] == ["1", "2", "3", ""]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_it_is_stopped_by_a_signal(study: Path, number: int, code: int) -> None:
    with command(study) as (process, url):
        assert ask(url, "/answer", ANSWER).status == 200
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code and "error" not in errors
    assert [path.name for path in (study / "answers").iterdir()] == ["anna.csv"]


def test_what_a_killed_write_left_behind_is_cleared(study: Path) -> None:
    folder = study / "answers"
    folder.mkdir()
    for name in (".anna.12345678.part.csv", ".ben.12345678.part.csv"):
        (folder / name).write_text("half")
    with running(study):
        assert not (folder / ".anna.12345678.part.csv").exists()
        assert (folder / ".ben.12345678.part.csv").exists(), "another may be writing it"


def test_an_answer_that_cannot_be_written_is_not_taken(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OutputError("cannot write it: the disk is full", "free some space")

    with running(study) as server:
        with monkeypatch.context() as patch:
            patch.setattr(session, "write_sheet", full)
            reply = ask(server.url, "/answer", ANSWER)
            assert reply.status == 507 and "full" in json.loads(reply.body)["error"]
        assert json.loads(ask(server.url, "/state").body)["answers"][0]["rating"] is None
        assert ask(server.url, "/answer", ANSWER).status == 200


def test_each_rater_has_one_order_and_one_server(study: Path) -> None:
    read = read_study(study)
    with running(study) as one, running(study, "ben"):
        assert ask(one.url, "/state").status == 200
        assert [row["clip"] for row in rows(study, "ben")] == list(read.orders[1])
        with pytest.raises(OutputError, match="another"), serving(study, "anna", "::1", 0):
            pass
    with running(study, "cleo"), running(study, "ben"):
        assert rows(study, "ben")[0]["order"] == "2"
    for rater in ("dora", "a/b", "", "../key", "."):
        with pytest.raises(ConfigError), serving(study, rater, "127.0.0.1", 0):
            pass
    assert sorted(p.name for p in (study / "answers").iterdir()) == [
        "anna.csv",
        "ben.csv",
        "cleo.csv",
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"position": 0}, {"position": 16}, {"position": 1.5}, {"position": "1"},
        {"rating": 0}, {"rating": 6}, {"rating": 4.5}, {"rating": True}, {"rating": "4"},
        {"real": 1}, {"comment": None}, {"comment": "x" * (MOST_COMMENT + 1)},
        {"seconds": -1}, {"seconds": float("nan")}, {"seconds": 1e300}, {"more": 1},
    ],
)  # fmt: skip
def test_what_is_no_answer_changes_nothing(study: Path, wrong: dict[str, Any]) -> None:
    with running(study) as server:
        before = answers_file(study, "anna").read_bytes()
        assert ask(server.url, "/answer", ANSWER | wrong).status == 400
        assert answers_file(study, "anna").read_bytes() == before


def test_broken_and_oversized_requests_are_refused(study: Path) -> None:
    with running(study) as server:
        before = answers_file(study, "anna").read_bytes()
        assert ask(server.url, "/answer", b"{").status == 400
        assert ask(server.url, "/answer", b"[" * 10_000).status == 400
        assert ask(server.url, "/answer", b'"\xff"').status == 400
        assert ask(server.url, "/answer", b" " * (MOST_BODY + 1)).status == 413
        declared = {"Content-Length": "99999999999999"}
        assert ask(server.url, "/answer", b"{}", declared).status == 413
        assert ask(server.url, "/answer", None, {"Content-Length": "-1"}, "POST").status == 411
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        assert ask(server.url, "/answer", ANSWER, form).status == 415
        assert ask(server.url, "/other", ANSWER).status == 404
        assert ask(server.url, "/answer", ANSWER, method="PUT").status == 501
        assert answers_file(study, "anna").read_bytes() == before


def test_a_client_that_says_nothing_keeps_nobody_out(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve._Handler, "timeout", 0.2)
    with running(study) as server:
        address = ("127.0.0.1", server.server_port)
        silent = [socket.create_connection(address) for _ in range(serve.MOST_CLIENTS)]
        for one in silent:
            assert one.recv(1) == b"", "closed"
            one.close()
        assert ask(server.url, "/state").status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/key.json", "/study.json", "/../key.json", "/clip/../../key.json", "/clip/%2e%2e/key.json",
        "/clip/..%2f..%2fkey.json", "//key.json", "/answers/anna.csv", "/clip/0", "/clip/16",
        "/clip/-1", "/clip/1/../2", "/page/study.js", "/[", "/clip/%00",
        "/clip/99999999999999999999", "/study.js/", "/answer", "/clip/", "/clip/1.mp4",
    ],
)  # fmt: skip
def test_no_path_leads_to_another_file(study: Path, path: str) -> None:
    with running(study) as server:
        reply = ask(server.url, path)
        assert reply.status == 404 and b"sha256" not in reply.body


def test_pages_and_clips_are_served_without_a_name_and_without_the_key(study: Path) -> None:
    (study / "key.json").unlink()
    order = read_study(study).orders[0]
    with running(study) as server:
        for position in (1, 15):
            reply = ask(server.url, f"/clip/{position}")
            assert reply.body == clip_file(study, order[position - 1]).read_bytes()
            assert reply.headers["content-type"] == "video/mp4"
        shown = b""
        for path in ("/", "/study.js", "/study.css", "/state"):
            reply = ask(server.url, path)
            assert reply.status == 200
            assert reply.headers["cache-control"] == "no-store"
            assert "default-src 'none'" in reply.headers["content-security-policy"]
            assert reply.headers["x-content-type-options"] == "nosniff"
            shown += reply.body
        assert not any(clip.encode() in shown for clip in order)
        assert b"http:" not in shown and b"https:" not in shown, "nothing from elsewhere"


def test_other_sites_may_not_use_it(study: Path) -> None:
    with running(study) as server:
        assert ask(server.url, "/state", None, {"Host": "evil.example"}).status == 403
        assert ask(server.url, "/state", None, {"Host": "]["}).status == 403
        assert ask(server.url, "/state", None, {"Host": "localhost:1234"}).status == 200, "a tunnel"
        for origin, status in (("http://evil.example", 403), ("null", 403), (server.url[:-1], 200)):
            assert ask(server.url, "/answer", ANSWER, {"Origin": origin}).status == status


def test_beyond_this_computer_a_token_is_needed(study: Path) -> None:
    with running(study, bind="0.0.0.0") as server:
        assert server.token is not None and len(server.token) > 20
        url = f"http://127.0.0.1:{server.server_port}"
        before = answers_file(study, "anna").read_bytes()
        for headers in ({}, {"Cookie": f"{server.cookie}=wrong"}, {"Cookie": "\u00e9=\u00e9;;"}):
            assert ask(url, "/state", None, headers).status == 403
            assert ask(url, "/clip/1", None, headers).status == 403
            assert ask(url, "/answer", ANSWER, headers).status == 403
        assert ask(url, "/?token=wrong").status == 403
        assert answers_file(study, "anna").read_bytes() == before
        parts = urlsplit(server.url)
        entered = ask(url, f"{parts.path}?{parts.query}")
        assert (entered.status, entered.headers["location"]) == (303, "/")
        assert "HttpOnly" in entered.headers["set-cookie"]
        cookie = {"Cookie": entered.headers["set-cookie"].partition(";")[0]}
        assert ask(url, "/state", None, cookie).status == 200
        assert ask(url, "/answer", ANSWER, cookie).status == 200
    with running(study) as server:
        assert server.token is None


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda s: (s / "study.json").unlink(), InputError),
        (lambda s: (s / "study.json").write_text("{"), InputError),
        (lambda s: (s / "study.json").write_text('{"format": 9}'), InputError),
        (lambda s: next((s / "clips").iterdir()).unlink(), InputError),
        (lambda s: (s / "answers").write_text(""), SonomimeError),
    ],
)
def test_a_damaged_study_is_not_served(study: Path, damage: Any, error: type[Exception]) -> None:
    damage(study)
    with pytest.raises(error), serving(study, "anna", "127.0.0.1", 0):
        pass


def test_a_port_in_use_is_named(study: Path) -> None:
    with running(study) as server:
        port = server.server_port
        with pytest.raises(ConfigError) as caught, serving(study, "ben", "127.0.0.1", port):
            pass
    assert str(port) in caught.value.message and "--port" in caught.value.hint
