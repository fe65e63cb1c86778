"""Manifest checks that field types cannot express, mainly stage wiring.

Stages are wired by the names of their tensors. An input is the output of an earlier stage, an
image, the alignment, a control, a recurrent state, or `reference_X`: the output of a `reference`
stage, else a copy of what stage `observe` made as `driving_X` of the reference frame.

The leak rule: the picture may follow the driving frame's motion but must not show its anatomy. So
only `observe` reads the driving frame, only `transfer` reads what `observe` and `reference` stages
make of it, and `transfer` passes on few numbers (`most_numbers`). This limits what can pass;
`sonomime evaluate` measures what does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import prod
from typing import Any

from ..support.dataclass_parser import StrictError, plain
from ..support.errors import BundleError
from ..support.printable import printable
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
    DisplacementControl,
    KeypointControl,
    Manifest,
    Role,
    Stage,
    Tensor,
)

ROLES: tuple[Role, ...] = ("landmarks", "source", "observe", "reference", "frame")
"""In the order in which stages are listed."""

MAX_ELEMENTS = 1 << 28  # of one tensor: 1 GiB of float32
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}", re.ASCII)
_TENSOR_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)

Kind = tuple[str, tuple[int, ...]]
Takers = tuple[str, ...]
"""Roles whose stages may take a tensor. `transfer` counts as a role of its own here."""

_TAKERS: dict[str, Takers] = {
    "landmarks": (),
    "source": ("source", "reference", "frame", TRANSFER),
    "observe": ("reference", TRANSFER),
    "reference": (TRANSFER,),
    "frame": ("frame", TRANSFER),
    TRANSFER: ("frame",),
}
"""Who may take what stages of a role make."""

_PREFIXES = {"observe": DRIVING, "reference": REFERENCE}
_RESERVED = (SOURCE_IMAGE, LANDMARK_IMAGE, ALIGNMENT, FRAME)


def most_numbers(size: int) -> int:
    """How many numbers `transfer` may pass on per frame, its states aside: one for each 16 pixels
    of a square picture of that size, at most 4,096."""
    return min(4096, size * size // 16)


def check_values(manifest: Manifest) -> None:
    """Check ranges, texts, file names, digests and tensor names.

    Raises:
        StrictError: naming the value.
    """
    for text in _texts(plain(manifest)):
        if printable(text) != text or "\n" in text:
            raise StrictError("", f"the text {text[:100]!a} has control characters")
    if not 16 <= manifest.image.size <= 4096:
        raise StrictError("image.size", "expected 16 to 4096")
    for name in _landmark_names(manifest.control):
        if not is_name(name):
            raise StrictError("control", f"{name[:40]!r} cannot be a name", NAME_HINT)
    for i, control in enumerate(manifest.controls):
        low, high = control.range
        if not _TENSOR_NAME.fullmatch(control.name):
            raise StrictError(f"controls[{i}].name", "letters, digits and underscores only")
        if not low <= control.default <= high:
            raise StrictError(f"controls[{i}]", "the default is outside of the range")
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
        raise StrictError("tolerances", "frame_levels or psnr_db must be given")
    if manifest.golden.motion not in manifest.motions():
        raise StrictError("golden.motion", "the stages cannot make this motion")


def _texts(data: Any) -> Iterator[str]:
    """Every text in plain data."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict | list):
        for each in data.values() if isinstance(data, dict) else data:
            yield from _texts(each)


def _landmark_names(control: KeypointControl | DisplacementControl) -> list[str]:
    """The names that a control gives, after its numbers are checked."""
    if isinstance(control, DisplacementControl):
        if min(control.grid_height, control.grid_width) < 1:
            raise StrictError("control", "a grid has at least one row and one column")
        shading = control.shading_height, control.shading_width
        if min(shading) < 0 or (max(shading) > 0) != (min(shading) > 0):
            raise StrictError("control", "a shading has rows and columns, or neither")
        return [*control.landmarks]
    if not 1 <= control.count <= 1000:
        raise StrictError("control.count", "expected 1 to 1000")
    for i, point in enumerate(control.supervised):
        if not 0 <= point.index < control.count:
            raise StrictError(f"control.supervised[{i}].index", "there is no such keypoint")
    return [point.name for point in control.supervised]


def _check_files(manifest: Manifest) -> None:
    seen: dict[str, str] = {}
    for entry in manifest.digests():
        if not _FILE_NAME.fullmatch(entry.file) or entry.file == MANIFEST:
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
    states = {pair.to: pair.from_ for pair in chain.recurrent}
    controls = [control.name for control in chain.controls]
    names = [*(pair.to for pair in chain.recurrent), *controls]
    for name in names:
        reserved = name in _RESERVED or name.startswith((DRIVING, REFERENCE))
        if reserved or names.count(name) > 1:
            raise BundleError(f"a control or state cannot be called {name!r}: the name is taken")
    image: Kind = ("uint8", (1, chain.image.channels, chain.image.size, chain.image.size))
    known: dict[str, tuple[Kind | None, Takers]] = {
        SOURCE_IMAGE: (image, ("source",)),
        DRIVING_FRAME: (image, ("observe",)),
        LANDMARK_IMAGE: (image, ("landmarks",)),
    }
    known |= {name: (("float32", (1,)), ("frame", TRANSFER)) for name in controls}
    known |= {name: (None, (TRANSFER,)) for name in states}
    if isinstance(chain.control, DisplacementControl):
        grid = chain.control.grid_height, chain.control.grid_width
        known[ALIGNMENT] = ("float32", (1, *grid, 2)), (TRANSFER,)
    copies = dict(chain.copied_references())
    for stage in chain.stages:
        seat = TRANSFER if stage.name == TRANSFER else stage.role
        if len({tensor.name for tensor in stage.inputs}) != len(stage.inputs):
            raise BundleError(f"stage {stage.name!r} takes one input twice")
        for tensor in stage.inputs:
            if tensor.name not in known:
                raise BundleError(
                    f"stage {stage.name!r}: nothing makes its input {tensor.name!r}",
                    "an input is an earlier output, an image, a control, a reference or a state",
                )
            kind, takers = known[tensor.name]
            if seat not in takers:
                allowed = " or ".join(takers) or "no other stage"
                raise _leak(stage, f"takes {tensor.name!r}, which is for {allowed}")
            if kind is not None:
                _must_be(stage, tensor, kind)
        for tensor in stage.outputs:
            if tensor.name in known:
                raise BundleError(f"stage {stage.name!r} makes {tensor.name!r}, which exists")
            _check_prefix(stage, tensor.name)
            kind = tensor.dtype, tensor.shape
            takers = () if tensor.name in states.values() else _TAKERS[seat]
            known[tensor.name] = kind, takers
            if tensor.name in copies:
                known[copies[tensor.name]] = kind, (TRANSFER,)
    taken = {tensor.name for stage in chain.stages for tensor in stage.inputs}
    if idle := [name for name in controls if name not in taken]:
        raise BundleError(f"no stage takes the control {idle[0]!r}")
    transfer = next(stage for stage in chain.stages if stage.name == TRANSFER)
    _check_transfer(chain, transfer, states)
    _check_control(chain, transfer)
    _check_frame(chain, image)


def _check_roles(chain: Chain) -> None:
    names = [stage.name for stage in chain.stages]
    if len(set(names)) != len(names):
        raise BundleError("two stages have one name")
    roles = [stage.role for stage in chain.stages]
    once = roles.count("observe") == 1 >= max(roles.count("reference"), roles.count("landmarks"))
    if not once or "source" not in roles or roles != sorted(roles, key=ROLES.index):
        raise BundleError(
            f"a bundle has stages of the roles {', '.join(ROLES)}, in this order: `observe` once, "
            f"`reference` and `landmarks` at most once; this one has {', '.join(roles)}",
            "export it again",
        )
    if TRANSFER not in [stage.name for stage in chain.of_role("frame")]:
        raise BundleError(f"there is no stage {TRANSFER!r} of role `frame`", "export it again")
    if names[-1] == TRANSFER:
        raise BundleError(f"{TRANSFER!r} is the last stage: nothing makes a picture of the motion")
    (observe,) = chain.of_role("observe")
    if [tensor.name for tensor in observe.inputs] != [DRIVING_FRAME]:
        raise BundleError(f"stage {observe.name!r} must take {DRIVING_FRAME!r} alone")


def _check_prefix(stage: Stage, name: str) -> None:
    """What observe and reference stages make, and nothing else, carries their prefix."""
    wanted = _PREFIXES.get(stage.role, "")
    others = tuple(prefix for prefix in _PREFIXES.values() if prefix != wanted)
    if not name.startswith(wanted) or name.startswith(others):
        raise BundleError(
            f"output {name!r} of stage {stage.name!r} "
            + (f"must begin with {wanted!r}" if wanted else "has the prefix of another role")
        )


def _check_transfer(chain: Chain, transfer: Stage, states: dict[str, str]) -> None:
    made = {tensor.name: tensor for tensor in transfer.outputs}
    taken = {tensor.name: tensor for tensor in transfer.inputs}
    for to, from_ in states.items():
        if from_ not in made or to not in taken:
            raise BundleError(f"recurrent state {from_!r} -> {to!r} is not one of {TRANSFER!r}")
        _must_be(transfer, taken[to], (made[from_].dtype, made[from_].shape))
    passed = sum(prod(t.shape) for t in transfer.outputs if t.name not in states.values())
    allowed = most_numbers(chain.image.size)
    if passed > allowed:
        raise _leak(transfer, f"passes on {passed} numbers a frame, {allowed} are allowed")


def _check_control(chain: Chain, transfer: Stage) -> None:
    """What carries the motion must be among the tensors, in its shape."""
    control, tensors = chain.control, chain.tensors()
    if isinstance(control, KeypointControl):
        points: Kind = ("float32", (1, control.count, 2))
        _must_make(chain.of_role("observe")[0], DRIVING + "kp_value", points)
        if source := tensors.get("source_kp_value"):
            _must_be(chain.of_role("source")[0], source, points)
        return
    names, finders = control.landmarks, chain.of_role("landmarks")
    if bool(names) != bool(finders) or len(set(names)) != len(names):
        raise BundleError(
            f"control.landmarks names {len(names)} landmarks, {len(finders)} stages find any"
        )
    for finder in finders:
        _must_make(finder, LANDMARKS, ("float32", (1, len(names), 3)))
    rows, columns = control.grid_height, control.grid_width
    _must_make(transfer, "displacement", ("float32", (1, rows, columns, 2)))
    if CONFIDENCE in tensors:
        _must_make(transfer, CONFIDENCE, ("float32", (1, 1, rows, columns)))
    if control.shading_height:
        shape = (1, 1, control.shading_height, control.shading_width)
        _must_make(transfer, "shading", ("float32", shape))
    if chain.motions() != ("relative",):
        raise BundleError(
            "displacements are relative to a reference: a stage must take one, and there can be no "
            "control `relative`"
        )


def _check_frame(chain: Chain, image: Kind) -> None:
    """What the last stage makes, and the layers."""
    last = chain.stages[-1]
    _must_make(last, FRAME, image)
    if quality := chain.tensors().get(QUALITY):
        _must_be(last, quality, ("float32", (1, 4)))
    made = {t.name: t for stage in chain.of_role("frame") for t in stage.outputs}
    for layer, name in vars(chain.layers).items() if chain.layers is not None else ():
        tensor = made.get(name, Tensor(name, "float32", (), ""))
        of_places = layer in ("deformation", "stiff")
        depth, allowed = (3, (2,)) if of_places else (1, (1, chain.image.channels))
        shape = tensor.shape
        right = tensor.dtype == "float32" and len(shape) == 4 and shape[0] == 1
        if not right or shape[depth] not in allowed:
            raise BundleError(
                f"layers.{layer}: no stage makes {name!r} of every frame in a layer's shape"
            )


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
    hint = "refused: the driving anatomy could get into the picture"
    return BundleError(f"stage {stage.name!r} {what}", hint)
