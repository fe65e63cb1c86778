"""From a checkpoint to a bundle that the runtime opens and that computes what the model does."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lively import SMALL, SMALL_LITE, lively_checkpoint, speckle

from sonomime import __version__
from sonomime.cli import main
from sonomime.export import bundle
from sonomime.export import verify as module
from sonomime.export.card import Description, model_card
from sonomime.export.verify import Frames, expected_tensors, read_frames, verify
from sonomime.runtime import Animator, Smoothing
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.bundle.manifest import DataCredit
from sonomime.runtime.compose import MOST_SIDE
from sonomime.runtime.golden import agreement, golden_frame
from sonomime.runtime.media.frames import Image, png_bytes
from sonomime.runtime.media.pixels import psnr, to_image
from sonomime.runtime.readers.stills import read_image
from sonomime.runtime.support.errors import ExportError, InputError
from sonomime.runtime.support.plain_file import sha256_file
from sonomime.training.models.base import Precision, Tensors
from sonomime.training.models.families import family_of
from sonomime.training.models.matching.family import MatchingFamily
from sonomime.training.torch_backend import open_session

Bundles = Callable[..., Path]
UNLIKE = ("model.channels=3", "model.matcher.shading=0", "model.landmarks.count=2")


def test_what_is_in_it_and_that_its_golden_sample_is_what_it_makes(small: Path) -> None:
    opened = Bundle.open(small)
    manifest = opened.manifest
    assert {path.name for path in small.iterdir()} == {"manifest.json"} | {
        file for file, _ in manifest.digests()
    }
    assert (manifest.name, manifest.preset, manifest.precision) == ("ours-pt", "ours-pt", "fp32")
    assert manifest.created_with == __version__
    assert [(p.index, p.name) for p in manifest.control.supervised] == [
        (10, "symphysis"), (11, "bladder neck"),
    ]  # fmt: skip
    provenance = manifest.provenance
    assert provenance.steps == 7 and provenance.checkpoint_sha256 == "0" * 64
    assert [(credit.name, credit.licence) for credit in provenance.data] == [("speckle", "CC0")]
    assert manifest.tolerances.stage_abs == 1e-4 and manifest.tolerances.frame_levels == 1
    given_away = Bundle.open().folder
    assert sum(path.stat().st_size for path in given_away.iterdir()) < 15e6
    golden = manifest.golden
    for seed, entry in enumerate((golden.source, golden.reference, golden.driving)):
        assert np.array_equal(read_image(small / entry.file), speckle(128, seed=seed))
    assert golden.motion == "relative"
    with Animator.open(small, threads=1) as animator:
        made = golden_frame(animator.session, opened)
    assert agreement(made, opened).levels <= 1


@pytest.mark.parametrize(
    ("preset", "precision", "sizes"),
    [
        ("ours-pt", "fp32", SMALL),
        ("ours-pt", "fp16", SMALL),
        ("onuvs", "fp16", SMALL),
        ("monkey-net", "fp32", SMALL),
        ("lite", "fp32", SMALL_LITE),
        ("lite", "fp16", SMALL_LITE),
        ("lite", "fp32", (*SMALL_LITE, *UNLIKE)),
    ],
)
def test_an_animator_agrees_with_the_model(
    preset: str, precision: Precision, sizes: tuple[str, ...], bundles: Bundles
) -> None:
    """In smoothed relative motion: to a grey level, and in half precision to 45 dB."""
    folder = bundles(preset, precision, *sizes)
    manifest = Bundle.open(folder).manifest
    half = precision == "fp16"
    kinds = {name: tensor.dtype for name, tensor in manifest.tensors().items()}
    feature = "source_skip3" if preset == "monkey-net" else "source_feature"
    assert kinds[feature] == ("float16" if half else "float32")
    assert kinds["deformation"] == "float32"
    assert manifest.tolerances.psnr_db == (45 if half else None)
    model = lively_checkpoint(preset, sizes).model()
    frames = [speckle(128, model.config.channels, seed) for seed in range(4)]
    oracle = family_of(model.config).oracle(model)
    oracle.set_source(frames[0], frames[1])
    with Animator.open(folder, smooth=True, threads=1) as animator:
        animator.set_source(frames[0])
        for i, frame in enumerate(frames[1:]):
            found = animator.animate(frame, i / 30)
            wanted = to_image(oracle.animate(frame, Smoothing()._asdict())["frame"])
            if half:
                assert psnr(found, wanted) > 45
            else:
                assert np.abs(found.astype(int) - wanted).max() <= 1
    assert wanted.std() > 5


def test_an_aligned_bundle_moves_as_its_checkpoint(bundles: Bundles) -> None:
    """Verification itself aligns nothing."""
    folder, checkpoint = bundles("lite", "fp32", *SMALL_LITE), lively_checkpoint("lite", SMALL_LITE)
    found = []
    for animator in (Animator.open(folder, threads=1), Animator(open_session(checkpoint))):
        with animator:
            animator.set_source(speckle(128))
            animator.set_reference(speckle(128, seed=1))
            animator.align()
            by_pictures = animator.read("alignment")
            found.append([by_pictures])
            animator.session.align(by_pictures * np.float32([0.7, 0.9]) + np.float32(0.1))
            for scale in (0.5, 1.0):
                animator.session.set_control("scale", scale)
                animator.animate(speckle(128, seed=2))
                found[-1] += map(animator.read, ("displacement", "shading"))
    for exported, trained in zip(*found, strict=True):
        assert exported == pytest.approx(trained, abs=2e-3)
    assert np.abs(found[0][1]).mean() > 0.01, "something moves"


def test_stages_of_slightly_other_weights_leave_nothing(
    graphs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = graphs("ours-pt", "fp32", *SMALL)
    monkeypatch.setattr(bundle, "export_stage", lambda stage: other[stage.name])
    checkpoint = lively_checkpoint("ours-pt", SMALL)
    for name, weight in checkpoint.weights.items():
        if name.startswith("generator") and weight.ndim == 4:
            weight.mul_(1.02)
    frames = Frames(speckle(128), (speckle(128, seed=1), speckle(128, seed=2)))
    with pytest.raises(ExportError) as caught:
        bundle.export_bundle(checkpoint, "0" * 64, tmp_path / "out", frames)
    assert caught.value.exit_code == 5 and caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "checkpoint.pt"
    lively_checkpoint("ours-pt", SMALL).save(path)
    return path


def test_the_command_says_of_the_bundle_what_it_is_told(
    checkpoint: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "frames").mkdir()
    for i in range(3):
        (tmp_path / "frames" / f"{i}.png").write_bytes(png_bytes(speckle(100, seed=i)))
    (tmp_path / "credits.md").write_text("Thanks to all.")
    (tmp_path / "figures.md").write_text("L1 ratio 0.8")
    out = tmp_path / "out"
    words = ["export", str(checkpoint), "-o", str(out), "--frames", str(tmp_path / "frames")]
    words += ["--name", "mine", "--licence", "CC BY 4.0", "--json"]
    words += ["--data", "more=MIT", "--data", "speckle=CC BY 4.0"]
    words += [f"--{name}={tmp_path / name}.md" for name in ("credits", "figures")]
    assert main(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["frame_levels"] <= 1 and told["psnr_db"] > 48
    # The same weights give the same bytes.
    for path in small.glob("*.onnx"):
        assert path.read_bytes() == (out / path.name).read_bytes()
    manifest = Bundle.open(out).manifest
    assert manifest.name == "mine" and manifest.provenance.licence == "CC BY 4.0"
    assert manifest.provenance.checkpoint_sha256 == sha256_file(checkpoint)
    credits = [(credit.name, credit.licence) for credit in manifest.provenance.data]
    assert credits == [("speckle", "CC BY 4.0"), ("more", "MIT")]
    assert (out / "CREDITS.md").read_text() == "Thanks to all."
    card = (out / "MODEL_CARD.md").read_text()
    assert "L1 ratio 0.8" in card and "CREDITS.md" in card and card.startswith("# mine")


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"checkpoint": "none.pt"}, 3),
        ({"--frames": "none.mp4"}, 6),
        ({"--credits": "none.md"}, 6),
        ({"--precision": "int8"}, 2),
        ({"--data": "no licence"}, 2),
        ({"-o": "."}, 7),  # it holds something
    ],
)
def test_bad_input(
    changes: dict[str, str], status: int, checkpoint: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(checkpoint.parent)
    given = {"checkpoint": checkpoint.name, "-o": "out"} | changes
    words = ["export", given.pop("checkpoint"), *(word for pair in given.items() for word in pair)]
    assert main(words) == status
    assert "error:" in capsys.readouterr().err
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_weights_are_ours_to_give_only_where_the_data_allows_it() -> None:
    checkpoint = dataclasses.replace(lively_checkpoint("ours-pt", SMALL), data=[])
    for licences, expected in (
        (["CC BY 4.0", "CC0"], "Apache-2.0"),
        (["CC BY 4.0", "CC BY-NC 4.0"], "not stated"),
        (["CC BY-SA 4.0"], "not stated"),
        (["MIT-style, research only"], "not stated"),
        ([], "not stated"),
    ):
        data = tuple(DataCredit(str(i), licence) for i, licence in enumerate(licences))
        assert Description(data=data).of(checkpoint).licence == expected
        assert Description(data=data, licence="mine").of(checkpoint).licence == "mine"


def test_model_cards(small: Path) -> None:
    card = (small / "MODEL_CARD.md").read_text(encoding="utf-8")
    for phrase in ("not a medical device", "speckle: CC0", "bladder neck", "12 keypoints"):
        assert phrase in card
    assert "displacement" not in card
    for cells, names in ((8, ("apex", "base")), (0, ())):
        checkpoint = lively_checkpoint("lite", (*SMALL_LITE, f"model.matcher.shading={cells}"))
        chain = MatchingFamily().chain(checkpoint.model())
        chain = dataclasses.replace(
            chain, control=dataclasses.replace(chain.control, landmarks=names)
        )
        card = model_card(checkpoint, Description().of(checkpoint), "fp32", chain)
        assert ("changes of brightness" in card) == bool(cells)
        passed = "displacement 16 x 16 x 2, confidence 16 x 16, shading"
        assert passed in card and ("832 numbers" in card) == bool(cells)
        assert f"by itself: {', '.join(names) or 'none'}" in card
        assert f"up to {MOST_SIDE} pixels" in card, "its frame has layers"
        assert "unturned and unscaled" in card and "eypoint" not in card


# -- the comparison finds what is wrong, wherever it is --------------------------------------------

FRAMES = Frames(speckle(128), (speckle(128, seed=1), speckle(128, seed=2)))


@pytest.fixture
def expected() -> list[Tensors]:
    model = lively_checkpoint("ours-pt", SMALL).model()
    family = family_of(model.config)
    return expected_tensors(family.oracle(model), family.chain(model), FRAMES)


@pytest.mark.parametrize(
    ("name", "precision", "error"),
    [
        ("source_feature", "fp32", 3e-3),
        ("driving_kp_value", "fp32", 3e-3),
        ("target_kp_value", "fp32", 3e-3),
        ("deformation", "fp32", 3e-3),
        ("frame", "fp32", 100),
        ("driving_kp_jacobian", "fp16", np.inf),
    ],
)
def test_a_wrong_tensor_is_named(
    small: Path, expected: list[Tensors], name: str, precision: Precision, error: float
) -> None:
    wrong = expected[-1][name].copy()
    with np.errstate(over="ignore"):  # a grey level may wrap around
        wrong.flat[wrong.size // 2] += wrong.dtype.type(error)
    expected[-1][name] = wrong
    with pytest.raises(ExportError) as caught:
        verify(small, FRAMES, expected, precision)
    # A tensor that a later stage reads is found where it is made, before it is read.
    assert f".{name}" in caught.value.message


@pytest.mark.parametrize("control", ["scale", "dt_seconds", "min_cutoff", "beta", "relative"])
def test_every_control_is_compared(small: Path, control: str) -> None:
    """Here it is the model that ignores one."""
    model = lively_checkpoint("ours-pt", SMALL).model()
    family = family_of(model.config)
    oracle = family.oracle(model)
    hear = oracle.animate

    def animate(frame: Image, controls: dict[str, float]) -> Tensors:
        heard = {name: value for name, value in controls.items() if name != control}
        stated = {name: np.float32([value]) for name, value in controls.items()}
        return hear(frame, heard) | stated

    oracle.animate = animate
    frames = Frames(speckle(128), tuple(speckle(128, seed=seed) for seed in (1, 2, 3)))
    with pytest.raises(ExportError):
        verify(small, frames, expected_tensors(oracle, family.chain(model), frames), "fp32")


def test_agreement_is_measured_and_in_half_precision_judged_in_decibels(
    small: Path, expected: list[Tensors]
) -> None:
    parity = verify(small, FRAMES, expected, "fp16")
    assert parity.frame_levels <= 1 and parity.psnr_db > 60
    assert len(parity.stages) == 4 + 2 + 3 + 2 + 1
    assert max(parity.stages[name] for name in parity.stages if name != "generator.frame") < 1e-4
    noise = np.random.default_rng(0).integers(-6, 7, expected[0]["frame"].shape)
    expected[0]["frame"] = np.clip(expected[0]["frame"] + noise, 0, 255).astype(np.uint8)
    with pytest.raises(ExportError, match="dB"):
        verify(small, FRAMES, expected, "fp16")


def test_frames_of_a_folder(tmp_path: Path) -> None:
    for i in range(10):
        (tmp_path / f"{i}.png").write_bytes(png_bytes(np.full((40, 60), 20 * i, np.uint8)))
    frames = read_frames(tmp_path, 64, 3)
    assert frames.source.shape == (64, 64, 3) and frames.source.max() == 0
    assert [int(frame.max()) for frame in frames.driving] == [20, 80, 120, 180]
    frames = read_frames(tmp_path / "0.png", 64, 1)  # one image drives itself
    assert all(np.array_equal(frame, frames.source) for frame in frames.driving)
    with pytest.raises(InputError):
        read_frames(tmp_path / "none.mp4", 64, 1)


def test_samples_are_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = read_frames(None, 256, 1)
    assert frames.source.shape == (256, 256) and len(frames.driving) == 4
    monkeypatch.setattr(module, "SAMPLES", tmp_path)
    with pytest.raises(ExportError) as caught:
        read_frames(None, 256, 1)
    assert "--frames" in caught.value.hint
