"""`sonomime bench compare`: how candidates are written, turns, ratios, and what runs."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lively import SMALL_LITE, lively_checkpoint, speckle
from toy_bundle import make_toy_bundle

from sonomime.benchmarks import candidates, eager
from sonomime.benchmarks.candidates import Candidate, Runner, parse_candidate, takes_a_gpu
from sonomime.benchmarks.compare import (
    LEAST_BLOCKS,
    agreement,
    compare,
    labels,
    ratio_of,
    take_turns,
)
from sonomime.benchmarks.eager import FommLoop, model_of, open_eager, open_fomm
from sonomime.benchmarks.report import as_text, compare_parts
from sonomime.cli import main
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.media.pixels import Image
from sonomime.runtime.support.errors import BundleError, CheckpointError, ConfigError
from sonomime.training.models.keypoints.family import KeypointFamily


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("cpu", ("cpu", None, None)),
        ("ort-cpu:fp32", ("ort-cpu", "fp32", None)),
        ("auto@my/bundle", ("auto", None, Path("my/bundle"))),
        ("tensorrt:fp16@b:c@d", ("tensorrt", "fp16", Path("b:c@d"))),
        ("torch", ("torch", None, None)),
        ("torch@a.pt", ("torch", None, Path("a.pt"))),
        ("fomm", ("fomm", None, None)),
    ],
)
def test_candidates_as_they_are_written(text: str, parts: Any) -> None:
    assert parse_candidate(text) == Candidate(text, *parts)


@pytest.mark.parametrize(
    "text", ["", ":fp16", "@b", "cpu@", "cpu:", "cpu:@b", "cpux", "torch:bf16", "fomm@a.pt"]
)
def test_what_is_no_candidate(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_candidate(text)
    assert caught.value.hint


def test_a_gpus_number_is_for_those_that_take_one() -> None:
    assert takes_a_gpu("tensorrt") and takes_a_gpu("auto") and not takes_a_gpu("cpu")


def test_the_same_candidate_twice_has_two_names() -> None:
    assert labels(["cpu", "a", "cpu", "cpu"]) == ["cpu", "a", "cpu #2", "cpu #3"]


def test_turns() -> None:
    """Each block begins with a frame that is not timed; each turn begins with another one."""
    calls: list[tuple[str, int]] = []
    now = [0.0]

    def runner(name: str, takes: float) -> Any:
        def animate(frame: Image) -> None:
            calls.append((name, int(frame[0, 0])))
            now[0] += takes

        return animate

    driving = [np.full((1, 1), value, np.uint8) for value in range(5)]
    both = [runner("a", 1.0), runner("b", 3.0)]
    loops = take_turns(both, driving, 3, 2, clock=lambda: now[0])
    assert [name for name, _ in calls] == [*"aaabbb", *"bbbaaa", *"aaabbb"]
    shown = [frame for name, frame in calls if name == "a"]
    assert shown == [4, 0, 1, 1, 2, 3, 3, 4, 0]
    assert shown == [frame for name, frame in calls if name == "b"]
    assert [loop.latency for loop in loops[0]] == [[1, 1]] * 3
    assert [loop.latency for loop in loops[1]] == [[3, 3]] * 3


def test_a_ratio_is_that_of_the_blocks_of_one_turn() -> None:
    """Other work makes whole turns slow; the ratio does not move."""
    first = [[0.01 * slow] * 3 for slow in (1, 5, 2, 9, 1, 3, 7)]
    other = [[2.5 * seconds for seconds in block] for block in first]
    found = ratio_of(first, other)
    assert [found[name] for name in ("ratio", "low", "high")] == pytest.approx([2.5] * 3)
    assert found["blocks"] == 7 and found["share"] == 0.95
    assert found["ratio_of_blocks"] == pytest.approx([2.5] * 7)


def test_an_interval_holds_the_ratio_and_is_always_the_same() -> None:
    noise = np.random.default_rng(1).normal(1, 0.05, (2, 20, 9))
    first, other = noise[0].tolist(), (1.5 * noise[1]).tolist()
    found = ratio_of(first, other)
    assert found == ratio_of(first, other)
    assert found["low"] < found["ratio"] < found["high"]
    assert 1.4 < found["low"] < 1.5 < found["high"] < 1.6
    turned = ratio_of(other, first)
    assert 1 / turned["high"] == pytest.approx(found["low"], rel=0.01)
    assert 1 / turned["low"] == pytest.approx(found["high"], rel=0.01)


def test_an_interval_from_too_few_blocks_is_refused() -> None:
    enough = [[1.0]] * LEAST_BLOCKS
    assert ratio_of(enough, enough)["low"] == 1
    few = ratio_of(enough[1:], enough[1:])
    assert few["ratio"] == 1 and few["low"] is few["high"] is None


def test_frames_are_compared_only_where_the_weights_are_the_same() -> None:
    def runner(add: int, model: str | None) -> Runner:
        return Runner(lambda frame: frame + np.uint8(add), lambda: None, {}, model)

    frames = [np.zeros((4, 4), np.uint8)] * 3
    found = agreement([runner(0, "m"), runner(2, "m"), runner(9, "n"), runner(9, None)], frames)
    assert [each and each["levels_apart"] for each in found] == [None, 2, None, None]
    assert found[1] is not None and found[1]["frames"] == 3
    assert found[1]["psnr_db"] == pytest.approx(20 * np.log10(255 / 2))
    nobodys = agreement([runner(0, None), runner(0, None)], frames)
    assert nobodys == [None, None]


def test_a_comparison_is_complete(
    toy_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, page, plot = (tmp_path / f"c.{suffix}" for suffix in ("json", "md", "png"))
    words = ["bench", "--threads", "1", "compare", "cpu", "cpu", f"ort-cpu@{toy_bundle}"]
    words += ["--bundle", str(toy_bundle), "--blocks", "6", "--frames", "12"]
    words += ["--json", str(file), "--markdown", str(page), "--plot", str(plot)]
    assert main(words) == 0
    report, text = json.loads(file.read_text()), capsys.readouterr().out
    names = ["cpu", "cpu #2", f"ort-cpu@{toy_bundle}"]
    assert [each["name"] for each in report["candidates"]] == names
    assert report["threads"] == 1, "an option before the word counts"
    for each in report["candidates"]:
        assert each["milliseconds"]["count"] == 12 == len(list(chain(*each["samples_ms"])))
        assert (each["rate_hz"], each["dropped"], each["precision"]) == (None, 0, "fp32")
        assert each["bundle"]["digest"] == Bundle.open(toy_bundle).digest
    assert [each["agreement"] and each["agreement"]["levels_apart"]
            for each in report["candidates"]] == [None, 0, 0]  # fmt: skip
    for ratio in report["ratios"]:
        assert ratio["to"] == "cpu" and ratio["low"] <= ratio["ratio"] <= ratio["high"]
    assert len(report["steadiness"]["block_medians_ms"]) == 6
    assert all(name in text and name in page.read_text() for name in names)
    assert plot.stat().st_size > 1000


@pytest.mark.parametrize(
    "given",
    [
        {"candidates": ["cpu"]},
        {"candidates": ["cpu", "cpus"]},
        {"blocks": 0},
        {"blocks": 3, "frames": 2},
        {"threads": 0},
    ],
)
def test_what_cannot_be_compared(toy_bundle: Path, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError) as caught:
        compare(**{"candidates": ["cpu", "cpu"], "bundle": toy_bundle, **given})
    assert caught.value.hint


def test_files_of_candidates_that_are_missing(toy_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError):
        compare(["cpu", f"cpu@{tmp_path}"], toy_bundle)
    with pytest.raises(CheckpointError):
        compare(["cpu", f"torch@{tmp_path / 'none.pt'}"], toy_bundle)
    with pytest.raises(ConfigError) as caught:  # the toy is of no preset
        compare(["cpu", "torch"], toy_bundle)
    assert "torch@" in caught.value.hint


def test_a_checkpoint_in_eager_torch(tmp_path: Path) -> None:
    bundle, checkpoint = make_toy_bundle(tmp_path / "toy", size=128), tmp_path / "model.pt"
    lively_checkpoint("lite", SMALL_LITE).save(checkpoint)
    report = compare(["cpu", f"torch@{checkpoint}"], bundle, blocks=1, frames=1, threads=1)
    theirs = report["candidates"][1]
    assert (theirs["backend"], theirs["checkpoint"]) == ("torch", "model.pt")
    assert theirs["agreement"] is None, "the toy is not made from it"
    assert report["ratios"][0]["low"] is None
    assert "no interval" in "\n".join(as_text(compare_parts(report)))
    assert model_of(None, "lite", *SMALL_LITE).config.image_size == 128


def test_fomms_loop_encodes_the_source_with_every_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = [f"model.{part}.width=4" for part in ("keypoints", "motion", "generator")]
    small += [f"model.{part}.max_features=16" for part in ("keypoints", "motion", "generator")]
    model = model_of(None, "fomm", "model.image_size=128", "model.channels=1", *small)
    runs = {"encode": 0, "keypoint_detector": 0}
    model.generator.first.register_forward_hook(lambda *_: runs.update(encode=runs["encode"] + 1))
    model.keypoint_detector.register_forward_hook(
        lambda *_: runs.update(keypoint_detector=runs["keypoint_detector"] + 1)
    )
    monkeypatch.setattr(eager, "model_of", lambda checkpoint, preset, *shape: model)
    loop = open_fomm(Bundle.open(make_toy_bundle(tmp_path / "toy", size=128)), 1)
    source, *driving = (speckle(128, seed=seed) for seed in range(4))
    loop.begin(source, driving[0])
    before = dict(runs)
    made = [loop.animate(frame) for frame in driving]
    assert runs["encode"] - before["encode"] == 3
    assert runs["keypoint_detector"] - before["keypoint_detector"] == 3
    plain = KeypointFamily().oracle(model)
    plain.set_source(source, driving[0])
    for frame, found in zip(driving, made, strict=True):
        assert np.array_equal(plain.animate(frame)["frame"][0, 0], found)
    assert issubclass(FommLoop, KeypointFamily.eager)


def test_an_untrained_model_of_the_bundles_preset() -> None:
    """The default bundle, once: its preset, at its size."""
    bundle = Bundle.open()
    loop = open_eager(bundle, None, 1)
    picture = speckle(200)
    loop.begin(picture, picture)
    size = bundle.manifest.image.size
    assert loop.animate(picture).shape == (size, size)


def test_a_candidate_in_torch_is_described(toy_bundle: Path, monkeypatch: Any) -> None:
    class Nothing:
        def begin(self, source: Image, reference: Image) -> None: ...

        def animate(self, frame: Image) -> Image:
            return frame

    monkeypatch.setattr(eager, "open_fomm", lambda *_: Nothing())
    picture = speckle(64)
    runner = candidates.open_candidate(
        parse_candidate("fomm"), Bundle.open(toy_bundle), 1, None, picture, picture
    )
    assert (runner.about["backend"], runner.about["precision"]) == ("fomm", "fp32")
    assert runner.model is None and runner.animate(picture) is picture


@pytest.mark.parametrize(
    "words",
    [
        "bench compare cpu", "bench compare", "bench compare cpu cpux",
        "bench compare cpu torch:fp16",
        "bench --backend cpu compare cpu cpu", "bench --rate 25 compare cpu cpu",
        "bench --no-offline compare cpu cpu", "bench compare cpu cpu --rate 25",
        "bench compare cpu cpu --plot a.jpg", "bench compare cpu cpu --markdown -",
        "bench --json a --markdown a", "bench --rate 0", "bench --rate x", "bench --streams 0",
        "bench --torch a.pt", "bench --backend torch", "bench comapre cpu cpu", "bench --plot a",
        "bench compare cpu cpu --blocks 0", "bench compare cpu cpu --frames 3", "bench --frames 0",
    ],
)  # fmt: skip
def test_wrong_words(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    said = capsys.readouterr()
    assert said.out == "" and "hint: " in said.err and "defect" not in said.err
    assert list(tmp_path.iterdir()) == []
