"""The command line: exit codes, hints, signals, and nothing left behind."""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import pytest
from toy_bundle import blob, copy_bundle

from sonomime.cli import build_parser, main
from sonomime.runtime import Bundle, doctor
from sonomime.runtime.support.errors import ExportError

Run = Callable[..., tuple[int, str, str]]

# What each verb cannot do without.
VERBS = {
    "animate": ["a", "b", "-o", "c"], "demo": [], "doctor": [], "bench": [],
    "train": ["lite", "--data", "d", "-o", "r"], "evaluate": ["c", "--data", "d", "-o", "r"],
    "phantom": ["-o", "d", "--subjects", "2"], "export": ["c", "-o", "b"],
    "import-fomm": ["f", "--config", "y", "-o", "c"], "build": [],
}  # fmt: skip


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process: (exit code, output, errors)."""

    def command(*words: Any) -> tuple[int, str, str]:
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """A folder with a still and a driving folder of 200 frames."""
    folder = tmp_path / "media"
    (folder / "driving").mkdir(parents=True)
    cv2.imwrite(str(folder / "still.png"), blob(64, 0, 0))
    frames = [cv2.imencode(".png", blob(64, x / 20, 0))[1].tobytes() for x in range(-5, 5)]
    for i in range(200):
        (folder / "driving" / f"{i}.png").write_bytes(frames[i % 10])
    return folder


def animate(bundle: Path, media: Path, output: Path) -> list[str]:
    files = (media / "still.png", media / "driving")
    return ["animate", "--bundle", str(bundle), *map(str, files), "-o", str(output)]


def test_animate_prints_the_path_of_what_it_made(
    run: Run, toy_bundle: Path, media: Path, tmp_path: Path
) -> None:
    code, output, errors = run(*animate(toy_bundle, media, tmp_path / "out.mp4"))
    assert (code, output) == (0, f"{tmp_path / 'out.mp4'}\n") and "200 frames" in errors
    options = "--reference 2 --smooth --beta 3 --scale hull --no-mark --crop 0,0,60,60 --json"
    code, output, errors = run(*animate(toy_bundle, media, tmp_path / "out"), *options.split())
    assert code == 0, errors
    result = json.loads(output)
    assert (result["frames"], result["reference"], result["size"]) == (200, 2, [64, 64])
    assert len(list((tmp_path / "out").iterdir())) == 200


def test_demo_uses_the_samples(run: Run, toy_bundle: Path, tmp_path: Path) -> None:
    code, output, errors = run("demo", "--bundle", toy_bundle, "-o", tmp_path / "demo.mp4")
    assert code == 0, errors
    made = [tmp_path / "demo.mp4", tmp_path / "demo-2.mp4"]
    assert output.splitlines() == [str(file) for file in made]
    assert all(file.stat().st_size > 1000 for file in made)


@pytest.mark.parametrize("text", ['"toy\\u001b[2J"', "[" * 100_000], ids=["escape", "nested"])
def test_a_malicious_manifest_is_reported_in_plain_text(
    run: Run, toy_bundle: Path, tmp_path: Path, text: str
) -> None:
    folder = copy_bundle(toy_bundle, tmp_path / "bundle")
    manifest = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(manifest.replace('"toy"', text, 1))
    for words in (["doctor", "--json"], ["demo", "-o", tmp_path / "out.mp4"]):
        code, output, errors = run(*words, "--bundle", folder)
        assert code == 3 and "\x1b" not in output + errors and "defect" not in errors


def test_foreign_text_cannot_steer_the_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(*_: Any) -> Iterator[doctor.Check]:
        logging.getLogger("sonomime").warning("a\x1b[2J")
        yield doctor.Check("bundle", "ok", "toy\x1b[2J\u202e")

    monkeypatch.setattr(doctor, "examine", shown)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    _, output, errors = run("doctor")
    assert output == "ok    bundle: toy\\x1b[2J\\u202e\n"
    assert errors == "WARNING: a\\x1b[2J\n"


def test_build_takes_the_default_bundle(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from sonomime.export import engine

    def build(bundle: Bundle, flavour: str, *_: Any) -> Any:
        raise ExportError(f"{bundle.digest} {flavour}")

    monkeypatch.setattr(engine, "build_engines", build)
    code, _, errors = run("build", "--flavour", "rtx")
    assert code == 5 and f"{Bundle.open().digest} rtx" in errors


def test_every_verb_has_a_function_and_help_with_an_example(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    parser = build_parser()
    for verb, words in VERBS.items():
        assert callable(parser.parse_args([verb, *words]).run), verb
        code, output, _ = run(verb, "--help")
        assert code == 0 and "example" in output and f"sonomime {verb}" in output, verb
        prose, _, _ = output.partition("\noptions:")
        assert all(len(line) < 80 for line in prose.splitlines()), verb
    code, output, _ = run("--help")
    assert code == 0 and all(verb in output for verb in VERBS)
    assert run("--version")[1].startswith("sonomime ")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["animat"], "'animate'"),
        ([], "sonomime --help"),
        (["animate", "a", "b", "-o", "c", "--motion", "relativ"], "'relative'"),
        (["animate", "a", "b", "-o", "c", "--crop", "1,2"], "x,y,w,h"),
        (["animate", "a", "b", "-o", "c", "--scale", "x"], "hull"),
        (["animate", "a", "b", "-o", "c", "--motion", "absolute", "--scale", "2"], "relative"),
        (["animate", "a", "b", "-o", "c", "--motion", "absolute", "--reference", "9"], "relative"),
    ],
)
def test_usage_errors_leave_with_2(run: Run, words: list[str], hint: str) -> None:
    code, _, errors = run(*words)
    assert code == 2
    assert errors.startswith("error: ") and hint in errors.splitlines()[-1]


def test_standard_output_takes_no_files(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for verb, words in VERBS.items():
        option = {"doctor": None, "bench": "--json"}.get(verb, "-o")
        if option is not None:
            code, output, errors = run(verb, *words, option, "-")
            assert (code, output) == (2, "") and "hint: " in errors, verb
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("expected", "change"),
    [
        (6, {"driving": "missing.mp4"}), (6, {"driving": "text.mp4"}), (6, {"driving": "empty"}),
        (6, {"still": "text.mp4"}), (3, {"bundle": "nowhere"}), (3, {"bundle": "empty"}),
        (2, {"output": "out/x.xyz"}), (7, {"output": "still.png/below-a-file.mp4"}),
        (7, {"output": f"out/{'x' * 300}.mp4"}),
    ],
)  # fmt: skip
def test_bad_input_leaves_with_its_code_and_nothing_behind(
    run: Run, toy_bundle: Path, media: Path, expected: int, change: dict[str, str]
) -> None:
    (media / "text.mp4").write_text("this is not a video\n")
    (media / "empty").mkdir()
    before = set(media.rglob("*"))
    names = {"bundle": str(toy_bundle), "still": "still.png", "driving": "driving"}
    bundle, *words = (media / name for name in ({**names, "output": "out/x.mp4"} | change).values())
    code, out, errors = run("animate", "--bundle", bundle, *words[:2], "-o", words[2])
    assert (code, out) == (expected, ""), errors
    lines = errors.splitlines()
    assert lines[-2].startswith("error: ") and lines[-1].startswith("hint: "), errors
    assert set(media.rglob("*")) - before <= {media / "out"}


def test_a_gpu_by_its_number(
    run: Run, toy_bundle: Path, media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    for words in (
        animate(toy_bundle, media, tmp_path / "out.mp4"),
        ["bench", "--bundle", toy_bundle, "--cold", 0],
    ):
        assert run(*words, "--device", 1)[0] == 4, "auto does not fall back to the CPU"
        assert run(*words, "--device", 1, "--backend", "cpu")[0] == 2
    assert run("build", toy_bundle, "--device", 1, "--flavour", "rtx")[0] == 2
    assert not (tmp_path / "out.mp4").exists()


def test_debug_shows_the_trace(run: Run, tmp_path: Path) -> None:
    assert "Traceback" not in run("doctor", "animate", "--debug")[2]  # a usage error
    words = ("animate", "--bundle", str(tmp_path / "none"), "a", "b", "-o", "c")
    assert "Traceback" not in run(*words)[2]
    assert "Traceback" in run(*words, "--debug")[2]


# A limit on the file's size fails a write like a full disk does; 300 bytes are one PNG's.
# A limit on the file's size fails a write like a full disk does; 300 bytes are one PNG's.
@pytest.mark.parametrize(("name", "limit"), [("out.mp4", 20_000), ("frames", 300)])
def test_a_full_disk_leaves_with_7_and_nothing_behind(
    toy_bundle: Path, media: Path, tmp_path: Path, name: str, limit: int
) -> None:
    folder = tmp_path / "output"
    done = subprocess.run(
        [sys.executable, "-m", "sonomime.cli", *animate(toy_bundle, media, folder / name)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True, text=True, check=False, timeout=120, cwd=sys.prefix,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 7, done.stderr
    assert "error: cannot write" in done.stderr and "hint: " in done.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
@pytest.mark.parametrize("swallowed", [False, True])
def test_a_signal_ends_any_verb_with_its_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, number: int, code: int, swallowed: bool
) -> None:
    """Also where native code that is being imported turns it into another error."""

    def stopped(*_: Any) -> Iterator[Any]:
        try:
            os.kill(os.getpid(), number)
            time.sleep(5)
        except KeyboardInterrupt as cause:
            if swallowed:
                raise ModuleNotFoundError("initialization failed", name="onnxruntime") from cause
            raise
        yield

    monkeypatch.setattr(doctor, "examine", stopped)
    found, output, errors = run("doctor")
    assert (found, output) == (code, "") and "pip install" not in errors
    assert errors.startswith("error: ") and errors.count("\n") == 1


@pytest.mark.parametrize(
    ("verb", "number", "code"),
    [
        ("animate", signal.SIGINT, 130),
        ("animate", signal.SIGHUP, 129),
        ("demo", signal.SIGTERM, 143),
    ],
)
def test_a_signal_leaves_nothing_behind(
    toy_bundle: Path, media: Path, tmp_path: Path, verb: str, number: int, code: int
) -> None:
    """With slow frames, so that the signal arrives while it works."""
    slow = """
import sys, time
from sonomime.runtime import animator
quick = animator.Animator.animate
def slow(self, *arguments, **options):
    time.sleep(0.05)
    return quick(self, *arguments, **options)
animator.Animator.animate = slow
from sonomime.cli import main
sys.exit(main(sys.argv[1:]))
"""
    folder = tmp_path / "output"
    words = ["demo", "--bundle", str(toy_bundle), "-o", str(folder / "out.mp4")]
    if verb == "animate":
        words = animate(toy_bundle, media, folder / "out.mp4")
    with subprocess.Popen(
        [sys.executable, "-c", slow, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=sys.prefix,
    ) as process:  # fmt: skip
        give_up = time.monotonic() + 60
        while process.poll() is None and not (folder.is_dir() and list(folder.iterdir())):
            assert time.monotonic() < give_up
            time.sleep(0.02)
        time.sleep(0.3)  # on to the frames
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "error: " in errors and "Traceback" not in errors
    assert output == "" and list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("redirect", "options"),
    [(">&-", {}), ("2>&-", {}), ("", {"PYTHONIOENCODING": "ascii"})],
    ids=["no stdout", "no stderr", "ascii"],
)
def test_what_cannot_be_printed_does_not_fail_a_run(
    toy_bundle: Path, media: Path, tmp_path: Path, redirect: str, options: dict[str, str]
) -> None:
    words = animate(toy_bundle, media, tmp_path / "ü.mp4")
    words[-3] = str(media / "still.png")  # one frame will do
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "-m", "sonomime.cli", *words],
        capture_output=True, text=True, check=False, timeout=120, cwd=sys.prefix,
        env={"PYTHONDONTWRITEBYTECODE": "1", **options},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ü.mp4").is_file()


def test_a_reader_that_leaves_early_causes_no_message(toy_bundle: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "sonomime.cli", "bench", "--help"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=sys.prefix,
    ) as process:  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("module", "extra", "words"),
    [
        ("torch", "train", ["train", "lite", "--data", "{tmp}", "-o", "{tmp}/run"]),
        ("onnxruntime", "cpu", ["demo", "--bundle", "{bundle}", "-o", "{tmp}/demo.mp4"]),
    ],
)
def test_a_missing_extra_is_named(
    run_python: Run, toy_bundle: Path, tmp_path: Path, module: str, extra: str, words: list[str]
) -> None:
    code = f"import sys; sys.modules[{module!r}] = None\n"
    code += "from sonomime.cli import main; sys.exit(main(sys.argv[1:]))"
    given = [word.format(tmp=tmp_path, bundle=toy_bundle) for word in words]
    status, _, errors = run_python(code, *given)
    assert status == 4 and f'pip install "sonomime[{extra}]"' in errors, errors
