"""A batch on a Ray cluster that loses a node, and on one of this machine alone."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import cv2
import pytest
from ray_cluster import MARKS, losing_a_node, run, same
from toy_bundle import blob

pytestmark = MARKS
ROWS = 5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A still, a clip of 600 frames, and a table of ROWS rows."""
    frames = [cv2.imencode(".png", blob(64, x / 20, 0))[1].tobytes() for x in range(-5, 5)]
    (tmp_path / "long").mkdir()
    for i in range(600):
        (tmp_path / "long" / f"{i}.png").write_bytes(frames[i % 10])
    (tmp_path / "still.png").write_bytes(frames[5])
    rows = [f"still.png,long,out/{i}.mkv,{0.5 + i / 4}\n" for i in range(ROWS)]
    (tmp_path / "t.csv").write_text("source,driving,output,scale\n" + "".join(rows))
    return tmp_path


@pytest.fixture
def reports() -> Iterator[tuple[str, list[str]]]:
    """Where usage reports would go, and those that came."""
    came: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            came.append(self.path)
            self.send_response(200)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", came
        server.shutdown()


def test_a_lost_node_loses_nothing(folder: Path, toy_bundle: Path) -> None:
    words = ["animate", "--batch", folder / "t.csv", "--bundle", toy_bundle, "--json"]
    out = folder / "out"
    output, _ = losing_a_node(out, 2, words)
    records = [json.loads(line) for line in output.splitlines()]
    assert sorted(record["line"] for record in records) == [2 + i for i in range(ROWS)]
    out.rename(on_ray := folder / "on-ray")
    code, output, errors = run([sys.executable, "-m", "sonomime.cli", *words])
    assert code == 0, errors
    records = [json.loads(line) for line in output.splitlines()]
    assert [record["state"] for record in records] == ["made"] * ROWS
    # The encoder of .mp4 does not always write the same, so these are exact.
    assert all(same(out / f"{i}.mkv", on_ray / f"{i}.mkv") for i in range(ROWS))


def test_ray_on_this_machine_reports_nothing(
    folder: Path, toy_bundle: Path, reports: tuple[str, list[str]]
) -> None:
    url, came = reports
    (folder / "t.csv").write_text("source,driving,output\nstill.png,still.png,out/a.png\n")
    words = ["animate", "--batch", folder / "t.csv", "--bundle", toy_bundle, "--json"]
    settings = {"RAY_USAGE_STATS_ENABLED": "1", "RAY_USAGE_STATS_REPORT_INTERVAL_S": "1"}
    settings["RAY_USAGE_STATS_REPORT_URL"] = url
    command = [sys.executable, "-m", "sonomime.cli", *words, "--ray", "local"]
    code, output, errors = run(command, **settings)
    assert code == 0 and json.loads(output)["state"] == "made", errors
    assert came == []
