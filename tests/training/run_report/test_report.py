"""The page of training runs: what it shows of runs that are whole, still going or damaged."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import chromium
import cv2
import numpy as np
import pytest

from sonomime.cli import main
from sonomime.runtime.support.dataclass_parser import plain
from sonomime.runtime.support.errors import ConfigError, InputError
from sonomime.training.config_file import load_config
from sonomime.training.run_report.page import html, write_report
from sonomime.training.run_report.records import read_runs, summary

SIZE = 32
POINTS = [[[4.0, 5.0], [20.0, 21.0]], [[6.0, 7.0], None]]


def make_run(folder: Path, *settings: str, steps: int = 100) -> Path:
    """What a training of `ours-p` leaves, by hand."""
    (folder / "pictures").mkdir(parents=True)
    config = plain(
        load_config(
            "ours-p", [f"model.image_size={SIZE * 4}", "train.max_steps=100_000", *settings]
        )
    )
    config["model"]["image_size"] = SIZE
    config["model"]["keypoints"]["self_supervised"] = 1
    facts = {
        "sonomime": "0", "device": "CPU, 1 thread", "weights": 1234, "labels": ["neck <b>"],
        "data": [{"name": "clips", "clips": 3, "subjects": 2}], "config": config,
        "starts": [{"step": 0, "time": "2026-01-02T03:04:05+00:00"}, {"step": 9, "time": "later"}],
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(facts))
    lines = [
        {"step": step, "content": 9.0 / (1 + step), "l1": 0.02, "hold": 0.05, "rate": 1e-4,
         "seconds_per_step": 0.5, "waiting": 0.25}
        for step in range(10, steps + 1, 10)
    ]  # fmt: skip
    write(folder / "log.jsonl", lines)
    probes = [
        {"step": step, "displacement_mean": 3.0, "displacement_max": 9.0, "spread": 40.0,
         "closest": [0, 1, 12.0], "points": {"source": POINTS, "driving": POINTS}}
        for step in (1, 50, steps, steps)
    ]  # fmt: skip
    write(folder / "probe.jsonl", probes)
    warning = {"step": 50, "name": "hold", "what": "no better than <hold>", "advice": "try more"}
    write(folder / "warnings.jsonl", [warning])
    for step in (1, 50, steps, 7000):  # the last of an older run that was killed here
        picture = np.full((22 + 2 * SIZE, 3 * SIZE, 3), step % 200, np.uint8)
        cv2.imwrite(str(folder / "pictures" / f"{step:07d}.png"), picture)
    return folder


def write(path: Path, lines: list[Any]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


class Reader(HTMLParser):
    """Tags that are closed as they were opened, and what they hold."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "input", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str, kind: str = "") -> list[dict[str, str | None]]:
        return [
            attrs
            for name, attrs in self.found
            if name == tag and (not kind or kind in (attrs.get("class") or "").split())
        ]


def titles(page: str) -> set[str]:
    return {each["aria-label"] or "" for each in Reader(page).all("svg") if "aria-label" in each}


def test_a_page_holds_all_and_asks_for_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    page = html(read_runs([run]))
    found = Reader(page)
    assert {
        "content", "l1 beside hold", "l1 as a share of hold", "displacement", "learning rate",
        "seconds per step", "spread of keypoints", "share of the time waiting for data",
    } <= titles(page)  # fmt: skip
    images = found.all("img")
    assert [each["data-step"] for each in images] == ["1", "50", "100"]
    assert ["hidden" in each for each in images] == [True, True, False]
    data = base64.b64decode((images[1]["src"] or "").partition(",")[2])
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert abs(float(shown.mean()) - 50) < 2
    for _, attrs in found.found:
        for name in ("src", "href"):
            assert (attrs.get(name) or "data:").startswith("data:")
    assert "url(" not in page and "@import" not in page
    assert "neck &lt;b&gt;" in page and "no better than &lt;hold&gt;" in page
    assert len(found.all("circle")) == 2 * 3  # two pairs, two images each; one point is not there
    # Points that learn from labels have their names, the others numbers.
    assert ">neck &lt;b&gt;</text>" in page and ">0</text>" in page and ">1</text>" not in page


def test_the_summary_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    assert main(["report", str(run), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert not (run / "report.html").exists()
    assert found["step"] == 100 and found["max_steps"] == 100_000 and found["pictures"] == 3
    assert found["l1_ratio"] == pytest.approx(0.4) and found["waiting"] == 0.25
    assert found["seconds"] == pytest.approx(50)
    assert found["losses"].keys() == {"content"} and found["probe"]["closest"] == [0, 1, 12.0]
    assert [each["name"] for each in found["warnings"]] == ["hold"]
    assert main(["report", str(run)]) == 0
    assert "no better" in capsys.readouterr().out
    assert (run / "report.html").is_file()
    assert main(["report", str(run), str(run), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_a_run_that_is_still_going_or_damaged(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with (run / "log.jsonl").open("a") as file:
        file.write('{"step": 110, "l1": 0.')  # just being written
    (found,) = read_runs([run])
    assert (found.step, found.unread) == (100, 0)
    text = (run / "log.jsonl").read_text().partition("\n")[2]
    damaged = '{"step": 11, "l1": NaN, "hold": 0, "content": Infinity}\n[]\n{"step": "x"}\n\0\n'
    (run / "log.jsonl").write_text(damaged + text)
    (run / "probe.jsonl").unlink()
    (run / "run.json").write_text("{")
    (run / "pictures" / "0000050.png").write_bytes(b"half")
    (found,) = read_runs([run])
    assert found.unread == 3 and found.facts == {} and found.now("l1") == pytest.approx(0.02)
    assert found.has("content") and summary(found)["max_steps"] is None
    page = html([found])
    assert [each["data-step"] for each in Reader(page).all("img")] == ["1", "100", "7000"]
    assert "NaN" not in page and "damaged" in page


@pytest.mark.parametrize("lines", [0, 1, 2, 3])
def test_a_run_that_has_hardly_begun(lines: int, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    write(run / "log.jsonl", [{"step": i, "l1": 0.1, "hold": 0.2} for i in range(1, lines + 1)])
    page = html(read_runs([run]))
    assert titles(page) == ({"l1 beside hold", "l1 as a share of hold"} if lines else set())
    assert "nan" not in re.sub(r"<script.*", "", page)


def test_runs_beside_each_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [
        make_run(tmp_path / "rows" / name / "run", f"train.seed={seed}")
        for seed, name in enumerate(("fomm", "ours"))
    ]
    assert [run.label for run in read_runs(runs)] == ["fomm", "ours"]
    assert [run.label for run in read_runs([runs[0], runs[0]])] == ["run", "run"]
    assert main(["report", *map(str, runs)]) == ConfigError.exit_code
    page = tmp_path / "both.html"
    write_report(runs, page)
    found = Reader(page.read_text())
    assert len(found.all("div", "film")) == 2
    assert "<th>train.seed</th><td>0</td><td>1</td>" in page.read_text()


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        read_runs([tmp_path])
    assert main(["report", str(tmp_path / "none")]) == InputError.exit_code
    assert [*tmp_path.iterdir()] == []


@pytest.mark.slow
@pytest.mark.skipif(chromium.program() is None, reason="no Chromium")
def test_in_a_browser(tmp_path: Path) -> None:
    page = tmp_path / "run" / "report.html"
    write_report([make_run(tmp_path / "run")], page)
    shown = "[...document.querySelectorAll('.film img')].filter(i => !i.hidden).map(i => i.alt)"
    with chromium.browser(tmp_path / "profile") as browser:
        browser.open(page.as_uri())
        browser.until("document.readyState == 'complete' && document.querySelector('.film img')")
        assert browser.value(shown) == ["step 100"]
        browser.value("document.querySelector('.film input').focus()")
        browser.send("Input.dispatchKeyEvent", type="keyDown", key="Home", windowsVirtualKeyCode=36)
        browser.until("document.querySelector('.film output').textContent == 'step 1'")
        assert browser.value(shown) == ["step 1"]
        over = (
            "{ const s = document.querySelector('.chart svg'), b = s.getBoundingClientRect();"
            "s.dispatchEvent(new PointerEvent('pointermove', {clientX: b.right, clientY: b.top})) }"
        )
        browser.value(over)
        read = "[...document.querySelectorAll('.chart')[0].querySelectorAll('output')]"
        assert browser.value(f"{read}.map(o => o.textContent)") == ["0.02 (100)", "0.05 (100)"]
        assert browser.complaints() == []
