"""`sonomime phantom`: mistakes, signals, a full disk; the page."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from sonomime.cli import main
from sonomime.training.phantom.commands import _ANATOMIES
from sonomime.training.phantom.page import __main__ as page
from sonomime.training.phantom.page.__main__ import texture
from sonomime.training.phantom.render import Shot
from sonomime.training.phantom.subject import ANATOMIES, draw_subject

RunPython = Callable[..., tuple[int, str, str]]
COMMAND = [sys.executable, "-c", "import sys; from sonomime.cli import main; sys.exit(main())"]
LONG = ("--subjects", "6", "--frames", "400", "--seed", "3", "--jobs", "2")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--subjects", "0"], 2, "--subjects"),
        (["--subjects", "2.5"], 2, "--subjects"),
        (["--subjects", "2", "--seed", "4294967296"], 2, "--seed"),
        (["--subjects", "2", "--anatomy", "pelvik"], 2, "did you mean 'pelvic'?"),
        (["--subjects", "2", "--pairs", "1"], 2, "only 0 pairs are possible"),
        ([], 2, "--subjects is missing"),
        (["--subject", "a.json", "--seed", "1", "--pairs", "2"], 2, "leave --seed and --pairs out"),
        (["--subject", "none.json"], 6, "none.json does not exist"),
        (["--subjects", "2", "-o", "{tmp}/file/below"], 7, "cannot write"),
        (["--subjects", "2", "-o", "{tmp}/file"], 7, "it is a file"),
        (["--subjects", "2", "-o", "{tmp}"], 7, "holds something else"),
        (["--subject", "a.json", "--ray", "auto"], 2, "leave --ray out"),
        (["--subjects", "2", "--ray", "nowhere"], 2, "is not the address of a Ray cluster"),
    ],
)
def test_mistakes_are_named_with_a_hint(
    tmp_path: Path, words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    given = [word.replace("{tmp}", str(tmp_path)) for word in words]
    assert main(["phantom", "-o", str(tmp_path / "phantom"), *given]) == code
    shown = capsys.readouterr().err
    assert said.replace("{tmp}", str(tmp_path)) in shown
    assert "error: " in shown and "hint: " in shown and "defect" not in shown
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_it_needs_no_torch_and_says_what_it_made(run_python: RunPython, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom sonomime.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "print([n for n in ('torch', 'onnx', 'onnxruntime') if n in sys.modules], code)"
    )
    assert tuple(ANATOMIES) == _ANATOMIES
    words = ("--anatomy", "heart", "--subjects", "1", "--frames", "1", "--json")
    words = ("phantom", "-o", str(tmp_path / "a"), *words)
    status, output, errors = run_python(code, *words)
    assert status == 0, errors
    facts, end = output.splitlines()
    made = json.loads(facts)
    assert end == "[] 0" and "1 clips of 1 frames" in errors
    assert (made["folder"], made["clips"], made["rendered"]) == (str(tmp_path / "a"), 1, 1)
    assert made["frames_per_second"] == pytest.approx(1 / made["seconds"])


def start(folder: Path, *words: str, **more: Any) -> subprocess.Popen[str]:
    """The command in a session of its own, once its workers render."""
    command = [*COMMAND, "phantom", "-o", str(folder), *words]
    more |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, start_new_session=True, **more)
    until(lambda: len(list(folder.glob("clips/.*.part.mkv"))) == 2 or process.poll() is not None)
    return process


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not met():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


def gone(group: int) -> bool:
    """Whether no process of a session is left."""
    with suppress(ProcessLookupError):
        return bool(os.killpg(group, 0))
    return True


@pytest.mark.parametrize(
    ("number", "send", "code", "said"),
    [
        (signal.SIGINT, os.killpg, 130, "error: interrupted\n"),  # as a terminal sends it
        (signal.SIGTERM, os.kill, 143, "error: terminated\n"),
        (signal.SIGKILL, os.kill, -9, None),
    ],
)
def test_a_signal_ends_all_at_once_in_silence_and_leaves_nothing_half_written(
    tmp_path: Path, number: int, send: Callable[[int, int], None], code: int, said: str | None
) -> None:
    process = start(tmp_path / "phantom", *LONG)
    send(process.pid, number)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == code, errors
    assert not (tmp_path / "phantom" / "clips.csv").exists()
    until(lambda: gone(process.pid))
    if said is not None:  # not killed
        lines = errors.splitlines(True)
        assert [line for line in lines if not line.startswith("rendering clips")] == [said]
        assert list(tmp_path.rglob("*.part*")) == []


def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    words = ("--subjects", "2", "--frames", "2", "--jobs", "1")
    process = start(tmp_path / "phantom", *words, preexec_fn=limit)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 7
    assert "error: cannot write" in errors and "ulimit" in errors and "Traceback" not in errors
    assert list(tmp_path.rglob("*.part*")) == []


ALONG, ACROSS = "width of a speckle along the beam", "width across the beam"
NEIGHBOURS = "high-pass correlation of neighbouring frames"
LEVEL = "high-pass deviation at mean grey 0.2 to 0.3"


def grain(seed: int, across: float, along: float, contrast: float = 30) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((256, 256)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), across, None, along)
    return np.uint8(np.clip(64 + contrast * noise / noise.std(), 0, 255))


def test_texture_tells_width_contrast_and_change() -> None:
    fine, long, other = grain(0, 0.6, 0.6), grain(0, 1.8, 0.6), grain(1, 1.8, 0.6)
    still, boiling = texture([np.stack([long, long])]), texture([np.stack([long, other])])
    assert still[NEIGHBOURS] == pytest.approx(1) and abs(boiling[NEIGHBOURS]) < 0.1
    assert still[ACROSS] > 1.5 * still[ALONG]
    alone = texture([fine[None]])
    assert alone[ACROSS] == pytest.approx(alone[ALONG], rel=0.1)
    assert math.isnan(alone[NEIGHBOURS]), "a still has no neighbour"
    assert alone[LEVEL] > 2 * texture([grain(0, 0.6, 0.6, 10)[None]])[LEVEL]


def test_the_page_is_drawn_and_keeps_what_was_written_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, found = tmp_path / "phantom.md", texture([grain(0, 1, 1)[None]])
    file.write_text("# By hand\n\n<!-- measured -->\n\nold\n")
    page.write_page(tmp_path, {"phantom pelvic": [found], "real lung": [found, found]})
    text = file.read_text()
    assert text.startswith("# By hand\n\n<!-- measured -->\n") and "old" not in text
    assert "| clips | 1 | 2 |" in text and f"| {NEIGHBOURS} | - | - |" in text
    facts = json.loads((tmp_path / "phantom.json").read_text())
    assert facts["textures"]["phantom pelvic"][0][NEIGHBOURS] is None

    shot = Shot(grain(0, 1, 1), np.full((256, 256, 2), 5, np.float32))
    monkeypatch.setattr(page, "film", lambda *clip: [shot] * len(clip[-1]))
    pelvic, heart = (draw_subject(name, 2026, 1) for name in ("pelvic", "heart"))
    page.pictures(tmp_path, [pelvic] * 4, [heart], {"a": grain(0, 1, 1)})
    for name in ("rest", "real", "valsalva", "hearts"):
        assert cv2.imread(str(tmp_path / f"phantom-{name}.jpg")).shape[0] > 200
