"""The command line: exit codes, hints, signals, and nothing left behind."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import pytest
from toy_bundle import blob

from sonomime.cli import build_parser, main
from sonomime.runtime import Bundle, doctor, pipeline
from sonomime.runtime.support.errors import ExportError

Run = Callable[..., tuple[int, str, str]]
pytestmark = pytest.mark.usefixtures("blobs_are_whole_pictures")

# What each verb cannot do without.
VERBS = {
    "animate": ["a", "b", "-o", "c"], "inspect": ["a"], "template": ["a"],
    "demo": [], "doctor": [], "bench": [],
    "data": ["check", "d"], "annotations": ["check", "d"],
    "train": ["lite", "--data", "d", "-o", "r"], "evaluate": ["c", "--data", "d", "-o", "r"],
    "report": ["r"], "table": ["t.toml", "-o", "r"], "study": ["report", "s"],
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
def media(tmp_path: Path, toy_bundle: Path) -> Path:
    """A folder with a still, a driving folder of 40 frames, files of landmarks, and malicious
    bundles."""
    folder = tmp_path / "media"
    (folder / "driving").mkdir(parents=True)
    cv2.imwrite(str(folder / "still.png"), blob(64, 0, 0))
    frames = [cv2.imencode(".png", blob(64, x / 20, 0))[1].tobytes() for x in range(-5, 5)]
    for i in range(40):
        (folder / "driving" / f"{i}.png").write_bytes(frames[i % 10])
    for name, place in (("marks", "a,3,4"), ("outside", "a,64,4"), ("unequal", "b,3,4")):
        text = f"image,keypoint,x,y\nsource,a,1,2\nreference,{place}\n"
        (folder / f"{name}.csv").write_text(text)
    manifest = (toy_bundle / "manifest.json").read_text()
    escape = manifest.replace('"toy"', '"toy\\u001b[2J"', 1)
    for name, text in (("escape", escape), ("nested", "[" * 100_000)):
        (folder / name).mkdir()
        (folder / name / "manifest.json").write_text(text)
    (folder / "text.mp4").write_text("this is not a video\n")
    (folder / "empty").mkdir()
    (folder / "toy").symlink_to(toy_bundle)
    return folder


def animate(bundle: Path, media: Path, output: Path) -> list[str]:
    files = (media / "still.png", media / "driving")
    return [
        "animate", "--bundle", str(bundle), *map(str, files), "-o", str(output), "--fps", "20",
    ]  # fmt: skip


def test_animate_prints_the_path_of_what_it_made(
    run: Run, toy_bundle: Path, displacement_toy: Path, media: Path, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    code, output, errors = run(*animate(toy_bundle, media, tmp_path / "out.mp4"))
    assert (code, output) == (0, f"{tmp_path / 'out.mp4'}\n") and "40 frames" in errors
    assert caplog.records == [], "it is marked"
    options = "--reference 2 --smooth --beta 3 --scale hull --no-mark --crop 0,0,60,60 --json"
    code, output, errors = run(*animate(toy_bundle, media, tmp_path / "out"), *options.split())
    assert code == 0 and len(caplog.records) == 1, errors
    result = json.loads(output)
    assert (result["frames"], result["reference"], result["size"]) == (40, 2, [64, 64])
    assert (result["alignment"], result["quality"]) == ("", [])
    assert result["backend"] in ("ort-cpu", "openvino") and result["precision"] in ("fp32", "bf16")
    assert len(list((tmp_path / "out").glob("*.png"))) == 40
    words = animate(displacement_toy, media, tmp_path / "one.png")
    words[4] = words[3]  # the still, which has one frame
    for choice, said in (("auto", "left, right"), ("none", ""), (media / "marks.csv", "by a")):
        more = ("--landmarks", choice, "--size", "model", "--debug-picture", tmp_path / "d.png")
        code, output, errors = run(*words, *more, "--json")
        aligned = json.loads(output)["alignment"]
        assert code == 0 and aligned in errors.splitlines() and said in aligned
        (tmp_path / "d.png").unlink()


def test_demo_uses_the_samples(
    run: Run, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "progress", lambda clip, *_: islice(clip, 3))
    code, output, errors = run("demo", "--bundle", toy_bundle, "-o", tmp_path / "demo.mp4")
    assert code == 0, errors
    made = [tmp_path / "demo.mp4", tmp_path / "demo-2.mp4"]
    assert output.splitlines() == [str(file) for file in made]
    assert all(file.stat().st_size > 1000 for file in made)


def test_foreign_text_cannot_steer_the_terminal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(*_: Any) -> Iterator[doctor.Check]:
        logging.getLogger("sonomime").warning("a\x1b[2J")
        yield doctor.Check("bundle", "ok", "toy\x1b[2J\u202e")

    monkeypatch.setattr(doctor, "examine", shown)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    _, output, errors = run("doctor")
    assert output == "ok    bundle: toy\\x1b[2J\\u202e\n"
    assert errors == "warning: a\\x1b[2J\n"


def test_build_takes_the_default_bundle(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from sonomime.export import engine

    def build(bundle: Bundle, flavour: str, *_: Any) -> Any:
        raise ExportError(f"{bundle.digest} {flavour}")

    monkeypatch.setattr(engine, "build_engines", build)
    code, _, errors = run("build", "--flavour", "rtx")
    assert code == 5 and f"{Bundle.open().digest} rtx" in errors


def test_every_verb_has_a_function_and_help_and_writes_nothing_to_standard_output(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    for verb, words in VERBS.items():
        assert callable(build_parser().parse_args([verb, *words]).run), verb
        code, output, _ = run(verb, "--help")
        assert code == 0 and "example" in output and f"sonomime {verb}" in output, verb
        prose, _, _ = output.partition("\noptions:")
        assert all(len(line) < 80 for line in prose.splitlines()), verb
        if verb != "doctor":
            code, output, errors = run(verb, *words, "--json" if verb == "bench" else "-o", "-")
            assert (code, output) == (2, "") and "hint: " in errors, verb
    assert list(tmp_path.iterdir()) == []
    code, output, _ = run("--help")
    assert code == 0 and all(verb in output for verb in VERBS)
    assert run("--version")[1].startswith("sonomime ")


def held(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


FILES = "animate still.png driving -o out/x.mp4"


@pytest.mark.parametrize(
    ("code", "words", "hint"),
    [
        (2, "animat", "'animate'"), (2, "", "sonomime --help"),
        (2, f"{FILES} --motion relativ", "'relative'"), (2, f"{FILES} --crop 1,2", "x,y,w,h"),
        (2, f"{FILES} --scale x", "hull"), (2, f"{FILES} --size 64", "800x600"),
        (2, f"{FILES} --motion absolute --scale 2", "relative"),
        (2, f"{FILES} --motion absolute --reference 9", "relative"),
        (2, f"{FILES} --motion absolute", ""), (2, f"{FILES} --scale hull", ""),
        (2, f"{FILES} --shading off", ""), (2, f"{FILES} --reference -1", ""),
        (2, f"{FILES} --landmarks marks.csv --reference best", ""),
        (2, f"{FILES} --reference last", ""), (2, f"{FILES} --source-frame -1", ""),
        (2, f"{FILES} --size 200x150", "--size"), (2, f"{FILES} -o out/x.xyz", ""),
        (2, f"{FILES} --bundle toy --landmarks marks.csv", ""),  # it has no alignment
        (2, f"{FILES} --bundle toy --debug-picture d.png", ""),
        (2, f"{FILES} --debug-picture -", ""), (2, f"{FILES} --debug-picture d.jpg", ""),
        (2, f"{FILES} -o d.png --debug-picture d.png", ""),
        (2, f"{FILES} -o out --debug-picture out/d.png", ""),
        (2, "animate driving still.png -o out", "--source-frame"),  # they seem swapped
        (3, f"{FILES} --bundle nowhere", ""), (3, f"{FILES} --bundle empty", ""),
        (3, f"{FILES} --bundle escape", None), (3, f"{FILES} --bundle nested", None),
        (6, "animate still.png missing.mp4 -o out/x.mp4", ""),
        (6, "animate still.png text.mp4 -o out/x.mp4", ""),
        (6, "animate still.png empty -o out/x.mp4", ""),
        (6, "animate text.mp4 driving -o out/x.mp4", ""), (6, f"{FILES} --reference 40", ""),
        (6, f"{FILES} --landmarks none.csv", ""), (6, f"{FILES} --landmarks still.png", ""),
        (6, f"{FILES} --landmarks outside.csv", ""), (6, f"{FILES} --landmarks unequal.csv", ""),
        (7, f"{FILES} -o still.png/below-a-file.mp4", ""), (7, f"{FILES} -o {'x' * 300}.mp4", ""),
        (7, f"{FILES} -o still.png", ""), (7, f"{FILES} -o driving/0.png", ""),
        (7, "animate driving still.png -o driving/0.png", ""), (7, "demo -o .", ""),
        (7, f"{FILES} --debug-picture still.png", ""),
        (7, f"{FILES} --debug-picture driving/0.png", ""),
    ],
)  # fmt: skip
def test_what_cannot_be_done_leaves_with_its_code_and_nothing_behind(
    run: Run, displacement_toy: Path, media: Path, monkeypatch: pytest.MonkeyPatch, code: int,
    words: str, hint: str | None,
) -> None:  # fmt: skip
    monkeypatch.chdir(media)
    before = held(media)
    verb, *more = words.split() or [""]
    if verb == "animate":
        more = ["--bundle", str(displacement_toy), *more]  # a later one counts
    found, output, errors = run(*[verb] * bool(verb), *more)
    assert (found, output) == (code, ""), errors
    assert "\x1b" not in errors and "defect" not in errors
    lines = errors.splitlines()
    assert lines[-1 if hint is None else -2].startswith("error: "), errors
    assert hint is None or (lines[-1].startswith("hint: ") and hint in lines[-1]), errors
    assert held(media) == before


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


def spawn(words: list[str], before: str = "", **options: Any) -> Any:
    """A process of its own that runs a command line, after some code."""
    code = f"{before}\nimport sys\nfrom sonomime.cli import main\nsys.exit(main(sys.argv[1:]))"
    options = {"cwd": sys.prefix, "stdout": -1, "stderr": -1, "text": True, **options}
    return subprocess.Popen([sys.executable, "-c", code, *words], **options)


def finished(*arguments: Any, **options: Any) -> tuple[int, str]:
    """Its exit code and errors."""
    with spawn(*arguments, **options) as process:
        _, errors = process.communicate(timeout=120)
    return process.returncode, errors


# A limit on the file's size fails a write like a full disk does; 300 bytes are one PNG's.
@pytest.mark.parametrize(("name", "limit"), [("out.mp4", 3_000), ("frames", 300)])
def test_a_full_disk_leaves_with_7_and_nothing_behind(
    toy_bundle: Path, media: Path, tmp_path: Path, name: str, limit: int
) -> None:
    folder = tmp_path / "output"
    full = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    no_files = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    code, errors = finished(animate(toy_bundle, media, folder / name), full, env=no_files)
    assert code == 7, errors
    assert "error: cannot write" in errors and "hint: " in errors
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


SLOW = """
import time
from sonomime.runtime.animator import Animator
quick = Animator.animate
Animator.animate = lambda *words, **more: (time.sleep(0.05), quick(*words, **more))[1]
"""


@pytest.mark.parametrize(
    ("verb", "number", "code"), [("animate", signal.SIGINT, 130), ("demo", signal.SIGTERM, 143)]
)
def test_a_signal_leaves_nothing_behind(
    toy_bundle: Path, media: Path, tmp_path: Path, verb: str, number: int, code: int
) -> None:
    """With slow frames, so that the signal arrives while it works."""
    folder = tmp_path / "output"
    words = ["demo", "--bundle", str(toy_bundle), "-o", str(folder / "out.mp4")]
    if verb == "animate":
        words = animate(toy_bundle, media, folder / "out.mp4")
    with spawn(words, SLOW) as process:
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


@pytest.mark.parametrize("where", ["closed", "ascii", "full"])
def test_what_cannot_be_printed_does_not_fail_a_run_unless_the_disk_is_full(
    toy_bundle: Path, media: Path, tmp_path: Path, where: str
) -> None:
    words = animate(toy_bundle, media, tmp_path / "ü.mp4")
    words[4] = words[3]  # one frame will do
    options: dict[str, Any] = {"env": {**os.environ, "PYTHONIOENCODING": "ascii"}}
    if where == "closed":
        options = {"preexec_fn": lambda: (os.close(1), os.close(2))}
    with open("/dev/full", "w") as full:
        code, errors = finished(words, **options, **({"stdout": full} if where == "full" else {}))
    assert code == (7 if where == "full" else 0) and (tmp_path / "ü.mp4").is_file(), errors


def test_a_reader_that_leaves_early_causes_no_message() -> None:
    with spawn(["bench", "--help"]) as process:
        process.stdout.close()
        assert process.stderr.read() == ""


@pytest.mark.parametrize(
    ("modules", "extra", "words"),
    [
        (["torch"], "train", ["train", "lite", "--data", "{tmp}", "-o", "{tmp}/run"]),
        (
            ["onnxruntime", "openvino"],
            "cpu",
            ["demo", "--bundle", "{bundle}", "-o", "{tmp}/demo.mp4"],
        ),
    ],
)
def test_a_missing_extra_is_named(
    toy_bundle: Path, tmp_path: Path, modules: list[str], extra: str, words: list[str]
) -> None:
    given = [word.format(tmp=tmp_path, bundle=toy_bundle) for word in words]
    missing = f"import sys; sys.modules |= dict.fromkeys({modules})"
    code, errors = finished(given, missing)
    assert code == 4 and f'pip install "sonomime[{extra}]"' in errors, errors


def test_a_misspelt_option_is_answered_with_the_nearest_of_its_verb(capsys: Any) -> None:
    assert main(["stream", "--source", "a.png", "--driving", "b.mp4", "--recrod", "c.mp4"]) == 2
    said = capsys.readouterr().err
    assert "--recrod" in said and "--record" in said.replace("--recrod", "")
    assert main(["animate", "a.png", "b.mp4", "-o", "c.mp4", "--zzzzzz"]) == 2
    assert "animate --help" in capsys.readouterr().err
