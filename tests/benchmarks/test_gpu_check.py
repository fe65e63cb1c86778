"""The check of a GPU machine, on a machine without: what a CPU can do, and a GPU that is played."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lively import SMALL_LITE
from toy_bundle import edit_manifest, make_toy_bundle, replace_file

from sonomime.benchmarks import gpu_check
from sonomime.benchmarks.gpu import child
from sonomime.benchmarks.gpu.parts import run_part
from sonomime.runtime.support.plain_file import sha256_file

# What a machine with torch, numpy and a compiler alone lacks.
BARE = """
import sys
names = {"cv2", "av", "onnxruntime", "onnx", "onnxscript", "onnx_ir", "yaml", "tensorrt",
         "tensorrt_rtx_bindings", "cuda"}
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in names:
            return None
        return self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]

import atexit, os
# A part is not asked to end well: CUDA's end may hang or crash when all is said.
atexit.register(lambda: os._exit(7) if "--part" in sys.argv else None)
"""


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts run in this process, which knows what is patched and has imported torch."""

    def listen(command: list[str], limit: Any, heard: Any) -> dict[str, str]:
        args = gpu_check.parser().parse_args(command[2:])
        for message in run_part(args, args.part):
            heard(json.loads(json.dumps(message)))
        return {}

    monkeypatch.setattr(child, "listen", listen)


def test_it_runs_from_a_checkout_with_torch_and_numpy_alone(
    repository: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    bundle = make_toy_bundle(tmp_path / "toy")
    script = repository / "benchmarks" / "gpu_check.py"
    words = ["--cpu-only", "--small", "--models", "lite", "--frames", "2", "-o", str(report)]
    (tmp_path / "sitecustomize.py").write_text(BARE)  # of this process and of those it starts
    done = subprocess.run(
        [sys.executable, str(script), *words, "--bundle", str(bundle)], cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert {"cv2", "av", "onnxruntime", "onnx", "tensorrt"} <= set(found["absent"])
    assert found["gpu"] == {"absent": "not asked"}
    (model,) = found["models"]
    assert [row["variant"] for row in model["rows"]][-1] == "plain loop, fp32"
    assert all("failed" not in row for row in model["rows"])
    (backend,) = found["backends"]["rows"]
    assert backend["backend"] == "ort-cpu" and "is not installed" in backend["absent"]
    for word in ("no GPU", "absent:", "lite, untrained, speckle, small", "plain loop", "ort-cpu"):
        assert word in done.stdout
    assert found["asked"]["frames"] == 2 and found["asked"]["bundle"] == str(bundle)


def test_without_a_gpu_it_ends_with_an_error_after_what_a_cpu_can_do(
    here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    report = tmp_path / "report.json"
    words = ["--small", "--models", "", "--frames", "2", "-o", str(report)]
    bundle = str(make_toy_bundle(tmp_path / "toy"))
    assert gpu_check.main([*words, "--bundle", bundle]) == gpu_check.EXIT_NO_GPU
    said = capsys.readouterr()
    assert "torch finds no GPU" in said.err and "nvidia-smi" in said.err
    backends = json.loads(report.read_text())["backends"]["rows"]
    assert [row["backend"] for row in backends] == ["ort-cuda", "tensorrt", "rtx", "ort-cpu"]
    assert "frame_ms" in backends[3] and all("absent" in row for row in backends[:3])


# A GPU, its parts and what becomes of them, played by a few lines.
PLAYED = """
import json, os, signal, sys, time
log, spec = sys.argv[1], json.loads(sys.argv[2])
with open(log, "a") as file:
    file.write(json.dumps(spec) + "\\n")
def say(**message):
    print(json.dumps(message), flush=True)
def rows(key, *names):
    for name in names:
        if name not in spec["done"]:
            say(begin=name)
            if name == "dies":
                os.kill(os.getpid(), signal.SIGSEGV)
            if name == "hangs":
                time.sleep(300)
            if name == "fails":  # outside of what it watches over
                sys.exit(say(failed="an illegal memory access"))
            if name == "spoils":
                say(row={key: name, "failed": "an illegal memory access"})
                sys.exit(say(spoilt="an illegal memory access"))
            say(row={key: name, "agrees": True})
part, name = spec["part"], spec.get("name")
if part == "machine":
    say(torch={"version": "1.2"})
    say(gpu={"name": "NVIDIA H200"})
elif part == "kernels":
    if spec["library"] is None:
        open(spec["folder"] + "/kernels.so", "w").close()
        say(build_seconds=1.5)
    KERNELS
elif part == "model":
    MODEL
else:
    rows("backend", name)
"""


class Played:
    """Runs the check with parts that are played; `asked` are their specs, in order."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log, self.out = folder / "log", folder / "report.json"
        self.bundle = make_toy_bundle(folder / "toy")
        self.patch = monkeypatch
        for name in ("kernel_check.kernel_lines", "torch_check.torch_lines"):
            monkeypatch.setattr(f"sonomime.benchmarks.gpu.{name}", lambda rows: map(str, rows))
        monkeypatch.setattr("sonomime.benchmarks.gpu.backend_check.backend_lines", lambda rows: "")

    def run(self, *words: str, kernels: str = "pass", model: str = "pass") -> int:
        code = PLAYED.replace("KERNELS", kernels).replace("MODEL", model)

        def command(words: Any, spec: dict[str, Any]) -> list[str]:
            return [sys.executable, "-I", "-S", "-c", code, str(self.log), json.dumps(spec)]

        self.patch.setattr(gpu_check, "command", command)
        return gpu_check.main(["--bundle", str(self.bundle), "-o", str(self.out), *words])

    @property
    def asked(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out.read_text())
        return found


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Played:
    return Played(tmp_path, monkeypatch)


def test_what_matters_comes_first_and_what_is_compiled_last(played: Played) -> None:
    assert played.run(model='rows("variant", name + str(spec["compiled"]))') == 0
    asked = [(s["part"], s.get("name"), s.get("compiled")) for s in played.asked]
    assert asked == [
        ("machine", None, None), ("kernels", None, None),
        ("model", "ours-ptg", False), ("model", "lite", False),
        ("backend", "ort-cuda", None), ("backend", "tensorrt", None), ("backend", "rtx", None),
        ("backend", "ort-cpu", None),
        ("model", "ours-ptg", True), ("model", "lite", True),
    ]  # fmt: skip
    assert {s["device"] for s in played.asked[1:]} == {"cuda"}
    built = [s["library"] for s in played.asked[1:]]
    assert built[0] is None and all(path.endswith("/kernels.so") for path in built[1:])
    models = played.report["models"]
    assert [row["variant"] for row in models[0]["rows"]] == ["ours-ptgFalse", "ours-ptgTrue"]
    played.log.unlink()
    assert played.run("--no-compile", "--models", "lite") == 0
    assert [s.get("compiled") for s in played.asked if s["part"] == "model"] == [False]


@pytest.mark.parametrize("harm", ["dies", "spoils", "fails"])
def test_what_ends_a_process_costs_its_row_alone(
    harm: str, played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    code = played.run(
        "--models", "lite", "--no-compile", kernels=f'rows("case", "a", "{harm}", "b")'
    )
    assert code == gpu_check.EXIT_DIFFERS and harm in capsys.readouterr().err
    found = played.report
    assert [row["case"] for row in found["kernels"]["rows"]] == ["a", harm, "b"]
    why = "ended by SIGSEGV" if harm == "dies" else "an illegal memory access"
    assert found["kernels"]["rows"][1]["failed"] == why and "failed" not in found["kernels"]
    first, second = (spec for spec in played.asked if spec["part"] == "kernels")
    assert first["done"] == [] and second["done"] == ["a", harm] and second["library"]
    assert len(found["backends"]["rows"]) == 4, "and the other parts are there"


def test_a_part_that_dies_before_it_begins_anything_is_not_tried_again(played: Played) -> None:
    assert played.run("--no-compile", kernels="os._exit(9)") == gpu_check.EXIT_DIFFERS
    assert played.report["kernels"]["failed"] == "ended with exit code 9"
    assert [spec["part"] for spec in played.asked].count("kernels") == 1


def test_the_minutes_hold_and_what_hangs_leaves_time_for_the_others(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--minutes", "0.2", "--models", "lite", "--no-compile")
    code = played.run(*words, kernels='rows("case", "a", "hangs", "b")')
    assert code == gpu_check.EXIT_CUT_SHORT, "which is no failure, and no success"
    found = played.report
    a, hung = found["kernels"]["rows"]
    assert a["agrees"] and hung["stopped"].startswith("after")
    assert found["kernels"]["left_out"] == "the rest: out of time"
    assert len(found["backends"]["rows"]) == 4
    errors = capsys.readouterr().err
    assert "hangs; kernels (left out: the rest: out of time)" in errors and "--minutes" in errors


def test_a_row_that_hangs_leaves_time_for_those_after_it(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_check, "ROW_SECONDS", 0.5)
    words = ("--minutes", "0.2", "--models", "", "--cpu-only")
    played.run(*words, kernels='rows("case", "a", "hangs", "b")')
    _, hung, after = played.report["kernels"]["rows"]
    assert hung["stopped"] and after["agrees"] and "left_out" not in played.report["kernels"]


def test_what_was_left_out_comes_before_what_is_compiled(
    played: Played, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eager ways are slow here, and get half of the time; there is more when all else is done."""
    slow = """
    for way in ["eager%d" % i for i in range(4)] + ["compiled"] * spec["compiled"]:
        if way not in spec["done"]:
            say(begin=way)
            time.sleep(0 if spec["compiled"] else 2)
            say(row={"variant": way})
    """
    code = played.run("--minutes", "0.2", "--models", "lite", model=slow)
    said = capsys.readouterr().out
    (model,) = played.report["models"]
    ways = [row["variant"] for row in model["rows"]]
    assert ways == [*(f"eager{i}" for i in range(4)), "compiled"] and "left_out" not in model
    assert said.count("left out") == 1, "of the eager ones"
    assert code == gpu_check.EXIT_CUT_SHORT, "one was stopped"


def test_without_minutes_nothing_is_begun(played: Played) -> None:
    assert played.run("--minutes", "0", "--cpu-only") == gpu_check.EXIT_CUT_SHORT
    found = played.report
    assert not played.log.exists()
    for part in (found, found["kernels"], found["backends"], *found["models"]):
        assert "out of time" in part["left_out"]


def test_the_report_is_kept_up_to_date(played: Played) -> None:
    """A part looks at the report that there is when it runs: all before it is written."""
    look = f'say(seen=len(json.load(open({str(played.out)!r}))["kernels"]["rows"]))'
    played.run("--models", "lite", "--no-compile", kernels='rows("case", "a", "b")', model=look)
    assert played.report["models"][0]["seen"] == 2


def test_a_golden_picture_that_cannot_be_read_costs_no_other_part(
    here: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_toy_bundle(tmp_path / "toy")
    replace_file(bundle, "golden_output.png", b"no picture")
    report = tmp_path / "report.json"
    words = ["--cpu-only", "--models", "", "--frames", "1", "-o", str(report)]
    assert gpu_check.main([*words, "--bundle", str(bundle)]) == gpu_check.EXIT_DIFFERS
    assert "should be: ort-cpu" in capsys.readouterr().err
    found = json.loads(report.read_text())
    (row,) = found["backends"]["rows"]
    assert "golden_output.png" in row["failed"] and "rows" in found["kernels"]


def test_a_model_that_cannot_be_made_is_told(
    here: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = str(make_toy_bundle(tmp_path / "toy"))
    words = ["--cpu-only", "--models", "unheard-of", "--frames", "1", "--bundle", bundle]
    assert gpu_check.main(words) == gpu_check.EXIT_DIFFERS
    assert "unheard-of" in capsys.readouterr().err


def test_a_trained_model_is_held_against_its_bundles_golden_frame(
    here: None, tmp_path: Path
) -> None:
    """A bundle says which checkpoint it was made of; of another, the golden frame says nothing."""
    from lively import lively_checkpoint

    bundle = make_toy_bundle(tmp_path / "toy", size=128)
    checkpoint = tmp_path / "checkpoint.pt"
    lively_checkpoint("lite", SMALL_LITE).save(checkpoint)
    report = tmp_path / "report.json"
    words = ["--cpu-only", "--models", "", "--checkpoint", str(checkpoint), "--frames", "1"]
    words += ["--bundle", str(bundle), "-o", str(report)]
    assert gpu_check.main(words) == 0
    rows = json.loads(report.read_text())["models"][0]["rows"]
    assert rows[0]["agrees"] and "golden" not in rows[0]
    digest = sha256_file(checkpoint)
    edit_manifest(bundle, lambda data: data["provenance"].update(checkpoint_sha256=digest))
    assert gpu_check.main(words) == gpu_check.EXIT_DIFFERS, "the toy's golden frame is another's"
    rows = json.loads(report.read_text())["models"][0]["rows"]
    assert rows[0]["psnr_db"] == 120 and rows[0]["golden"]["psnr_db"] < 45
