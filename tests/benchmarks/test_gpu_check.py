"""The check of a GPU machine: on one without a GPU, and with parts that a script stands in for."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import pytest
from toy_bundle import make_toy_bundle

from sonomime.benchmarks import gpu_check
from sonomime.benchmarks.gpu.child import listen

# What a machine with torch, numpy and a compiler alone lacks.
BARE = """
import atexit, os, sys
sys.modules.update(dict.fromkeys(("cv2", "av", "onnxruntime", "onnx", "onnxscript", "onnx_ir",
                                  "yaml", "tensorrt", "tensorrt_rtx_bindings", "cuda")))
# A part is not asked to end well: CUDA's end may hang or crash when all is said.
atexit.register(lambda: os._exit(7) if sys.argv[-1].startswith("{") else None)
"""


def test_it_runs_from_a_checkout_with_torch_and_numpy_alone(
    repository: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    words = [str(repository / "benchmarks" / "gpu_check.py"), "--frames", "2", "-o", str(report)]
    (tmp_path / "sitecustomize.py").write_text(BARE)  # of this process and of those it starts
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == gpu_check.EXIT_NO_GPU, done.stdout + done.stderr
    assert "not checked" in done.stderr and "kernels" in done.stderr
    found = json.loads(report.read_text())
    assert {"cv2", "onnxruntime", "tensorrt"} <= set(found["absent"])
    assert found["machine"]["torch"]["version"] and "absent" in found["machine"]["gpu"]
    backends = found["parts"]["backends, default bundle"]["rows"]
    assert [row["name"] for row in backends] == list(gpu_check.BACKENDS)
    assert all("absent" in row for row in backends)


def test_on_a_cpu_the_bundles_are_timed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    bundle, report = make_toy_bundle(tmp_path / "toy"), tmp_path / "report.json"
    words = ["--cpu-only", "--frames", "2", "--bundle", str(bundle), "-o", str(report)]
    assert gpu_check.main(words) == 0
    found = json.loads(report.read_text())["parts"]
    for name in ("default bundle", str(bundle)):
        (row,) = found[f"backends, {name}"]["rows"]
        assert row["name"] == "ort-cpu" and row["agrees"] and row["milliseconds"]["frame"]
    assert found["tests marked gpu"]["absent"] and "ort-cpu" in capfd.readouterr().out


# A GPU, its parts, and what becomes of them; with lines that are none.
PLAYED = """
import json, os, signal, sys, time
from sonomime.benchmarks.gpu.child import each, said, speaker
log, spec = sys.argv[1], json.loads(sys.argv[2])
print('no JSON\\n[1]', flush=True)
say = speaker()
print('{"name": "by a library"}', flush=True)
os.write(1, b'{"name": "by a library"}\\n')
with open(log, "a") as file:
    file.write(json.dumps(spec) + "\\n")
def work(name):
    time.sleep(seconds)
    if name == "dies":
        os.kill(os.getpid(), signal.SIGSEGV)
    if name == "hangs":
        time.sleep(300)
    if name == "fails":
        try:
            raise ValueError("CUDA error 900\\nand more")
        except ValueError as error:
            raise RuntimeError("the capture failed") from error
    wrong = name == "differs"
    share = float("nan") if name == "is no JSON" else 1
    return {"agrees": not wrong, "gpu": {"throttled": wrong}, "share": share}
def rows(*names, wait=0):
    global seconds
    seconds = wait
    try:
        done = each(say, names, spec["done"], work)
    except ValueError as error:
        done = say({"failed": said(error)})
    sys.exit(not done)
part = spec["part"]
if part == "machine":
    say({"torch": {"version": "1.2"}})
    say({"gpu": {"name": "NVIDIA H200", "in_torch": True}})
elif part == "kernels":
    KERNELS
elif part == "ways":
    WAYS
else:
    rows(part)
"""


class Played:
    """Runs the check with a script in the place of every part; `asked` are their specs."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log, self.out, self.patch = tmp_path / "log", tmp_path / "report.json", monkeypatch

    def run(self, *words: str, kernels: str = "rows('a')", ways: str = "rows('b')") -> int:
        self.log.write_text("")
        code = PLAYED.replace("KERNELS", kernels).replace("WAYS", ways)
        command = [sys.executable, "-c", code, str(self.log)]
        self.patch.setattr(gpu_check, "command", lambda spec: [*command, json.dumps(spec)])
        return gpu_check.main(["-o", str(self.out), *words])

    @property
    def asked(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    @property
    def parts(self) -> dict[str, Any]:
        return dict(json.loads(self.out.read_text())["parts"])


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    return Played(tmp_path, monkeypatch)


def test_the_most_important_comes_first_and_what_is_compiled_last(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--bundle", "mine", "--checkpoint", "c.pt")
    ways = "rows('differs', *['compiled'] * spec['compiled'])"
    assert played.run(*words, ways=ways) == gpu_check.EXIT_DIFFERS
    asked = [
        (s["part"], s.get("bundle") or s.get("model") or s.get("models")) for s in played.asked
    ]
    assert asked == [
        ("machine", None), ("tests", None), ("backends", None), ("backends", "mine"),
        ("kernels", None), ("ways", "c.pt"), ("ways", "ours-ptg"), ("ways", "lite"),
        ("training", ["ours-ptg", "lite"]),
        ("ways", "c.pt"), ("ways", "ours-ptg"), ("ways", "lite"),
    ]  # fmt: skip
    rows = played.parts["lite in torch"]["rows"]
    assert [(row["name"], row["agrees"]) for row in rows] == [
        ("differs", False),
        ("compiled", True),
    ]
    said = capsys.readouterr()
    assert "  DIFFERS  THROTTLED\n" in said.out and "differs" in said.err
    # The report is written after every row.
    look = f"rows(json.load(open({str(played.out)!r}))['parts']['kernels']['rows'][1]['name'])"
    words = ("--no-compile", "--models", "lite")
    assert played.run(*words, kernels="rows('a', 'b')", ways=look) == 0
    assert played.parts["lite in torch"]["rows"][0]["name"] == "b"
    assert [s["part"] for s in played.asked].count("ways") == 1


HARM = {
    "dies": "ended by SIGSEGV",
    "fails": "RuntimeError: the capture failed; caused by ValueError: CUDA error 900",
    "is no JSON": "ValueError: ",
}


@pytest.mark.parametrize("harm", HARM)
def test_what_ends_a_process_costs_its_row_alone(
    harm: str, played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--no-compile", "--models", "lite")
    code = played.run(*words, kernels=f'rows("a", "{harm}", "b")', ways="os._exit(9)")
    assert code == gpu_check.EXIT_DIFFERS and harm in capsys.readouterr().err
    a, spoilt, b = played.parts["kernels"]["rows"]
    assert (a["name"], spoilt["name"], b["name"]) == ("a", harm, "b")
    assert spoilt["failed"].startswith(HARM[harm]) and "begun" not in spoilt and b["agrees"]
    first, second = (spec["done"] for spec in played.asked if spec["part"] == "kernels")
    assert first == [] and second == ["a", harm]
    # A part that begins nothing is not tried again, and the others are there.
    assert [spec["part"] for spec in played.asked].count("ways") == 1
    assert "exit code 9" in played.parts["lite in torch"]["failed"]
    assert played.parts["training steps"]["rows"]


def test_a_part_that_ends_well_and_says_nothing_has_failed(played: Played) -> None:
    assert played.run("--models", "", kernels="pass") == gpu_check.EXIT_DIFFERS
    assert played.parts["kernels"]["failed"]
    assert played.run("--models", "") == 0 and "training steps" not in played.parts


def test_the_minutes_hold_and_what_hangs_leaves_time_for_the_others(
    played: Played, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--minutes", "0.15", "--models", "lite", "--no-compile")
    code = played.run(*words, kernels='rows("a", "hangs", "b")')
    assert code == gpu_check.EXIT_CUT_SHORT, "which is no failure, and no success"
    a, hung, after = played.parts["kernels"]["rows"]
    assert a["agrees"] and hung["stopped"] and after["agrees"], "the last one in the second round"
    assert played.parts["training steps"]["rows"] and "hangs" in capsys.readouterr().err
    monkeypatch.setattr(gpu_check, "ROW_SECONDS", 0.5)
    played.run("--minutes", "0.15", "--models", "", kernels='rows("a", "hangs", "b")')
    assert played.parts["kernels"]["rows"][2]["agrees"], "in the first round"
    assert [spec["part"] for spec in played.asked].count("kernels") == 2


def test_skipped_ways_run_before_those_that_torch_compiles(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first way hangs, and takes the half of the time that all ways get at first."""
    slow = "rows(*'123', *['compiled'] * spec['compiled'], wait=300 * (not spec['done']))"
    code = played.run("--minutes", "0.15", "--models", "lite", ways=slow)
    found = played.parts["lite in torch"]
    assert [row["name"] for row in found["rows"]] == [*"123", "compiled"]
    assert "left_out" not in found and "left out" in capsys.readouterr().out
    assert code == gpu_check.EXIT_CUT_SHORT, "one was stopped"
    assert played.run("--minutes", "0", "--cpu-only") == gpu_check.EXIT_CUT_SHORT
    assert not played.asked, "without minutes nothing is begun"
    assert "out of time" in played.parts["backends, default bundle"]["left_out"]


def test_a_signal_ends_it_and_what_it_started(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = f"""
import sys
from sonomime.benchmarks import gpu_check
hang = "import os, pathlib, time; pathlib.Path({str(note)!r}).write_text(str(os.getpid()));"
gpu_check.command = lambda spec: [sys.executable, "-c", hang + "time.sleep(300)"]
sys.exit(gpu_check.main([]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    while not (note.exists() and note.read_text()):
        assert process.poll() is None
        sleep(0.05)
    process.terminate()
    assert process.wait(60) == 128 + signal.SIGTERM and not runs(int(note.read_text()))


def listen_to(code: str, seconds: float = 300.0) -> tuple[list[dict[str, Any]], dict[str, str]]:
    command = [sys.executable, "-I", "-S", "-c", "import os, subprocess, sys, time\n" + code]
    heard: list[dict[str, Any]] = []
    return heard, listen(command, lambda: seconds, heard.append)


def test_a_limit_is_of_every_line_and_stops_everything_that_was_started() -> None:
    code = """
for i in range(4):
    print('{"name": 1}', flush=True); time.sleep(0.5)
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(300)"])
print('{"pid": %d}' % child.pid, flush=True)
time.sleep(300)
"""
    heard, ended = listen_to(code, seconds=1.5)
    assert len(heard) == 5 and ended == {"stopped": "after 2 s: out of time"}
    for _ in range(200):  # until the process that adopts it has noticed
        if not runs(heard[-1]["pid"]):
            return
        sleep(0.05)
    raise AssertionError("what it started still runs")


def runs(pid: int) -> bool:
    """On Linux; a zombie does not run."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def test_a_process_that_outlives_it_is_not_waited_for() -> None:
    leave = "if os.fork() == 0: os.setsid(); time.sleep(20); os._exit(0)\n"
    began = perf_counter()
    unfinished = """print('{"name": 1}\\n{"na', end="")"""
    assert listen_to(leave + unfinished) == ([{"name": 1}], {})
    assert "stopped" in listen_to(leave + "os.close(1); time.sleep(300)", seconds=1.0)[1]
    assert perf_counter() - began < 15
