"""`sonomime bench`: its arithmetic, that its report is complete, and what the GPU did meanwhile."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import cv2
import numpy as np
import pytest
from fake_engines import install
from toy_bundle import make_toy_bundle

from sonomime.benchmarks import opening
from sonomime.benchmarks.cold_start import time_cold_start
from sonomime.benchmarks.latency import measure_latency
from sonomime.benchmarks.measure import table
from sonomime.benchmarks.nvidia_smi import parse_line, state_line, summarise_readings, watch
from sonomime.benchmarks.opening import open_animator
from sonomime.benchmarks.report import as_text, latency_parts
from sonomime.cli import main
from sonomime.runtime.backends.ort import OrtCpuBackend
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.support.errors import BackendError, BundleError, ConfigError

STAGES = ["keypoints", "transfer", "motion", "generator"]
QUICK: dict[str, Any] = {"threads": 1, "frames": 1, "warmup": 0, "cold": 0, "offline": False}

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
    page, plot = tmp_path / "latency.md", tmp_path / "latency.png"
    words = ["bench", "--bundle", str(bundle), "--backend", "cpu", "--threads", "1"]
    words += ["--frames", "20", "--warmup", "1", "--cold", "1", "--rate", "200", "--rate", "500"]
    words += ["--streams", "2", "--json", str(file), "--markdown", str(page), "--plot", str(plot)]
    assert main(words) == 0
    report, text = json.loads(file.read_text()), capsys.readouterr().out
    assert list(report["milliseconds"]) == ["frame", *STAGES, "own", "compose 800x600"]
    samples = report["samples_ms"]
    assert {len(values) for values in samples.values()} == {20}
    stages = np.sum([samples[name] for name in STAGES], axis=0)
    assert np.allclose(stages + samples["own"], samples["frame"], atol=0.001)
    assert min(samples["own"]) > 0 and 0 < report["own_share"] < 1
    assert report["threads"] == 1 and report["bundle"]["digest"] == Bundle.open(bundle).digest
    assert report["backend"] == "ort-cpu" and report["spans"] == "host clock"
    assert report["precision"] == "fp32"
    assert {"sonomime", "numpy"} <= report["environment"]["versions"].keys()
    (cold,) = report["cold_start_ms"]
    steps = ["interpreter", "imports", "open", "set_source", "first_frame", "total"]
    assert list(cold) == steps
    assert cold["total"] == pytest.approx(sum(cold[step] for step in steps[:-1]), abs=0.1)
    closed, slow, fast, offline = report["scenarios"]
    assert [each["rate_hz"] for each in (closed, slow, fast)] == [None, 200, 500]
    assert closed["samples_ms"] == samples["frame"]
    for each in (closed, slow, fast):
        assert each["due"] == 20 == each["finished"] + each["dropped"]
        assert each["milliseconds"]["count"] == each["finished"] == len(each["samples_ms"])
    assert offline["frames"] == 62 and offline["frames_per_second"] > 0
    assert report["memory_mb"]["peak"] > report["memory_mb"]["opening"]
    assert report["parity"] == {
        "reference": "ort-cpu, bundle in fp32", "frames": 20, "psnr_db": 120, "levels_apart": 0,
    }  # fmt: skip
    assert len(report["steadiness"]["block_medians_ms"]) == 4
    assert [each["rate_hz"] for each in report["streams"]["scenarios"]] == [None, 200, 500]
    for word in (*STAGES, "compose 800x600", "cold start", "own share", "200 Hz, ", "p99.9"):
        assert word in text and word in page.read_text()
    assert cv2.imread(str(plot)).shape == (600, 1200, 3)


def test_on_a_gpu_spans_are_the_devices_and_its_state_is_recorded(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, monkeypatch, "unheard.of")
    monkeypatch.setattr(OrtCpuBackend, "captured", True, raising=False)
    report = measure_latency(toy_bundle, "cpu", **QUICK)
    assert report["spans"] == "CUDA events" and report["cuda_graph"] is True
    assert report["gpu"]["throttled"] is True and report["gpu"]["power.draw"]["max"] == 61.5
    text = "\n".join(as_text(latency_parts(report)))
    assert "one CUDA graph" in text and "slowed by: power cap" in text


def test_the_gpu_that_was_named(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch).cuda.count = 2
    report = measure_latency(toy_bundle, "tensorrt", **QUICK, device=1)
    assert report["device"].startswith("Fake GPU 1 ")
    with pytest.raises(ConfigError) as caught:
        measure_latency(toy_bundle, "cpu", device=0)
    assert caught.value.hint
    with pytest.raises(BackendError) as failed:  # a new process sees no such GPU
        time_cold_start(Bundle.open(toy_bundle), "auto", 1, device=99)
    assert failed.value.hint


def test_a_precision_is_passed_on_only_if_it_was_given(
    toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = MagicMock()
    monkeypatch.setattr(opening, "Animator", fake)
    bundle = Bundle.open(toy_bundle)
    open_animator(bundle, "cpu", threads=1)
    open_animator(bundle, "cpu", "fp32", device=2)
    first, second = fake.open.call_args_list
    assert first.args == second.args == (bundle, "cpu")
    assert first.kwargs == {"threads": 1, "device": None}
    assert second.kwargs == {"threads": None, "device": 2, "precision": "fp32"}


def test_what_cannot_be_measured(tmp_path: Path) -> None:
    impossible: tuple[dict[str, Any], ...]
    impossible = (
        {"frames": 0}, {"warmup": -1}, {"cold": -1}, {"threads": 0}, {"backend": "cpus"},
        {"rates": [25, 0]}, {"streams": 0}, {"streams": 1000},
    )  # fmt: skip
    for given in impossible:
        with pytest.raises(ConfigError):
            measure_latency(**given)
    with pytest.raises(BundleError):
        measure_latency(tmp_path)


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
