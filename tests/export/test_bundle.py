"""From a checkpoint to a bundle that the runtime opens and that computes what the model does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from lively import SMALL, SMALL_LITE, lively_checkpoint, speckle

from sonomime import __version__
from sonomime.export.bundle import export_bundle
from sonomime.export.card import Description, model_card
from sonomime.export.verify import Frames
from sonomime.runtime import Animator, Smoothing
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.bundle.manifest import DataCredit, DisplacementControl
from sonomime.runtime.compose import MOST_SIDE
from sonomime.runtime.media.frames import read_image
from sonomime.runtime.support.errors import ExportError, OutputError
from sonomime.training.models.base import Oracle, StageModule
from sonomime.training.models.keypoints import family
from sonomime.training.models.keypoints.oracle import KeypointOracle
from sonomime.training.models.keypoints.stages import build_stages
from sonomime.training.models.keypoints.transfer import CONTROLS, TransferStage
from sonomime.training.models.matching.family import MatchingFamily
from sonomime.training.models.matching.oracle import MatchingOracle

Bundles = Callable[..., Path]
FRAMES = Frames(speckle(128), (speckle(128, seed=1), speckle(128, seed=2)))


@pytest.fixture(scope="module")
def small(bundles: Bundles) -> Path:
    return bundles("ours-pt", "fp32", *SMALL)


def test_what_is_in_it(small: Path) -> None:
    opened = Bundle.open(small)
    manifest = opened.manifest
    assert {path.name for path in small.iterdir()} == {"manifest.json"} | {
        entry.file for entry in manifest.digests()
    }
    assert (manifest.name, manifest.preset, manifest.precision) == ("ours-pt", "ours-pt", "fp32")
    assert manifest.created_with == __version__
    assert (manifest.image.size, manifest.image.channels) == (128, 1)
    assert [(p.index, p.name) for p in manifest.control.supervised] == [
        (10, "symphysis"), (11, "bladder neck"),
    ]  # fmt: skip
    provenance = manifest.provenance
    assert provenance.steps == 7 and provenance.checkpoint_sha256 == "0" * 64
    assert [(credit.name, credit.licence) for credit in provenance.data] == [("speckle", "CC0")]
    assert manifest.tolerances.stage_abs == 1e-4 and manifest.tolerances.frame_levels == 1


def test_model_card(small: Path) -> None:
    card = (small / "MODEL_CARD.md").read_text(encoding="utf-8")
    for phrase in (
        "not a medical device",
        "Training and simulation only",
        "speckle: CC0",
        "ours-pt",
    ):
        assert phrase in card
    assert "bladder neck" in card and "evaluate" in card
    assert "12 keypoints" in card and "displacement" not in card


def test_golden_sample_is_what_the_animator_makes(small: Path) -> None:
    golden = Bundle.open(small).manifest.golden
    entries = (golden.source, golden.reference, golden.driving, golden.output)
    source, reference, driving, output = (read_image(small / entry.file) for entry in entries)
    assert np.array_equal(source, speckle(128)) and golden.motion == "relative"
    assert np.array_equal(reference, speckle(128, seed=1))
    assert np.array_equal(driving, speckle(128, seed=2))
    with Animator.open(small, threads=1) as animator:
        animator.set_source(source)
        animator.set_reference(reference)
        found = animator.animate(driving)
    assert np.abs(found.astype(int) - output).max() <= 1


def assert_agrees(folder: Path, chain: Oracle) -> None:
    """Smoothed relative motion, by the Animator and by the model itself."""
    frames = [speckle(128, seed=seed) for seed in range(4)]
    chain.set_source(frames[0], frames[1])
    smoothing = Smoothing()._asdict()
    with Animator.open(folder, smooth=True, threads=1) as animator:
        animator.set_source(frames[0])
        for i, frame in enumerate(frames[1:]):
            found = animator.animate(frame, i / 30)
            wanted = chain.animate(frame, smoothing)["frame"][0, 0]
            assert np.abs(found.astype(int) - wanted).max() <= 1
    assert wanted.std() > 10


def test_animator_agrees_with_the_model_in_relative_motion(small: Path) -> None:
    chain = KeypointOracle(lively_checkpoint("ours-pt", SMALL).model())
    assert_agrees(small, chain)


def exported(out: Path, description: Description | None = None) -> None:
    checkpoint = lively_checkpoint("ours-pt", SMALL)
    export_bundle(checkpoint, "0" * 64, out, FRAMES, "fp32", description)


def tampered(stage: StageModule) -> None:
    for module in stage.module.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data.mul_(1.02)


@pytest.mark.parametrize("name", ["keypoints", "generator"])
def test_weights_that_were_changed_on_the_way_leave_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(model: object, precision: object) -> list[StageModule]:
        stages = build_stages(model, precision)  # type: ignore[arg-type]
        tampered(next(stage for stage in stages if stage.name == name))
        return stages

    monkeypatch.setattr(family, "build_stages", build)
    with pytest.raises(ExportError, match=name) as caught:
        exported(tmp_path / "out")
    assert caught.value.exit_code == 5 and caught.value.hint
    assert list(tmp_path.iterdir()) == []


class Deaf(TransferStage):
    """Pays no heed to one of its scalars."""

    def __init__(self, control: str) -> None:
        super().__init__()
        self.place = 6 + [each.name for each in CONTROLS].index(control)
        self.value = CONTROLS[self.place - 6].default

    def forward(self, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        changed = list(given)
        changed[self.place] = 0 * given[self.place] + self.value
        return super().forward(*changed)


@pytest.mark.parametrize("control", ["scale", "dt_seconds", "min_cutoff", "relative"])
def test_a_bundle_that_ignores_a_control_is_found(
    control: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(model: object, precision: object) -> list[StageModule]:
        stages = build_stages(model, precision)  # type: ignore[arg-type]
        return [
            dataclasses.replace(stage, module=Deaf(control)) if stage.name == "transfer" else stage
            for stage in stages
        ]

    monkeypatch.setattr(family, "build_stages", build)
    checkpoint = lively_checkpoint("ours-pt", SMALL)
    frames = Frames(speckle(128), tuple(speckle(128, seed=seed) for seed in (1, 2, 3)))
    with pytest.raises(ExportError):
        export_bundle(checkpoint, "0" * 64, tmp_path / "out", frames)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        exported(tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine"


def test_same_checkpoint_same_bytes_and_what_it_says_of_itself(small: Path, tmp_path: Path) -> None:
    told = Description(
        name="mine",
        licence="CC BY 4.0",
        credits="Thanks to all.",
        figures="L1 ratio 0.8",
        note="a test",
        data=(DataCredit("more", "MIT"), DataCredit("speckle", "CC BY 4.0")),
    )
    exported(tmp_path / "again", told)
    for path in small.glob("*.onnx"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    for path in small.glob("*.png"):
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    manifest = Bundle.open(tmp_path / "again").manifest
    assert manifest.name == "mine" and manifest.provenance.licence == "CC BY 4.0"
    assert manifest.provenance.note == "a test"
    credits = [(credit.name, credit.licence) for credit in manifest.provenance.data]
    assert credits == [("speckle", "CC BY 4.0"), ("more", "MIT")]
    assert (tmp_path / "again" / "CREDITS.md").read_text() == "Thanks to all."
    card = (tmp_path / "again" / "MODEL_CARD.md").read_text()
    assert "L1 ratio 0.8" in card and "CREDITS.md" in card and card.startswith("# mine")
    plain = dataclasses.replace(
        manifest, name="ours-pt", files=(), provenance=Bundle.open(small).manifest.provenance
    )
    assert plain == dataclasses.replace(Bundle.open(small).manifest, files=())


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        (["CC BY 4.0", "CC0"], "Apache-2.0"),
        (["CC BY 4.0", "CC BY-NC 4.0"], "not stated"),
        (["CC BY-SA 4.0"], "not stated"),
        (["MIT-style, research only"], "not stated"),
        ([], "not stated"),
    ],
)
def test_weights_are_ours_to_give_only_where_the_data_allows_it(
    licences: list[str], expected: str
) -> None:
    checkpoint = dataclasses.replace(lively_checkpoint("ours-pt", SMALL), data=[])
    data = tuple(DataCredit(str(i), licence) for i, licence in enumerate(licences))
    assert Description(data=data).of(checkpoint).licence == expected
    assert Description(data=data, licence="mine").of(checkpoint).licence == "mine"


def test_default_size(bundles: Bundles) -> None:
    """The preset as it is given away has to stay within 15 MB."""
    folder = bundles("lite")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 15e6


def test_the_card_of_a_bundle_that_moves_by_displacements(bundles: Bundles) -> None:
    """What passes, and the limits of that motion; nothing of keypoints."""
    card = (bundles("lite", "fp32", *SMALL_LITE) / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "832 numbers: displacement 16 x 16 x 2, confidence 16 x 16, shading 8 x 8" in card
    assert "displacements from a reference driving frame, 16 x 16 cells" in card
    assert f"up to {MOST_SIDE} pixels" in card, "its frame has layers"
    for phrase in ("unturned and unscaled", "doubtful", "brightness", "by itself: none"):
        assert phrase in card
    assert "eypoint" not in card


@pytest.mark.parametrize(("cells", "said"), [(8, True), (0, False)])
def test_a_card_speaks_of_shading_only_where_there_is_some(cells: int, said: bool) -> None:
    checkpoint = lively_checkpoint("lite", (*SMALL_LITE, f"model.matcher.shading={cells}"))
    chain = MatchingFamily().chain(checkpoint.model())
    card = model_card(checkpoint, Description().of(checkpoint), "fp32", chain)
    assert ("changes of brightness" in card) == said


@pytest.mark.parametrize(
    ("names", "said"), [(("apex", "base"), "by itself: apex, base"), ((), "by itself: none")]
)
def test_a_card_names_the_landmarks_that_are_found(names: tuple[str, ...], said: str) -> None:
    checkpoint = lively_checkpoint("lite", SMALL_LITE)
    chain = MatchingFamily().chain(checkpoint.model())
    chain = dataclasses.replace(chain, control=dataclasses.replace(chain.control, landmarks=names))
    assert said in model_card(checkpoint, Description().of(checkpoint), "fp32", chain)


def test_a_bundle_of_matching(bundles: Bundles) -> None:
    """What carries the motion, what the frame is made of, and that it does what the model does."""
    folder = bundles("lite", "fp32", *SMALL_LITE)
    manifest = Bundle.open(folder).manifest
    assert isinstance(manifest.control, DisplacementControl) and manifest.layers is not None
    assert manifest.control.grid_height == 16 and manifest.motions() == ("relative",)
    chain = MatchingOracle(lively_checkpoint("lite", SMALL_LITE).model())
    assert_agrees(folder, chain)


def test_half_precision(bundles: Bundles) -> None:
    folder = bundles("lite", "fp16")
    manifest = Bundle.open(folder).manifest
    assert manifest.precision == "fp16" and manifest.tolerances.psnr_db == 45
    assert manifest.tensors()["source_feature"].dtype == "float16"
    assert manifest.tensors()["deformation"].dtype == "float32"
