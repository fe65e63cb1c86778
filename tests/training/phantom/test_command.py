"""`sonomime phantom` as a user meets it: options, mistakes, signals, a full disk."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sonomime.cli import main
from sonomime.training.phantom.subject import Identity, draw_subject
from sonomime.training.phantom.subject_file import subject_text

RunPython = Callable[..., tuple[int, str, str]]
COMMAND = [sys.executable, "-c", "import sys; from sonomime.cli import main; sys.exit(main())"]
LONG = ("--subjects", "6", "--frames", "400", "--seed", "3", "--workers", "2")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--subjects", "0"], 2, "'0' is no whole number from 1 to 100000"),
        (["--subjects", "2.5"], 2, "'2.5' is no whole number"),
        (["--subjects", "2", "--frames", "0"], 2, "no whole number from 1 to 1000"),
        (["--subjects", "2", "--frames", "1001"], 2, "no whole number from 1 to 1000"),
        (["--subjects", "2", "--seed", "-1"], 2, "from 0 to 4294967295"),
        (["--subjects", "2", "--seed", "4294967296"], 2, "from 0 to 4294967295"),
        (["--subjects", "2", "--workers", "0"], 2, "no whole number from 1"),
        (["--subjects", "2", "--pairs", "-1"], 2, "no whole number from 0"),
        (["--subjects", "2", "--anatomy", "pelvik"], 2, "did you mean 'pelvic'?"),
        (["--subjects", "2", "--pairs", "1"], 2, "only 0 pairs are possible"),
        ([], 2, "--subjects is missing"),
        (["--subject", "a.json", "--seed", "1", "--pairs", "2"], 2, "leave --seed and --pairs out"),
        (["--subject", "a.json", "--workers", "2"], 2, "leave --workers out"),
        (["--subject", "none.json"], 6, "none.json does not exist"),
        (["--subjects", "2", "-o", "{tmp}/file"], 7, "there is a file of that name"),
        (["--subjects", "2", "-o", "{tmp}/file/below"], 7, "cannot write"),
        (["--subjects", "2", "-o", "{tmp}"], 7, "holds something that is no phantom"),
    ],
)
def test_mistakes_are_told_with_a_hint(
    tmp_path: Path, words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    given = [word.replace("{tmp}", str(tmp_path)) for word in words]
    assert main(["phantom", "-o", str(tmp_path / "phantom"), *given]) == code
    told = capsys.readouterr().err
    assert said in told and "error: " in told and "hint: " in told and "defect" not in told
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_it_needs_no_torch_and_says_what_it_made(run_python: RunPython, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom sonomime.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "heavy = [n for n in ('torch', 'onnx', 'onnxruntime') if n in sys.modules]\n"
        "print(heavy, code)"
    )
    words = ("phantom", "-o", str(tmp_path / "a"), "--subjects", "1", "--frames", "1", "--json")
    status, output, errors = run_python(code, *words)
    assert status == 0, errors
    facts, end = output.splitlines()
    assert end == "[] 0"
    made = json.loads(facts)
    assert (made["folder"], made["clips"], made["rendered"]) == (str(tmp_path / "a"), 1, 1)
    assert made["frames_per_second"] == pytest.approx(1 / made["seconds"])
    assert "1 clips of 1 frames, 0 true predictions; 1 frames rendered in" in errors


@pytest.mark.slow
def test_an_unedited_subject_gives_the_same_clip_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sonomime.runtime.media.video import open_source

    drawn = tmp_path / "drawn"
    words = ["--subjects", "1", "--seed", "5", "--frames", "2"]
    assert main(["phantom", "-o", str(drawn), *words]) == 0
    file = drawn / "subjects" / "pelvic5-000.json"
    again = tmp_path / "again"
    words = ["phantom", "-o", str(again), "--subject", str(file), "--frames", "2"]
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(again)
    for name in ("clips.csv", "keypoints.csv", "displacement/pelvic5-000.npz"):
        assert (again / name).read_bytes() == (drawn / name).read_bytes()
    clips = []
    for folder in (drawn, again):
        with open_source(folder / "clips" / "pelvic5-000.mkv", None, 1) as source:
            clips.append([image.tobytes() for _, _, image in source])
    assert clips[0] == clips[1] and len(clips[0]) == 2
    data = json.loads(file.read_text())
    data["manoeuvre"]["descent"] += 1
    file.write_text(json.dumps(data))
    assert main(words) == 2
    assert "holds another phantom: parameters.manoeuvre.descent" in capsys.readouterr().err


def start(folder: Path, *words: str, **more: Any) -> subprocess.Popen[str]:
    """The command in a session of its own, once its workers render."""
    process = subprocess.Popen(
        [*COMMAND, "phantom", "-o", str(folder), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **more,
    )
    until(lambda: len(list(folder.glob("clips/.*.part.mkv"))) == 2 or process.poll() is not None)
    return process


def until(met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 200
    while not met():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


def workers_of(process: subprocess.Popen[str]) -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    spawned = [
        pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return [int(pid) for pid in spawned]


def gone(group: int) -> bool:
    """Whether no process of a session is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize(
    ("number", "everybody", "code", "said"),
    [
        (signal.SIGINT, True, 130, "error: interrupted\n"),  # as a terminal sends it
        (signal.SIGTERM, False, 143, "error: terminated\n"),
        (signal.SIGTERM, True, 143, "error: terminated\n"),
    ],
)
def test_a_signal_ends_all_at_once_in_silence_and_leaves_nothing_half(
    tmp_path: Path, number: signal.Signals, everybody: bool, code: int, said: str
) -> None:
    process = start(tmp_path / "phantom", *LONG)
    (os.killpg if everybody else os.kill)(process.pid, number)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == code, errors
    lines = [line for line in errors.splitlines(True) if not line.startswith("rendering frames")]
    assert lines == [said]
    until(lambda: gone(process.pid))
    assert list(tmp_path.rglob("*.part*")) == []
    assert not (tmp_path / "phantom" / "clips.csv").exists()


@pytest.mark.slow
def test_a_killed_worker_is_told_and_a_killed_run_takes_its_workers_along(tmp_path: Path) -> None:
    folder = tmp_path / "phantom"
    process = start(folder, *LONG)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 1, errors
    assert "error: a worker process died" in errors and "--workers" in errors
    assert "Traceback" not in errors and list(tmp_path.rglob("*.part*")) == []
    until(lambda: gone(process.pid))
    process = start(folder, *LONG)
    process.kill()
    process.wait()
    until(lambda: gone(process.pid))


def test_a_disk_that_is_full_is_told(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    words = ("--subjects", "2", "--frames", "2", "--workers", "1")
    process = start(tmp_path / "phantom", *words, preexec_fn=limit)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 7, errors
    assert "error: cannot write" in errors and "ulimit" in errors and "Traceback" not in errors
    assert list(tmp_path.rglob("*.part*")) == []


def test_impossible_geometry_is_told_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = json.loads(subject_text(draw_subject(Identity("pelvic", 5, 0))))
    data["neck"] = [90.0, 45.0]
    file = tmp_path / "wide.json"
    file.write_text(json.dumps(data))
    words = ["phantom", "-o", str(tmp_path / "out"), "--subject", str(file), "--frames", "2"]
    assert main(words) == 6
    assert f"error: {file}: bladder_neck lies outside" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
