"""`sonomime bench`: its arithmetic, that its report is complete, and what the GPU did meanwhile."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from fake_engines import install
from lively import SMALL_LITE, lively_checkpoint
from toy_bundle import make_toy_bundle

from sonomime.benchmarks import torch_bench
from sonomime.benchmarks.latency import measure_latency, report_lines, time_cold_start
from sonomime.benchmarks.measure import LEAST_FOR_P99, summarise, table
from sonomime.benchmarks.nvidia_smi import parse_line, state_line, summarise_readings, watch
from sonomime.cli import main
from sonomime.runtime.animator import Animator
from sonomime.runtime.backends.ort import OrtCpuBackend
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.media.pixels import Image, to_planes
from sonomime.runtime.support.errors import BackendError, BundleError, ConfigError

STAGES = ["keypoints", "transfer", "motion", "generator"]
QUICK: dict[str, Any] = {"threads": 1, "frames": 1, "warmup": 0, "cold": 0}

LINE = "NVIDIA L4, 580.65, P0, 1590, 6251, 2040, 61.5, 72.00, 58, 97, 1024, 0x0000000000000004"
NVIDIA_SMI = """#!/bin/sh
case "$*" in *REFUSED*) echo 'Field "REFUSED" is not a valid field to query.'; exit 2;; esac
while :; do echo "LINE"; sleep 0.02; done
"""


def put(folder: Path, monkeypatch: pytest.MonkeyPatch, refused: str) -> Path:
    """An nvidia-smi that is a script."""
    tool = folder / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(NVIDIA_SMI.replace("REFUSED", refused).replace("LINE", LINE))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return tool


def test_a_summary_of_known_samples() -> None:
    summary = summarise([i / 1000 for i in range(1, 102)])
    known = {"count": 101, "min": 1, "mean": 51, "p50": 51, "p90": 91, "p99": 100, "max": 101}
    assert summary == pytest.approx(known)
    assert summarise([0.001] * LEAST_FOR_P99)["p99"] == pytest.approx(1)
    assert summarise([0.001] * (LEAST_FOR_P99 - 1))["p99"] is None, "too few for a tail"


def test_a_table_has_a_line_for_every_row() -> None:
    rows = [
        ("a", {"ms": {"p50": 1.5}, "levels": 3}),
        ("long name", "no GPU"),
        ("c", {"MB": 1e3, "on": "CPU"}),
    ]
    columns = {"p50": "ms.p50", "none": "ms.p99", "MB": "MB", "levels": "levels", "on": "on"}
    assert [line.split() for line in table("way", rows, columns)] == [
        ["way", "p50", "MB", "levels", "on"],
        ["a", "1.500", "-", "3", "-"],
        ["long", "name", "no", "GPU"],
        ["c", "-", "1000", "-", "CPU"],
    ]
    assert list(table("way", [], columns)) == []


def test_a_report_is_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, file = make_toy_bundle(tmp_path / "layered", layers=True), tmp_path / "latency.json"
    words = ["bench", "--bundle", str(bundle), "--backend", "cpu", "--threads", "1"]
    words += ["--frames", "7", "--warmup", "1", "--cold", "1", "--json", str(file)]
    assert main(words) == 0
    report, text = json.loads(file.read_text()), capsys.readouterr().out
    assert list(report["milliseconds"]) == ["frame", *STAGES, "own", "compose 800x600"]
    samples = report["samples_ms"]
    assert {len(values) for values in samples.values()} == {7}
    stages = np.sum([samples[name] for name in STAGES], axis=0)
    assert np.allclose(stages + samples["own"], samples["frame"], atol=0.001)
    assert min(samples["own"]) > 0 and 0 < report["own_share"] < 1
    assert report["threads"] == 1 and report["bundle"]["digest"] == Bundle.open(bundle).digest
    assert report["backend"] == "ort-cpu" and report["spans"] == "host clock"
    assert {"sonomime", "numpy"} <= report["environment"]["versions"].keys()
    (cold,) = report["cold_start_ms"]
    steps = ["interpreter", "imports", "open", "set_source", "first_frame", "total"]
    assert list(cold) == steps
    assert cold["total"] == pytest.approx(sum(cold[step] for step in steps[:-1]), abs=0.1)
    for word in (*STAGES, "compose 800x600", "cold start", "own share", "7 warm frames", "p99"):
        assert word in text


def test_on_a_gpu_spans_are_the_devices_and_its_state_is_recorded(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, monkeypatch, "unheard.of")
    monkeypatch.setattr(OrtCpuBackend, "captured", True, raising=False)
    report = measure_latency(toy_bundle, "cpu", **QUICK)
    assert report["spans"] == "CUDA events" and report["cuda_graph"] is True
    assert report["gpu"]["throttled"] is True and report["gpu"]["power.draw"]["max"] == 61.5
    text = "\n".join(report_lines(report))
    assert "one CUDA graph" in text and "slowed by: power cap" in text


def test_the_gpu_that_was_named(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch).cuda.count = 2
    report = measure_latency(toy_bundle, "tensorrt", **QUICK, device=1)
    assert report["device"].startswith("Fake GPU 1 ")
    for backend in ("cpu", "torch"):
        with pytest.raises(ConfigError) as caught:
            measure_latency(toy_bundle, backend, device=0)
        assert caught.value.hint
    with pytest.raises(BackendError) as failed:  # a new process sees no such GPU
        time_cold_start(Bundle.open(toy_bundle), "auto", 1, device=99)
    assert failed.value.hint


def test_the_model_in_torch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = make_toy_bundle(tmp_path / "toy", size=128)
    checkpoint = tmp_path / "checkpoint.pt"
    lively_checkpoint("lite", SMALL_LITE).save(checkpoint)
    report = measure_latency(bundle, "torch", **QUICK, torch=checkpoint)
    assert report["backend"] == "torch" and "cold_start_ms" not in report
    names = ["frame", "observe", "transfer", "motion", "generator", "own", "compose 800x600"]
    assert list(report["milliseconds"]) == names
    assert torch_bench.model_of(None, "lite", *SMALL_LITE).config.image_size == 128
    # Without a checkpoint, the preset says how the model is built: the toy has none.
    assert main(["bench", "--bundle", str(bundle), "--backend", "torch"]) == 2
    assert "--torch CHECKPOINT" in capsys.readouterr().err


def test_what_cannot_be_measured(tmp_path: Path) -> None:
    impossible: tuple[dict[str, Any], ...]
    impossible = ({"frames": 0}, {"warmup": -1}, {"cold": -1}, {"threads": 0}, {"backend": "cpus"})
    for given in impossible:
        with pytest.raises(ConfigError):
            measure_latency(**given)
    with pytest.raises(BundleError):
        measure_latency(tmp_path)


def test_torch_takes_turns_with_the_runtime(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The toy itself stands in for the oracle."""

    def set_source(image: Image, reference: Image) -> None:
        animator.set_source(image)
        animator.set_reference(reference)

    animator, oracle = Animator.open(toy_bundle, threads=1), MagicMock(set_source=set_source)
    oracle.animate = lambda frame: {"frame": to_planes(animator.animate(frame))}
    monkeypatch.setattr(torch_bench, "load_checkpoint", MagicMock())
    monkeypatch.setattr(torch_bench, "family_of", MagicMock())
    torch_bench.family_of.return_value.oracle.return_value = oracle
    report = measure_latency(toy_bundle, **(QUICK | {"frames": 16}), torch=tmp_path / "model.pt")
    found = report["torch"]
    assert found["levels_apart"] == 0 and found["blocks"] == 8
    assert found["ratio_low"] <= found["ratio"] <= found["ratio_high"]
    assert found["runtime"]["count"] == found["torch"]["count"] == 16
    assert "times as fast as torch" in "\n".join(report_lines(report))


@pytest.mark.parametrize("refused", ["unheard.of", "clocks_event_reasons.active"])
def test_a_reading_by_new_and_old_drivers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    put(tmp_path, monkeypatch, refused)
    with watch() as found:
        time.sleep(0.2)
    assert found["name"] == "NVIDIA L4" and found["driver_version"] == "580.65"
    assert found["readings"] >= 1 and found["throttled"] is True
    assert found["clocks.sm"] == {"min": 1590, "median": 1590, "max": 1590}
    assert state_line(found) == "clock 1590 to 1590 MHz, power 62 to 62 W, slowed by: power cap"


def test_readings_are_summed_up() -> None:
    """What a GPU does not support is None; one that idles is not throttled."""
    state = parse_line("Orin, 1, [N/A], [N/A], 1, 2, [Not Supported], [N/A], 4, 5, 6, [N/A]")
    assert state["clocks.sm"] is state["power.draw"] is state["slowed_by"] is None
    assert state["clocks.mem"] == 1
    readings = [parse_line(LINE.replace("0004", "0001")), parse_line(LINE.replace("1590", "900"))]
    assert not summarise_readings([*readings[:1], state])["throttled"]
    both = summarise_readings(readings)
    assert both["slowed_by"] == ["idle", "power cap"] and both["clocks.sm"]["min"] == 900


def test_the_gpu_is_the_one_that_cuda_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(device: int = 0) -> Any:
        with watch(device) as found:
            assert state_line(found).startswith("clocks and power: ")
        return found["absent"]

    tool = put(tmp_path, monkeypatch, "unheard.of")
    tool.write_text('#!/bin/sh\necho "$*" >&2; exit 9\n')
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "--id=0 " in absent() and "--id=2 " in absent(2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert "--id=3 " in absent() and "--id=1 " in absent(1)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no" in absent()
