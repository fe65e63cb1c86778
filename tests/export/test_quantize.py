"""Int8 bundles: what is kept, what is refused, and what they make."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from lively import SMALL_LITE, speckle

from sonomime.cli import main
from sonomime.export import int8_check, quantize
from sonomime.export.int8_check import Checked, Checks, read_clips
from sonomime.export.quantize import convolutions, quantize_bundle
from sonomime.runtime import Animator
from sonomime.runtime.backends import open_backend
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.fastest import Engine
from sonomime.runtime.sinks.open_sink import open_sink
from sonomime.runtime.support.errors import (
    BackendError,
    ConfigError,
    ExportError,
    InputError,
    OutputError,
)

Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Speckle that moves sideways, of four subjects."""
    folder = tmp_path_factory.mktemp("clips")
    for subject in range(4):
        picture = speckle(160, seed=subject)
        with open_sink(folder / f"{subject}.mkv", (128, 128), 1, 20) as sink:
            for at in range(8):
                sink.write(np.ascontiguousarray(picture[8:136, 2 * at : 2 * at + 128]))
    return folder


@pytest.fixture(scope="module")
def exported(bundles: Callable[..., Path]) -> Bundle:
    return Bundle.open(bundles("lite", "fp32", *SMALL_LITE))


@pytest.fixture
def lenient(monkeypatch: Patch) -> None:
    """Random weights lose more than trained ones."""
    monkeypatch.setattr(int8_check, "MOST_MOTION", 0.5)
    monkeypatch.setattr(int8_check, "MOST_PSNR_LOST", 6.0)


def timed(monkeypatch: Patch, in_float: float, in_int8: float) -> None:
    times = {Engine("ort-cpu", "fp32"): in_float, Engine("ort-cpu", "int8"): in_int8}
    monkeypatch.setattr(quantize, "compare", lambda pairs, threads: times)


def test_an_int8_bundle_is_written_and_animates(
    exported: Bundle, clips: Path, tmp_path: Path, monkeypatch: Patch, lenient: None, capsys: Any
) -> None:
    timed(monkeypatch, 0.03, 0.02)
    out = tmp_path / "int8"
    words = ["quantize", str(exported.folder), "--data", str(clips), "-o", str(out), "--json"]
    assert main([*words, "--threads", "1"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["gain"] == pytest.approx(1.5) and said["milliseconds"]["ort-cpu int8"] == 20
    assert said["checked"]["motion"] <= 0.5
    made = Bundle.open(out)
    assert made.manifest.precision == "int8" and made.digest != exported.digest
    for stage in made.manifest.stages:
        graph = onnx.load(out / stage.file).graph
        done = sum(
            node.op_type == "Conv" and node.input[0].endswith("DequantizeLinear_Output")
            for node in graph.node
        )
        assert done == said["stages"].get(stage.name, {"int8": 0})["int8"], stage.name
    assert sum(row["int8"] for row in said["stages"].values()) > 0
    assert "8 bits" in (out / "MODEL_CARD.md").read_text()
    frames = []
    for bundle in (exported, made):
        with Animator.open(bundle, "cpu", threads=1) as animator:
            animator.set_source(speckle(128, seed=5))
            animator.set_reference(speckle(128, seed=6))
            frames.append(animator.animate(speckle(128, seed=7)))
    apart = np.abs(frames[0].astype(int) - frames[1])
    assert apart.max() > 0 and apart.mean() < 8
    assert main(["doctor", "--bundle", str(out)]) == 0
    with pytest.raises(ConfigError):
        quantize_bundle(made, read_clips([clips], made), tmp_path / "again", 1)
    for gpu in ("tensorrt", "rtx", "ort-cuda"):
        with pytest.raises(BackendError):
            open_backend(gpu, made, 1)


def test_what_is_not_faster_or_not_exact_enough_is_not_written(
    exported: Bundle, clips: Path, tmp_path: Path, monkeypatch: Patch, lenient: None
) -> None:
    parts, out = read_clips([clips], exported), tmp_path / "int8"
    timed(monkeypatch, 0.024, 0.02)
    (generator,) = (each for each in exported.manifest.stages if each.name == "generator")
    some = [("generator", name) for name in convolutions(exported, generator)]
    monkeypatch.setattr(quantize, "_ranked", lambda *args: some)  # which takes long
    with pytest.raises(ExportError, match=r"1\.20"):
        quantize_bundle(exported, parts, out, 1)
    found = quantize_bundle(exported, parts, tmp_path / "elsewhere", 1, for_another_machine=True)
    assert found.gain == pytest.approx(1.2) and Bundle.open(tmp_path / "elsewhere")
    monkeypatch.setattr(Checks, "compare", lambda checks, bundle: Checked(2.0, 0.9, 20.0))
    with pytest.raises(ExportError):
        quantize_bundle(exported, parts, out, 1, for_another_machine=True)
    assert not out.exists()
    monkeypatch.setattr(quantize, "record", lambda *args: pytest.fail("it looks at -o first"))
    with pytest.raises(OutputError):
        quantize_bundle(exported, parts, tmp_path / "elsewhere", 1)


def test_what_a_bundle_loses(exported: Bundle, clips: Path) -> None:
    parts = read_clips([clips], exported)
    assert (len(parts.calibrated), len(parts.checked)) == (3, 1)
    (part,) = parts.checked
    away = [int(np.abs(frame.astype(int) - part.first).sum()) for frame in part.frames]
    assert away == sorted(away) and away[0] > 0
    same = Checks(exported, parts.checked, 1).compare(exported)
    assert same == (0.0, 0.0, 100.0) or same == (0.0, 0.0, 120.0)
    assert same.passes and not Checked(1.1, 0.0, 50).passes and not Checked(0, 0.031, 50).passes
    with pytest.raises(InputError):
        read_clips([clips / "0.mkv"], exported)


def test_sums_of_squares_are_no_convolutions_to_quantize(exported: Bundle) -> None:
    (observe,) = exported.manifest.of_role("observe")
    graph = onnx.load_from_string(exported.read(observe.file)).graph
    every = [node.name for node in graph.node if node.op_type == "Conv"]
    assert 0 < len(convolutions(exported, observe)) == len(every) - 2
