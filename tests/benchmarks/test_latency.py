"""The benchmark's arithmetic, and that a report is complete."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from toy_bundle import make_toy_bundle

from sonomime.benchmarks.latency import Plan, measure_latency, report_lines
from sonomime.benchmarks.measure import LEAST_FOR_P99, summarise
from sonomime.cli import main
from sonomime.runtime.animator import Animator
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.media.pixels import Image, to_planes
from sonomime.runtime.support.errors import BackendError, BundleError, ConfigError

STAGES = ["keypoints", "transfer", "motion", "generator"]


def test_a_summary_of_known_samples() -> None:
    summary = summarise([i / 1000 for i in range(1, 102)])
    known = {"count": 101, "min": 1, "mean": 51, "p50": 51, "p90": 91, "p99": 100, "max": 101}
    assert summary == pytest.approx(known)
    assert summarise([0.001] * LEAST_FOR_P99)["p99"] == pytest.approx(1)
    assert summarise([0.001] * (LEAST_FOR_P99 - 1))["p99"] is None, "too few for a tail"


def test_a_report_is_complete(toy_bundle: Path) -> None:
    plan = Plan(toy_bundle, "cpu", threads=1, frames=7, warmup=1, cold=1)
    report = measure_latency(plan)
    assert list(report["milliseconds"]) == ["frame", *STAGES, "own"]
    samples = report["samples_ms"]
    assert {len(values) for values in samples.values()} == {7}
    stages = np.sum([samples[name] for name in STAGES], axis=0)
    assert np.allclose(stages + samples["own"], samples["frame"], atol=0.001)
    assert min(samples["own"]) > 0 and 0 < report["own_share"] < 1
    assert report["threads"] == 1 and len(report["bundle"]["digest"]) == 64
    assert report["backend"] == "ort-cpu" and report["spans"] == "host clock"
    assert {"sonomime", "numpy"} <= report["environment"]["versions"].keys()
    (cold,) = report["cold_start_ms"]
    steps = ["interpreter", "imports", "open", "set_source", "first_frame", "total"]
    assert list(cold) == steps
    assert cold["total"] == pytest.approx(sum(cold[step] for step in steps[:-1]), abs=0.1)
    assert json.loads(json.dumps(report)) == report
    text = "\n".join(report_lines(report))
    for word in (*STAGES, "cold start", "own share", "7 warm frames"):
        assert word in text


def test_composing_is_timed_where_a_bundle_has_layers(tmp_path: Path) -> None:
    bundle = make_toy_bundle(tmp_path / "layered", layers=True)
    report = measure_latency(Plan(bundle, threads=1, frames=3, warmup=0, cold=0))
    assert list(report["milliseconds"]) == ["frame", *STAGES, "own", "compose 800x600"]
    assert len(report["samples_ms"]["compose 800x600"]) == 3
    assert "compose 800x600" in "\n".join(report_lines(report))


def test_the_verb_prints_and_writes(
    toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "latency.json"
    words = ["bench", "--bundle", str(toy_bundle), "--frames", "3", "--cold", "0", "--threads", "1"]
    assert main([*words, "--json", str(file)]) == 0
    assert "generator" in capsys.readouterr().out
    assert "cold_start_ms" not in json.loads(file.read_text())


def test_on_a_gpu_spans_are_the_devices_and_its_state_is_recorded(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fake_nvidia_smi import LINE, put

    from sonomime.runtime.backends.ort import OrtCpuBackend

    put(tmp_path, monkeypatch, "unheard.of", LINE)
    monkeypatch.setattr(OrtCpuBackend, "captured", True, raising=False)
    report = measure_latency(Plan(toy_bundle, "cpu", threads=1, frames=60, warmup=0, cold=0))
    assert report["spans"] == "CUDA events" and report["cuda_graph"] is True
    assert report["gpu"]["throttled"] is True and report["gpu"]["power.draw"]["max"] == 61.5
    text = "\n".join(report_lines(report))
    assert "one CUDA graph" in text and "slowed by: power cap" in text


def test_the_gpu_that_was_named(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fake_engines import install

    from sonomime.benchmarks.cold_start import time_cold_start

    install(monkeypatch).cuda.count = 2
    plan = Plan(toy_bundle, "tensorrt", threads=1, frames=1, warmup=0, cold=0, device=1)
    assert measure_latency(plan)["device"].startswith("Fake GPU 1 ")
    for backend in ("cpu", "torch"):
        with pytest.raises(ConfigError) as caught:
            measure_latency(Plan(toy_bundle, backend, device=0))
        assert caught.value.hint
    with pytest.raises(BackendError) as failed:  # a new process sees no such GPU
        time_cold_start(Bundle.open(toy_bundle), "auto", 1, device=99)
    assert failed.value.hint


def test_the_model_in_torch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from lively import SMALL_LITE, lively_checkpoint

    bundle = make_toy_bundle(tmp_path / "toy", size=128)
    checkpoint = tmp_path / "checkpoint.pt"
    lively_checkpoint("lite", SMALL_LITE).save(checkpoint)
    file = tmp_path / "torch.json"
    words = ["bench", "--bundle", str(bundle), "--backend", "torch", "--frames", "2"]
    words += ["--warmup", "0", "--threads", "1"]
    assert main([*words, "--torch", str(checkpoint), "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    assert report["backend"] == "torch" and "cold_start_ms" not in report
    names = ["frame", "observe", "transfer", "motion", "generator", "own", "compose 800x600"]
    assert list(report["milliseconds"]) == names
    assert "observe" in capsys.readouterr().out
    # Without a checkpoint, the preset says how the model is built: the toy has none.
    assert main(words) == 2
    assert "--torch CHECKPOINT" in capsys.readouterr().err


def test_plans_that_cannot_be(tmp_path: Path) -> None:
    impossible = (Plan(frames=0), Plan(warmup=-1), Plan(cold=-1), Plan(threads=0))
    for plan in (*impossible, Plan(backend="cpus")):
        with pytest.raises(ConfigError):
            measure_latency(plan)
    with pytest.raises(BundleError):
        measure_latency(Plan(tmp_path))


def test_torch_takes_turns_with_the_runtime(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sonomime.benchmarks import torch_bench

    checkpoint = tmp_path / "checkpoint.pt"

    class Stands:
        """In for a checkpoint, its model, its family and its oracle: the toy itself."""

        config = None

        def __init__(self, path: Path) -> None:
            assert path == checkpoint
            self.animator = Animator.open(toy_bundle, threads=1)

        def model(self) -> Stands:
            return self

        def oracle(self, model: Stands) -> Stands:
            return self

        def set_source(self, image: Image, reference: Image) -> None:
            self.animator.set_source(image)
            self.animator.set_reference(reference)

        def animate(self, frame: Image) -> dict[str, Image]:
            return {"frame": to_planes(self.animator.animate(frame))}

    stands = Stands(checkpoint)
    monkeypatch.setattr(torch_bench, "load_checkpoint", Stands)
    monkeypatch.setattr(torch_bench, "family_of", lambda config: stands)
    report = measure_latency(
        Plan(toy_bundle, threads=1, frames=16, warmup=0, cold=0, torch=checkpoint)
    )
    found = report["torch"]
    assert found["levels_apart"] == 0 and found["blocks"] == 8
    assert found["ratio_low"] <= found["ratio"] <= found["ratio_high"]
    assert found["runtime"]["count"] == found["torch"]["count"] == 16
    assert "times as fast as torch" in "\n".join(report_lines(report))
