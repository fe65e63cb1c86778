"""Manifest checks that field types cannot express: ranges, stage wiring, and the leak rule.

Stages are wired by the names of their tensors. An input is the output of an earlier stage, the
source image, the driving frame, a control, a recurrent state, or `reference_X`: what a `reference`
stage made, else what stage `observe` made as `driving_X` of the reference frame.

The leak rule: the picture may follow the driving frame's motion and must not show its anatomy. So
the driving frame is for `observe` alone, what `observe` and `reference` stages make of it is for
`transfer` alone, and `transfer` passes on few numbers (`most_numbers`). That limits what can pass;
`sonomime evaluate` measures what does.
"""

from __future__ import annotations

import re
from math import prod

from ..support.dataclass_parser import StrictError
from ..support.errors import BundleError
from ..support.table import NAME_HINT, is_name
from .manifest import (
    ALIGNMENT,
    CONFIDENCE,
    DRIVING,
    DRIVING_FRAME,
    FRAME,
    LANDMARK_IMAGE,
    LANDMARKS,
    MANIFEST,
    QUALITY,
    REFERENCE,
    SOURCE_IMAGE,
    TRANSFER,
    Chain,
    ControlInput,
    DisplacementControl,
    KeypointControl,
    Manifest,
    Role,
    Stage,
    Tensor,
)

ROLES: tuple[Role, ...] = ("landmarks", "source", "observe", "reference", "frame")

MAX_ELEMENTS = 1 << 28  # of one tensor: 1 GiB of float32
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}", re.ASCII)
_TENSOR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)

# By whom the inputs of a role's stages may be made. `transfer` takes from all.
_MAKERS: dict[Role, tuple[Role, ...]] = {
    "source": ("source",),
    "observe": (),
    "reference": ("source", "observe"),
    "frame": ("source", "frame"),
    "landmarks": (),
}

_TAKERS: dict[str, Role] = {
    SOURCE_IMAGE: "source",
    DRIVING_FRAME: "observe",
    LANDMARK_IMAGE: "landmarks",
}
"""By whom an image may be taken; `frame` stages take the rest of what is given."""

Kind = tuple[str, tuple[int, ...]]


def most_numbers(size: int) -> int:
    """Numbers that `transfer` may pass on per frame, its states aside: 4,096, and no more than one
    for 16 pixels of a square picture of that size."""
    return min(4096, size * size // 16)


def check_values(manifest: Manifest) -> None:
    """Check ranges, plain file names, digests and tensor names.

    Raises:
        StrictError: naming the value.
    """
    if not 16 <= manifest.image.size <= 4096:
        raise StrictError("image.size", "expected 16 to 4096")
    control = manifest.control
    if isinstance(control, KeypointControl):
        if not 1 <= control.count <= 1000:
            raise StrictError("control.count", "expected 1 to 1000")
        for i, point in enumerate(control.supervised):
            if not 0 <= point.index < control.count:
                raise StrictError(f"control.supervised[{i}].index", "there is no such keypoint")
        names = [point.name for point in control.supervised]
    else:
        names = [*control.landmarks]
        if min(control.grid_height, control.grid_width) < 1:
            raise StrictError("control", "a grid has at least one row and one column")
        shading = control.shading_height, control.shading_width
        if min(shading) < 0 or (max(shading) > 0) != (min(shading) > 0):
            raise StrictError("control", "a shading has rows and columns, or neither")
    for name in names:
        if not is_name(name):
            raise StrictError("control", f"{name[:40]!r} cannot be a name", NAME_HINT)
    _check_controls(manifest.controls)
    _check_files(manifest)
    for i, stage in enumerate(manifest.stages):
        for tensor in (*stage.inputs, *stage.outputs):
            where = f"stages[{i}] ({stage.name[:40]}), tensor {tensor.name[:40]!r}"
            if not _TENSOR_NAME.fullmatch(tensor.name):
                raise StrictError(where, "a name has letters, digits and underscores only")
            shape = tensor.shape
            if len(shape) > 8 or min(shape, default=1) < 1 or prod(shape) > MAX_ELEMENTS:
                raise StrictError(where, f"impossible shape {list(shape)[:8]}")
    if manifest.tolerances.frame_levels is None and manifest.tolerances.psnr_db is None:
        raise StrictError(
            "tolerances", "frame_levels or psnr_db has to say what the frame keeps to"
        )
    if manifest.golden.motion not in manifest.motions():
        raise StrictError("golden.motion", "the stages cannot make this motion")


def _check_controls(controls: tuple[ControlInput, ...]) -> None:
    for i, control in enumerate(controls):
        low, high = control.range
        if not _TENSOR_NAME.fullmatch(control.name):
            raise StrictError(f"controls[{i}].name", "letters, digits and underscores only")
        if not low <= control.default <= high:
            raise StrictError(f"controls[{i}]", "the default is outside of the range")
    if len({control.name for control in controls}) != len(controls):
        raise StrictError("controls", "two controls have one name")


def _check_files(manifest: Manifest) -> None:
    seen: dict[str, str] = {}
    for entry in manifest.digests():
        if not _PLAIN_NAME.fullmatch(entry.file) or entry.file == MANIFEST:
            shown = ascii(entry.file[:100])
            raise StrictError("", f"{shown} is not a plain file name", "no folders, no `..`")
        if not _SHA256.fullmatch(entry.sha256):
            raise StrictError(entry.file, "sha256 is not 64 lower-case hexadecimal digits")
        if seen.setdefault(entry.file, entry.sha256) != entry.sha256:
            raise StrictError(entry.file, "named twice with different digests")


def check_wiring(chain: Chain) -> None:
    """Check roles, order, names, shapes and dtypes of the whole chain, and the leak rule.

    Raises:
        BundleError: naming the stage and the tensor.
    """
    _check_roles(chain)
    image: Kind = ("uint8", (1, chain.image.channels, chain.image.size, chain.image.size))
    given: dict[str, Kind] = {control.name: ("float32", (1,)) for control in chain.controls}
    given |= {SOURCE_IMAGE: image, DRIVING_FRAME: image, LANDMARK_IMAGE: image}
    if isinstance(chain.control, DisplacementControl):
        grid = chain.control.grid_height, chain.control.grid_width
        given[ALIGNMENT] = ("float32", (1, *grid, 2))
    copies = {kept: made for made, kept in chain.copied_references()}
    states = {pair.to: pair.from_ for pair in chain.recurrent}
    if len(states) != len(chain.recurrent):
        raise BundleError("two recurrent outputs become one input")
    for name in (*(control.name for control in chain.controls), *states):
        images = name in (SOURCE_IMAGE, DRIVING_FRAME, LANDMARK_IMAGE, ALIGNMENT, FRAME)
        if images or name.startswith((DRIVING, REFERENCE)) or (name in given and name in states):
            raise BundleError(f"neither a control nor a state can be called {name!r}")
    produced: dict[str, tuple[Tensor, Stage]] = {}
    for stage in chain.stages:
        if len({tensor.name for tensor in stage.inputs}) != len(stage.inputs):
            raise BundleError(f"stage {stage.name!r} takes one input twice")
        for tensor in stage.inputs:
            name = tensor.name
            if name in produced:
                made, maker = produced[name]
                _check_taken(stage, name, maker, name in states.values())
                _must_be(stage, tensor, (made.dtype, made.shape))
            elif name in given:
                _check_given(stage, name)
                _must_be(stage, tensor, given[name])
            elif name in copies and copies[name] in produced:
                made, maker = produced[copies[name]]
                if stage.name != TRANSFER:
                    raise _leak(stage, f"takes {name!r}, which is for {TRANSFER!r} alone")
                _must_be(stage, tensor, (made.dtype, made.shape))
            elif name in states:
                if stage.name != TRANSFER:
                    raise _leak(stage, f"keeps a state, {name!r}: only {TRANSFER!r} may")
            else:
                raise BundleError(
                    f"stage {stage.name!r}: nothing makes its input {name!r}",
                    "an input is an earlier output, the image or frame, a control, a reference or "
                    "a state",
                )
        for tensor in stage.outputs:
            if tensor.name in produced:
                raise BundleError(f"stage {stage.name!r} makes {tensor.name!r} again")
            if tensor.name in given or tensor.name in states:
                raise BundleError(f"stage {stage.name!r} makes {tensor.name!r}, which is given")
            _check_prefix(stage, tensor)
            produced[tensor.name] = (tensor, stage)
    taken = {tensor.name for stage in chain.stages for tensor in stage.inputs}
    if idle := [control.name for control in chain.controls if control.name not in taken]:
        raise BundleError(f"no stage takes the control {idle[0]!r}")
    _check_transfer(chain, states)
    _check_control(chain)
    _check_last(chain.stages[-1], chain, image)


def _check_roles(chain: Chain) -> None:
    names = [stage.name for stage in chain.stages]
    if len(set(names)) != len(names):
        raise BundleError("two stages have one name")
    counts = {role: len(chain.of_role(role)) for role in ROLES}
    most_one = max(counts["reference"], counts["landmarks"]) <= 1
    if not (counts["source"] and counts["observe"] == 1 and most_one):
        raise BundleError(
            "a bundle has stages of role `source`, one `observe`, at most one `reference`, at most "
            "one `landmarks`, and `frame`; this one has "
            + ", ".join(f"{count} {role}" for role, count in counts.items()),
            "export it again",
        )
    roles = [ROLES.index(stage.role) for stage in chain.stages]
    if roles != sorted(roles):
        raise BundleError("stages are listed out of order: " + ", ".join(ROLES))
    if TRANSFER not in [stage.name for stage in chain.of_role("frame")]:
        raise BundleError(f"there is no stage {TRANSFER!r} of role `frame`", "export it again")
    if names[-1] == TRANSFER:
        raise BundleError(f"{TRANSFER!r} is the last stage: nothing makes a picture of the motion")
    observe = chain.of_role("observe")[0]
    if [tensor.name for tensor in observe.inputs] != [DRIVING_FRAME]:
        raise BundleError(f"stage {observe.name!r} must take {DRIVING_FRAME!r} alone")


def _check_taken(stage: Stage, name: str, maker: Stage, is_state: bool) -> None:
    """May this stage take what `maker` made?"""
    if is_state:
        raise _leak(stage, f"takes {name!r}, a state of {maker.name!r} for itself alone")
    if maker.role == "landmarks" or (
        stage.name != TRANSFER and maker.role not in _MAKERS[stage.role]
    ):
        raise _leak(stage, f"takes {name!r} of stage {maker.name!r}")


def _check_given(stage: Stage, name: str) -> None:
    """May this stage take an image or a control?"""
    wanted = _TAKERS.get(name, "frame")
    if name == ALIGNMENT and stage.name != TRANSFER:
        raise BundleError(f"stage {stage.name!r} takes {name!r}, which is for {TRANSFER!r} alone")
    if stage.role != wanted:
        what = f"takes {name!r}, which is for stages of role `{wanted}`"
        if name == DRIVING_FRAME:
            raise _leak(stage, what)
        raise BundleError(f"stage {stage.name!r} {what}")


def _check_prefix(stage: Stage, tensor: Tensor) -> None:
    prefixes = {"observe": DRIVING, "reference": REFERENCE}
    wanted = prefixes.get(stage.role)
    if wanted is not None and not tensor.name.startswith(wanted):
        raise BundleError(f"output {tensor.name!r} of {stage.name!r} must begin {wanted!r}")
    if wanted is None and tensor.name.startswith(tuple(prefixes.values())):
        raise BundleError(f"output {tensor.name!r} of {stage.name!r} has another role's prefix")


def _check_transfer(chain: Chain, states: dict[str, str]) -> None:
    (transfer,) = (stage for stage in chain.stages if stage.name == TRANSFER)
    made = {tensor.name: tensor for tensor in transfer.outputs}
    taken = {tensor.name: tensor for tensor in transfer.inputs}
    for to, from_ in states.items():
        if from_ not in made or to not in taken:
            raise BundleError(f"recurrent state {from_!r} -> {to!r} is not one of {TRANSFER!r}")
        if (taken[to].dtype, taken[to].shape) != (made[from_].dtype, made[from_].shape):
            raise BundleError(f"recurrent state {from_!r} and {to!r} differ in shape or dtype")
    passed = sum(prod(t.shape) for t in transfer.outputs if t.name not in states.values())
    allowed = most_numbers(chain.image.size)
    if passed > allowed:
        raise _leak(transfer, f"passes on {passed} numbers a frame, {allowed} are allowed")


def _check_control(chain: Chain) -> None:
    """What carries the motion must be among the tensors, in its shape."""
    control, tensors = chain.control, chain.tensors()
    transfer = next(stage for stage in chain.stages if stage.name == TRANSFER)
    if isinstance(control, KeypointControl):
        points: Kind = ("float32", (1, control.count, 2))
        _must_make(chain.of_role("observe")[0], DRIVING + "kp_value", points)
        if source := tensors.get("source_kp_value"):
            _must_be(chain.of_role("source")[0], source, points)
        return
    _check_landmarks(chain, control.landmarks)
    rows, columns = control.grid_height, control.grid_width
    _must_make(transfer, "displacement", ("float32", (1, rows, columns, 2)))
    if CONFIDENCE in tensors:
        _must_make(transfer, CONFIDENCE, ("float32", (1, 1, rows, columns)))
    if control.shading_height:
        shape = (1, 1, control.shading_height, control.shading_width)
        _must_make(transfer, "shading", ("float32", shape))
    if any(given.name == "relative" for given in chain.controls):
        raise BundleError("displacements are always relative: there can be no control `relative`")
    if chain.motions() != ("relative",):
        raise BundleError("displacements are relative to a reference: no stage takes one")


def _check_landmarks(chain: Chain, names: tuple[str, ...]) -> None:
    stages = chain.of_role("landmarks")
    if bool(names) != bool(stages) or len(set(names)) != len(names):
        raise BundleError(
            f"control.landmarks names {len(names)} landmarks, {len(stages)} stages find any"
        )
    for stage in stages:
        _must_make(stage, LANDMARKS, ("float32", (1, len(names), 3)))


def _check_last(stage: Stage, chain: Chain, image: Kind) -> None:
    _must_make(stage, FRAME, image)
    if quality := chain.tensors().get(QUALITY):
        _must_be(stage, quality, ("float32", (1, 4)))
    if chain.layers is None:
        return
    made = {t.name: t for each in chain.of_role("frame") for t in each.outputs}
    for layer, name in vars(chain.layers).items():
        tensor = made.get(name)
        if tensor is None or tensor.dtype != "float32" or not _is_layer(layer, tensor, chain):
            raise BundleError(
                f"layers.{layer}: no stage makes {name!r} of every frame in a layer's shape"
            )


def _is_layer(layer: str, tensor: Tensor, chain: Chain) -> bool:
    if len(tensor.shape) != 4 or tensor.shape[0] != 1:
        return False
    if layer in ("deformation", "stiff"):
        return tensor.shape[3] == 2
    return tensor.shape[1] in (1, chain.image.channels)


def _must_make(stage: Stage, name: str, kind: Kind) -> None:
    if (found := {tensor.name: tensor for tensor in stage.outputs}.get(name)) is None:
        raise BundleError(f"stage {stage.name!r} does not make {name!r}")
    _must_be(stage, found, kind)


def _must_be(stage: Stage, tensor: Tensor, expected: Kind) -> None:
    if (tensor.dtype, tensor.shape) != expected:
        dtype, shape = expected
        raise BundleError(
            f"stage {stage.name!r}: {tensor.name!r} is {tensor.dtype} {list(tensor.shape)}, "
            f"expected {dtype} {list(shape)}"
        )


def _leak(stage: Stage, what: str) -> BundleError:
    hint = "it is refused: else the driving anatomy could get into the picture"
    return BundleError(f"stage {stage.name!r} {what}", hint)
