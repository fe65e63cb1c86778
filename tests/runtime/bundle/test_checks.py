"""How stages may hang together, and that nothing of the driving frame gets around the motion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.bundle.checks import check_wiring, most_numbers
from sonomime.runtime.bundle.manifest import (
    Chain,
    ControlInput,
    DisplacementControl,
    ImageFormat,
    Layers,
    Manifest,
    Recurrent,
    Stage,
    Tensor,
)
from sonomime.runtime.support.errors import BundleError


def retyped(manifest: Manifest, stage: str, tensor: str, **changes: Any) -> Manifest:
    """The manifest with one tensor of one stage changed."""

    def edit(each: Stage) -> Stage:
        if each.name != stage:
            return each
        inputs = (replace(t, **changes) if t.name == tensor else t for t in each.inputs)
        outputs = (replace(t, **changes) if t.name == tensor else t for t in each.outputs)
        return replace(each, inputs=tuple(inputs), outputs=tuple(outputs))

    return replace(manifest, stages=tuple(edit(each) for each in manifest.stages))


@pytest.mark.parametrize(
    ("stage", "tensor", "changes", "words"),
    [
        ("generator", "deformation", {"shape": (1, 32, 32, 2)}, "is float32 [1, 32, 32, 2]"),
        ("generator", "deformation", {"dtype": "float16"}, "expected float32 [1, 64, 64, 2]"),
        ("generator", "frame", {"shape": (1, 3, 64, 64)}, "expected uint8 [1, 1, 64, 64]"),
        ("generator", "frame", {"name": "picture"}, "does not make 'frame'"),
        ("generator", "source_feature", {"name": "deformation2"}, "nothing makes its input"),
        ("motion", "deformation", {"name": "source_small"}, "makes 'source_small' again"),
        ("motion", "deformation", {"name": "scale"}, "'scale', which is given"),
        ("source", "source_image", {"dtype": "float32"}, "expected uint8"),
        ("keypoints", "driving_kp_value", {"shape": (1, 4, 2)}, "expected float32 [1, 4, 2]"),
        ("keypoints", "driving_kp_value", {"name": "kp"}, "must begin 'driving_'"),
        ("transfer", "relative", {"shape": (2,)}, "expected float32 [1]"),
        ("transfer", "reference_kp_value", {"name": "reference_kp"}, "nothing makes its input"),
        ("transfer", "next_state", {"shape": (1, 3)}, "differ in shape or dtype"),
        ("transfer", "next_state", {"name": "later"}, "'next_state' -> 'state'"),
    ],
)
def test_wiring_that_does_not_close(
    toy_bundle: Path, stage: str, tensor: str, changes: dict[str, Any], words: str
) -> None:
    manifest = retyped(Bundle.open(toy_bundle).manifest, stage, tensor, **changes)
    with pytest.raises(BundleError) as caught:
        check_wiring(manifest)
    assert words in caught.value.message


def test_stages_in_the_wrong_order(toy_bundle: Path) -> None:
    manifest = Bundle.open(toy_bundle).manifest
    source, keypoints, transfer, motion, generator = manifest.stages
    for order in (
        (keypoints, source, transfer, motion, generator),
        (source, transfer, keypoints, motion, generator),
        (source, keypoints, transfer, generator, motion),
        (source, keypoints, transfer, motion, motion, generator),
    ):
        with pytest.raises(BundleError):
            check_wiring(replace(manifest, stages=order))


def test_roles_are_counted(toy_bundle: Path) -> None:
    manifest = Bundle.open(toy_bundle).manifest
    source, keypoints, transfer, motion, generator = manifest.stages
    for stages in (
        (source, transfer, motion, generator),
        (keypoints, transfer, motion, generator),
        (source, keypoints, replace(keypoints, name="again"), transfer, motion, generator),
        (source, keypoints, replace(transfer, name="moves"), motion, generator),
        (source, keypoints, transfer),
    ):
        with pytest.raises(BundleError):
            check_wiring(replace(manifest, stages=stages))


# -- the leak rule ---------------------------------------------------------------------------------

SIZE = 64


def tensor(name: str, *shape: int, dtype: Any = "float32") -> Tensor:
    return Tensor(name, dtype, shape, "")


def image(name: str) -> Tensor:
    return tensor(name, 1, 1, SIZE, SIZE, dtype="uint8")


DESCRIPTORS = tensor("driving_descriptors", 1, 16, 8, 8)
KEPT = tensor("reference_descriptors", 1, 16, 8, 8)
FEATURE = tensor("source_feature", 1, 8, 32, 32)
DISPLACEMENT = tensor("displacement", 1, 8, 8, 2)
SHADING = tensor("shading", 1, 1, 4, 4)
STATE, NEXT = tensor("state", 1, 8, 8, 2), tensor("next_state", 1, 8, 8, 2)
DEFORMATION = tensor("deformation", 1, 32, 32, 2)
GAIN, OFFSET, GATE = (tensor(name, 1, 1, 32, 32) for name in ("gain", "offset", "gate"))
SCALE = ControlInput("scale", 1.0, (0.0, 10.0), "", "factor of the motion")

SOURCE = Stage("source", "source", (image("source_image"),), (FEATURE,))
OBSERVE = Stage("observe", "observe", (image("driving_frame"),), (DESCRIPTORS,))
REFERENCE = Stage("reference", "reference", (DESCRIPTORS, FEATURE), (KEPT,))
TRANSFER = Stage(
    "transfer", "frame", (KEPT, DESCRIPTORS, FEATURE, tensor("scale", 1), STATE),
    (DISPLACEMENT, SHADING, NEXT),
)  # fmt: skip
MOTION = Stage("motion", "frame", (DISPLACEMENT,), (DEFORMATION,))
GENERATOR = Stage(
    "generator", "frame", (FEATURE, DEFORMATION, SHADING), (image("frame"), GAIN, OFFSET, GATE)
)
MATCHING = Chain(
    image=ImageFormat(SIZE, 1),
    geometry="half_pixel",
    control=DisplacementControl(8, 8, 4, 4),
    stages=(SOURCE, OBSERVE, REFERENCE, TRANSFER, MOTION, GENERATOR),
    controls=(SCALE,),
    recurrent=(Recurrent("next_state", "state"),),
)


def changed(name: str, taken: tuple[Tensor, ...] = (), made: tuple[Tensor, ...] = ()) -> Chain:
    """The matching chain, one stage of which takes and makes more."""
    stages = tuple(
        replace(stage, inputs=(*stage.inputs, *taken), outputs=(*stage.outputs, *made))
        if stage.name == name
        else stage
        for stage in MATCHING.stages
    )
    return replace(MATCHING, stages=stages)


def with_stage(stage: Stage, place: int, taken_by: str, taken: Tensor) -> Chain:
    chain = changed(taken_by, (taken,))
    return replace(chain, stages=(*chain.stages[:place], stage, *chain.stages[place:]))


def test_motion_by_matching_fits_the_contract() -> None:
    check_wiring(MATCHING)
    assert MATCHING.motions() == ("relative",)
    # Without a reference stage the reference's descriptors are a copy of what `observe` made.
    copied = replace(
        MATCHING, stages=tuple(stage for stage in MATCHING.stages if stage is not REFERENCE)
    )
    check_wiring(copied)
    assert copied.copied_references() == [("driving_descriptors", "reference_descriptors")]


DRIVING = image("driving_frame")
FRAME_COPY = tensor("driving_copy", 1, SIZE, SIZE)
LEAKS: dict[str, Callable[[], Chain]] = {
    "the generator takes the driving frame": lambda: changed("generator", (DRIVING,)),
    "so does transfer": lambda: changed("transfer", (DRIVING,)),
    "so does the source": lambda: changed("source", (DRIVING,)),
    "the reference stage takes the frame": lambda: changed("reference", (DRIVING,)),
    "observe passes the frame on under another name": lambda: replace(
        changed("generator", (FRAME_COPY,)),
        stages=tuple(
            replace(stage, outputs=(*stage.outputs, FRAME_COPY))
            if stage.name == "observe"
            else stage
            for stage in changed("generator", (FRAME_COPY,)).stages
        ),
    ),
    "observe makes what does not say driving": lambda: changed(
        "observe", made=(tensor("texture", 1, SIZE, SIZE),)
    ),
    "observe makes a reference": lambda: changed(
        "observe", made=(tensor("reference_texture", 1, SIZE, SIZE),)
    ),
    "observe takes the source too": lambda: changed("observe", (FEATURE,)),
    "the generator takes descriptors": lambda: changed("generator", (DESCRIPTORS,)),
    "motion takes descriptors": lambda: changed("motion", (DESCRIPTORS,)),
    "the generator takes the reference": lambda: changed("generator", (KEPT,)),
    "the generator takes a copied reference": lambda: replace(
        changed("generator", (KEPT,)),
        stages=tuple(
            stage for stage in changed("generator", (KEPT,)).stages if stage.role != "reference"
        ),
    ),
    "the reference stage makes what does not say reference": lambda: changed(
        "reference", made=(tensor("texture", 1, SIZE, SIZE),)
    ),
    "a stage before transfer carries descriptors over": lambda: with_stage(
        Stage("carry", "frame", (DESCRIPTORS,), (tensor("carried", 1, SIZE),)),
        3, "generator", tensor("carried", 1, SIZE),
    ),
    "transfer passes on more than motion": lambda: changed(
        "transfer", made=(tensor("extra", most_numbers(SIZE) - 128 - 16 + 1),)
    ),
    "transfer passes it on in two": lambda: changed(
        "transfer", made=(tensor("a", 100), tensor("b", 100))
    ),
    "transfer makes the frame itself": lambda: replace(
        MATCHING,
        stages=(
            SOURCE, OBSERVE, REFERENCE,
            replace(TRANSFER, outputs=(*TRANSFER.outputs, image("frame"))),
        ),
    ),
    "the generator takes transfer's next state": lambda: changed("generator", (NEXT,)),
    "the generator takes transfer's state": lambda: changed("generator", (STATE,)),
    "a state leads around transfer": lambda: replace(
        changed("generator", (tensor("old", 1, 16, 8, 8),)),
        recurrent=(*MATCHING.recurrent, Recurrent("driving_descriptors", "old")),
    ),
    "transfer's output becomes a state of the generator": lambda: replace(
        changed("generator", (tensor("old", 1, 8, 8, 2),)),
        recurrent=(*MATCHING.recurrent, Recurrent("displacement", "old")),
    ),
    "the generator gathers frames in a state of its own": lambda: replace(
        changed("generator", (tensor("old", SIZE, SIZE),), (tensor("gathered", SIZE, SIZE),)),
        recurrent=(*MATCHING.recurrent, Recurrent("gathered", "old")),
    ),
    "a source stage is named like driving": lambda: changed(
        "source", made=(tensor("driving_texture", 1, SIZE),)
    ),
    "a frame stage makes a reference": lambda: changed(
        "motion", made=(tensor("reference_texture", 1, SIZE),)
    ),
    "the source takes a state": lambda: replace(
        changed("source", (tensor("old", 1, 8, 8, 2),)),
        recurrent=(*MATCHING.recurrent, Recurrent("displacement", "old")),
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", LEAKS)
def test_a_bundle_that_passes_the_driving_frame_around_the_motion_is_refused(way: str) -> None:
    with pytest.raises(BundleError):
        check_wiring(LEAKS[way]())


def test_as_much_as_the_rule_allows_may_pass() -> None:
    check_wiring(changed("transfer", made=(tensor("extra", most_numbers(SIZE) - 128 - 16),)))


# -- what carries the motion, and layers -----------------------------------------------------------


@pytest.mark.parametrize(
    "control",
    [DisplacementControl(16, 8, 4, 4), DisplacementControl(8, 8, 8, 8)],
)
def test_the_control_is_among_the_tensors(control: DisplacementControl) -> None:
    with pytest.raises(BundleError):
        check_wiring(replace(MATCHING, control=control))


def test_the_rule_is_narrower_for_small_pictures() -> None:
    """4,096 numbers are the whole of a picture of 64 x 64."""
    assert [most_numbers(size) for size in (16, 64, 128, 256, 512)] == [16, 256, 1024, 4096, 4096]


def test_displacements_want_a_reference() -> None:
    stages = tuple(
        replace(stage, inputs=tuple(t for t in stage.inputs if t is not KEPT))
        for stage in MATCHING.stages
        if stage is not REFERENCE
    )
    with pytest.raises(BundleError):
        check_wiring(replace(MATCHING, stages=stages))


def test_displacements_have_no_absolute_motion() -> None:
    relative = ControlInput("relative", 1.0, (0.0, 1.0), "", "")
    with pytest.raises(BundleError):
        check_wiring(replace(MATCHING, controls=(SCALE, relative)))


@pytest.mark.parametrize("name", ["driving_frame", "source_image", "state", "reference_scale"])
def test_names_that_mean_something_else_are_no_controls(name: str) -> None:
    control = ControlInput(name, 1.0, (0.0, 10.0), "", "")
    stages = changed("transfer", (tensor(name, 1),)).stages if name == "reference_scale" else None
    with pytest.raises(BundleError):
        check_wiring(replace(MATCHING, controls=(SCALE, control), stages=stages or MATCHING.stages))


def test_a_control_that_no_stage_takes_is_refused() -> None:
    idle = ControlInput("shading", 1.0, (0.0, 1.0), "", "")
    with pytest.raises(BundleError):
        check_wiring(replace(MATCHING, controls=(SCALE, idle)))


def test_layers_are_made_of_every_frame_in_their_shapes() -> None:
    layers = Layers("layer_deformation", "deformation", "gain", "offset", "gate")
    deformation = tensor("layer_deformation", 1, 32, 32, 2)
    check_wiring(replace(changed("generator", made=(deformation,)), layers=layers))
    for other in (
        replace(layers, gain="nothing"),
        replace(layers, stiff="gate"),
        replace(layers, gate="layer_deformation"),
        replace(layers, deformation="gain"),
    ):
        with pytest.raises(BundleError):
            check_wiring(replace(changed("generator", made=(deformation,)), layers=other))
