"""The check of a GPU machine, on a machine without: what a CPU can do, in words and as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lively import SMALL
from toy_bundle import edit_manifest, make_toy_bundle, replace_file

from sonomime.benchmarks import backend_check, gpu_check, torch_check
from sonomime.benchmarks.backend_check import backend_lines, check_backends
from sonomime.benchmarks.lively import lively_model, speckle
from sonomime.benchmarks.png_reader import read_png
from sonomime.benchmarks.stage_chain import StageChain, plain_loop
from sonomime.benchmarks.torch_check import Pictures, Variant, check_variant, torch_lines, variants
from sonomime.runtime.bundle import Bundle, sha256_file
from sonomime.runtime.errors import InputError
from sonomime.runtime.png import png_bytes
from sonomime.training.config import load_config

CPU = torch.device("cpu")

# What a machine with torch, numpy and a compiler alone lacks.
BARE = """
import runpy, sys
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
script, *sys.argv[1:] = sys.argv[1:]
sys.argv[0] = script
runpy.run_path(script, run_name="__main__")
"""


def test_it_runs_from_a_checkout_with_torch_and_numpy_alone(
    repository: Path, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    bundle = make_toy_bundle(tmp_path / "toy")
    script = repository / "benchmarks" / "gpu_check.py"
    words = ["--cpu-only", "--small", "--models", "lite", "--frames", "2", "-o", str(report)]
    done = subprocess.run(
        [sys.executable, "-I", "-c", BARE, str(script), *words, "--bundle", str(bundle)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert {"cv2", "av", "onnxruntime", "onnx", "tensorrt"} <= set(found["absent"])
    assert found["gpu"] == {"absent": "not asked"}
    (model,) = found["models"]
    assert [row["variant"] for row in model["rows"]][-1] == "plain loop, fp32"
    assert all("failed" not in row for row in model["rows"])
    (backend,) = found["backends"]["rows"]
    assert backend["backend"] == "ort-cpu" and "cannot be imported" in backend["absent"]
    for word in ("no GPU", "absent:", "plain loop", "ort-cpu"):
        assert word in done.stdout


def test_without_a_gpu_it_ends_with_an_error_after_what_a_cpu_can_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    report = tmp_path / "report.json"
    words = ["--small", "--models", "", "--frames", "2", "-o", str(report)]
    bundle = str(make_toy_bundle(tmp_path / "toy"))
    assert gpu_check.main([*words, "--bundle", bundle]) == gpu_check.EXIT_NO_GPU
    said = capsys.readouterr()
    assert "torch finds no GPU" in said.err and "nvidia-smi" in said.err
    backends = json.loads(report.read_text())["backends"]["rows"]
    assert [row["backend"] for row in backends] == ["ort-cpu", "ort-cuda", "tensorrt", "rtx"]
    assert "frame_ms" in backends[0] and all("absent" in row for row in backends[1:])


def test_what_is_compiled_comes_after_all_the_rest_and_time_may_run_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []

    def check(model: Any, device: Any, pictures: Any, kernels: Any, count: int, todo: Any,
              plain: bool) -> Any:  # fmt: skip
        order.append((model.config.generator.kind, [way.compiled for way in todo], plain))
        yield {"variant": "as told", "failed": "a way that fails stops nothing"}

    def backends(*given: Any) -> Any:
        order.append("backends")
        return []

    ways = [Variant("fp32"), Variant("fp32", compiled=True)]
    monkeypatch.setattr(torch_check, "check_model", check)
    monkeypatch.setattr(backend_check, "check_backends", backends)
    monkeypatch.setattr(torch_check, "variants", lambda *given: ways)
    report = tmp_path / "report.json"
    bundle = str(make_toy_bundle(tmp_path / "toy"))
    words = ["--cpu-only", "--small", "--frames", "1", "--bundle", bundle, "-o", str(report)]
    assert gpu_check.main(words) == gpu_check.EXIT_DIFFERS, "and is no success"
    assert order == [
        ("lite", [False], True), ("dual", [False], True), "backends",
        ("lite", [True], False), ("dual", [True], False),
    ]  # fmt: skip
    order.clear()
    assert gpu_check.main([*words, "--minutes", "0"]) == 0
    found = json.loads(report.read_text())
    assert order == [] and all("out of time" in model["left_out"] for model in found["models"])
    assert "out of time" in found["backends"]["left_out"]


def test_a_golden_picture_that_cannot_be_read_costs_no_other_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_toy_bundle(tmp_path / "toy")
    replace_file(bundle, "golden_output.png", b"no picture")
    report = tmp_path / "report.json"
    words = ["--cpu-only", "--models", "", "--frames", "1", "-o", str(report)]
    assert gpu_check.main([*words, "--bundle", str(bundle)]) == gpu_check.EXIT_DIFFERS
    assert "backends (" in capsys.readouterr().err
    found = json.loads(report.read_text())
    assert "golden_output.png" in found["backends"]["failed"] and "rows" in found["kernels"]


def test_a_model_that_cannot_be_made_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = str(make_toy_bundle(tmp_path / "toy"))
    words = ["--cpu-only", "--models", "unheard-of", "--frames", "1", "--bundle", bundle]
    assert gpu_check.main(words) == gpu_check.EXIT_DIFFERS
    assert "unheard-of" in capsys.readouterr().err


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    shots = [speckle(128, 1, seed) for seed in range(4)]
    return Pictures(shots[0], shots[1], tuple(shots[2:]))


@pytest.fixture(scope="module")
def lite() -> Any:
    return lively_model(load_config("lite", SMALL))


def test_a_variant_is_held_against_the_model(lite: Any, pictures: Pictures) -> None:
    expected = torch_check.expected_frames(lite, pictures)
    same = check_variant(lite, Variant("fp32"), CPU, pictures, expected, None, 2)
    assert same["agrees"] and same["levels_apart"] == 0 and same["frame_ms"]["count"] == 2
    assert list(same["stages_ms"]) == ["keypoints", "transfer", "motion", "generator"]
    half = check_variant(lite, Variant("fp16"), CPU, pictures, expected, None, 2)
    assert 30 < half["psnr_db"] < 120, "half precision is near, and not the same"
    other = [255 - frame for frame in expected]
    wrong = check_variant(lite, Variant("fp32"), CPU, pictures, other, None, 2)
    assert not wrong["agrees"]
    rows = [same, wrong, {"variant": "plain loop, fp32", "frame_ms": same["frame_ms"]}]
    lines = list(torch_lines(rows))
    assert "DIFFERS" in lines[2] and "DIFFERS" not in lines[1]
    assert lines[1].split()[-1] == "1.0", "the plain loop took as long"


def test_a_variant_that_fails_says_why_and_leaves_torch_as_it_was(
    lite: Any, pictures: Pictures
) -> None:
    before = torch.backends.cudnn.allow_tf32
    row = check_variant(lite, Variant("fp32", graph=True), CPU, pictures, [], None, 2)
    assert row["failed"] and "failed:" in "\n".join(torch_lines([row]))
    assert torch.backends.cudnn.allow_tf32 is before


def test_a_trained_model_is_held_against_its_bundles_golden_frame(tmp_path: Path) -> None:
    """A bundle says which checkpoint it was made of; of another, the golden frame says nothing."""
    from lively import lively_checkpoint

    bundle = make_toy_bundle(tmp_path / "toy", size=128)
    checkpoint = tmp_path / "checkpoint.pt"
    lively_checkpoint("lite", SMALL).save(checkpoint)
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


def test_what_is_not_finite_does_not_agree(lite: Any, pictures: Pictures) -> None:
    expected = torch_check.expected_frames(lite, pictures)
    chain = StageChain(lite, "fp32", CPU)
    chain.set_source(pictures.source, pictures.reference)
    assert chain.finite()
    chain.tensors["deformation"] = torch.tensor([torch.nan])
    assert not chain.finite()
    assert len(expected) == 2


def test_the_chain_is_the_models_own(lite: Any, pictures: Pictures) -> None:
    """Against the reference that the export is verified with, smoothing off, relative."""
    from sonomime.export.reference import Control, TorchChain, as_image

    reference = TorchChain(lite)
    reference.set_source(pictures.source, pictures.reference)
    chain = StageChain(lite, "fp32", CPU)
    chain.set_source(pictures.source, pictures.reference)
    for frame in pictures.driving:
        wanted = as_image(reference.animate(frame, Control(relative=1.0))["frame"])
        assert np.abs(chain.animate(frame).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("preset", ["lite", "ours-ptg", "fomm"])
def test_every_stage_stays_on_its_device(preset: str, channels_last: bool) -> None:
    """On torch's device without memory, which refuses to meet tensors of the CPU."""
    extra = ("model.geometry=fomm", "model.channels=3") if preset == "fomm" else ()
    model = lively_model(load_config(preset, (*SMALL, *extra)))
    chain = StageChain(model, "fp16", torch.device("meta"), channels_last=channels_last)
    with torch.no_grad():
        for stage in chain.stages:
            chain.run(stage)
    assert {tensor.device.type for tensor in chain.tensors.values()} == {"meta"}


def test_the_plain_loop_makes_every_frame(lite: Any, pictures: Pictures) -> None:
    chain = StageChain(lite, "fp32", CPU)
    chain.set_source(pictures.source, pictures.reference)
    runs: list[str] = []
    for stage in chain.stages:
        module = chain.modules[stage.name]
        chain.modules[stage.name] = lambda *given, module=module, name=stage.name: (
            runs.append(name),
            module(*given),
        )[1]
    assert len(plain_loop(chain, pictures.source, pictures.driving, 3)) == 3
    assert runs == ["source", "keypoints", "transfer", "motion", "generator"] * 3


def test_the_ways_of_a_gpu() -> None:
    names = [variant.name for variant in variants(gpu=True)]
    assert len(set(names)) == len(names) == 12
    assert "eager, fp16, channels last, our kernels, CUDA graph" in names
    assert not any("compiled" in v.name for v in variants(True, compiled=False))
    assert not any("our kernels" in v.name for v in variants(True, kernels=False))


def test_launches_that_cannot_be_counted_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RuntimeError("no CUPTI here\nand more")

    chain: Any = types.SimpleNamespace(enqueue=refuse)
    assert torch_check.count_launches(chain) == {"absent": "RuntimeError: no CUPTI here"}


def test_backends_are_held_against_the_golden_frame(tmp_path: Path) -> None:
    folder = make_toy_bundle(tmp_path / "toy")
    (row,) = check_backends(Bundle.open(folder), 3, ["ort-cpu"])
    assert row["agrees"] and row["golden"]["levels_apart"] <= 8
    assert list(row["stages_ms"]) == ["keypoints", "transfer", "motion", "generator"]
    assert min(row["cold_ms"].values()) > 0 and row["frame_ms"]["count"] == 3
    replace_file(folder, "golden_output.png", png_bytes(np.full((64, 64), 200, np.uint8)))
    (row,) = check_backends(Bundle.open(folder), 2, ["ort-cpu"])
    assert not row["agrees"] and "DIFFERS" in "\n".join(backend_lines([row]))


@pytest.mark.parametrize("shape", [(9, 13), (9, 13, 3)])
@pytest.mark.parametrize("strategy", range(5))
def test_png_files_are_read_without_opencv(
    shape: tuple[int, ...], strategy: int, tmp_path: Path
) -> None:
    import struct
    import zlib

    picture = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(png_bytes(picture, {"comment": "as sonomime writes it"}))
    assert np.array_equal(read_png(path), picture)
    # Every filter, by an encoder written here: 0 none, 1 left, 2 up, 3 average, 4 Paeth.
    channels = 1 if picture.ndim == 2 else 3
    lines = picture.reshape(9, -1).astype(int)
    raw = b""
    for y, line in enumerate(lines):
        up = lines[y - 1] if y else np.zeros_like(line)
        left = np.concatenate([np.zeros(channels, int), line[:-channels]])
        corner = np.concatenate([np.zeros(channels, int), up[:-channels]])
        distances = np.abs(np.stack([up - corner, left - corner, left + up - 2 * corner]))
        paeth = np.choose(distances.argmin(0), [left, up, corner])
        guess = [np.zeros_like(line), left, up, (left + up) // 2, paeth][strategy]
        raw += bytes([strategy]) + ((line - guess) & 255).astype(np.uint8).tobytes()

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = struct.pack(">IIBBBBB", 13, 9, 8, 0 if channels == 1 else 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw))
    )
    assert np.array_equal(read_png(path), picture)


def test_png_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"no picture")
    with pytest.raises(InputError, match="no PNG"):
        read_png(path)
    good = png_bytes(np.zeros((9, 13), np.uint8))
    path.write_bytes(good[:24] + b"\x10" + good[25:])
    with pytest.raises(InputError, match="8-bit"):
        read_png(path)
