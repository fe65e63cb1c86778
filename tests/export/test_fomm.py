"""import-fomm against a forward of torch.nn.functional alone, and what it refuses."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from sonomime.cli import main
from sonomime.export.bundle import export_bundle
from sonomime.export.fomm import GEOMETRIES, fomm_name, import_fomm, read_fomm_config
from sonomime.export.verify import Frames
from sonomime.runtime import Animator
from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.bundle.manifest import Motion
from sonomime.runtime.media.pixels import levels_apart
from sonomime.runtime.options import Scale
from sonomime.runtime.support.errors import CheckpointError, ConfigError, OutputError
from sonomime.training.checkpoint import load_checkpoint
from sonomime.training.models.base import as_frame
from sonomime.training.torch_backend import open_session

from .fomm_reference import (
    SMALL,
    Evil,
    Points,
    centres,
    changed,
    generate,
    keypoints,
    make_fomm,
    relative,
    write,
)


def smooth_image(seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 3, 8, 8, generator=random)
    return F.interpolate(coarse, size=(256, 256), mode="bicubic").clamp(0, 1)


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return make_fomm(SMALL)


@pytest.fixture
def payload(made: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(made)


# Every number of the YAML file is another one than in SMALL; two keys more have FOMM's default.
VARIANT = changed(
    ("common_params.num_kp", 5),
    ("kp_detector_params.temperature", 0.2),
    ("kp_detector_params.block_expansion", 5),
    ("kp_detector_params.max_features", 15),
    ("kp_detector_params.num_blocks", 2),
    ("kp_detector_params.pad", 0),
    ("kp_detector_params.single_jacobian_map", False),
    ("generator_params.block_expansion", 3),
    ("generator_params.max_features", 14),
    ("generator_params.num_down_blocks", 3),
    ("generator_params.num_bottleneck_blocks", 1),
    ("generator_params.dense_motion_params.block_expansion", 4),
    ("generator_params.dense_motion_params.max_features", 20),
    ("generator_params.dense_motion_params.num_blocks", 3),
    ("generator_params.dense_motion_params.kp_variance", 0.02),
)


ONE_JACOBIAN = changed(("kp_detector_params.single_jacobian_map", True))
NO_JACOBIANS = changed(("common_params.estimate_jacobian", ...))
NO_OCCLUSION = changed(("generator_params.estimate_occlusion_map", False))
ONE_JACOBIAN_NO_OCCLUSION = changed(
    ("kp_detector_params.single_jacobian_map", True),
    ("generator_params.estimate_occlusion_map", ...),
)
BEFORE, LATER = GEOMETRIES


@pytest.mark.parametrize(
    ("table", "sampling", "tracked"),
    [
        (SMALL, BEFORE, True),
        (SMALL, LATER, True),
        (VARIANT, BEFORE, False),
        (ONE_JACOBIAN, BEFORE, True),
        (NO_JACOBIANS, BEFORE, True),
        (NO_OCCLUSION, BEFORE, True),
    ],
    ids=["small", "later", "variant", "one jacobian", "no jacobians", "no occlusion"],
)
def test_numbers_are_those_of_a_functional_forward(
    tmp_path: Path, table: dict[str, Any], sampling: str, tracked: bool
) -> None:
    made = make_fomm(table, 3, tracked)
    source, driving = smooth_image(1), smooth_image(2)
    with torch.no_grad():
        start, target = (keypoints(made["kp_detector"], table, x) for x in (source, driving))
    rest = generate(made["generator"], table, source, start, target, align=sampling == BEFORE)
    expected = (*start, *target, *rest)
    model = load_checkpoint(write(tmp_path, made, table).run(sampling)).model()
    with torch.no_grad():
        encoded = model.encode(source)
        moving, still = model.keypoint_detector(driving), encoded.keypoints
        prediction, motion = model.animate(encoded, moving)
    made_here = (
        still.value, still.jacobian, moving.value, moving.jacobian, motion.deformation,
        motion.occlusion_map, prediction.image,
    )  # fmt: skip
    for ours, theirs in zip(made_here, expected, strict=True):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() < 1e-4
    # The random networks must say something, or agreement would prove nothing.
    p_s, _, p_d, j_d, deformation, occlusion, picture = expected
    assert torch.linalg.det(j_d).abs().min() > 0.05
    assert (j_d - torch.eye(2)).std() > 0.01 or table is NO_JACOBIANS
    assert (p_s - p_d).abs().max() > 0.01
    assert occlusion.std() > 0.01 or table is NO_OCCLUSION
    assert (deformation - centres(64, 64)).std() > 0.02
    assert picture.std() > 0.05


@pytest.mark.slow
@pytest.mark.parametrize(
    ("table", "sampling"),
    [(SMALL, BEFORE), (NO_JACOBIANS, LATER), (ONE_JACOBIAN_NO_OCCLUSION, BEFORE)],
    ids=["small", "no jacobians, later", "one jacobian, no occlusion"],
)
def test_frames_are_those_of_a_functional_forward(
    tmp_path: Path, table: dict[str, Any], sampling: str
) -> None:
    """To a grey level, from the exported bundle and from the model; in each kind of motion."""
    made = make_fomm(table, 5)
    checkpoint = load_checkpoint(write(tmp_path, made, table).run(sampling))
    pictures = [as_frame(smooth_image(seed)[:1]).numpy()[0] for seed in range(3)]
    source, first, driving = (np.ascontiguousarray(p.transpose(1, 2, 0)) for p in pictures)
    folder = tmp_path / "bundle"
    export_bundle(checkpoint, "0" * 64, folder, Frames(source, (first, driving)), "fp32")
    assert Bundle.open(folder).manifest.geometry == GEOMETRIES[sampling]
    given = [torch.from_numpy(picture)[None] / 255 for picture in pictures]
    with torch.no_grad():
        start, initial, moving = (keypoints(made["kp_detector"], table, x) for x in given)
    ways: dict[tuple[Motion, Scale], Points] = {
        ("absolute", 1.0): moving,
        ("relative", 1.0): relative(start, moving, initial, adapt_scale=False),
        ("relative", "hull"): relative(start, moving, initial, adapt_scale=True),
    }
    frames = []
    for (motion, scale), target in ways.items():
        align = sampling == BEFORE
        *_, picture = generate(made["generator"], table, given[0], start, target, align)
        frames.append(as_frame(picture)[0].permute(1, 2, 0).numpy())
        for animator in (
            Animator.open(folder, motion=motion, scale=scale, smooth=False, threads=1),
            Animator(open_session(checkpoint), motion, scale, smooth=False),
        ):
            with animator:
                animator.set_source(source)
                animator.set_reference(first)
                assert levels_apart(animator.animate(driving), frames[-1]) <= 1
    # The ways differ, and so does the other sampling, or agreement would prove nothing.
    *_, other = generate(made["generator"], table, given[0], start, moving, sampling == LATER)
    frames.append(as_frame(other)[0].permute(1, 2, 0).numpy())
    for one, two in itertools.combinations(frames, 2):
        assert levels_apart(one, two) > 2


def test_the_command_takes_weights_as_they_are_and_runs_nothing(
    tmp_path: Path, payload: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    files = write(tmp_path, payload, SMALL)
    words = ["import-fomm", str(files.pth), "--config", str(files.yaml), "-o", str(files.out)]
    for more, geometry in (["--sampling", "later"], "fomm_unaligned"), ([], "fomm_aligned"):
        assert main([*words, *more]) == 0
        said = capsys.readouterr().out
        assert str(files.out) in said and geometry in said
        checkpoint = load_checkpoint(files.out)
        model, weights = checkpoint.config.model, checkpoint.weights
        assert (checkpoint.step, checkpoint.config.preset, model.geometry) == (0, "fomm", geometry)
    (origin,) = checkpoint.data
    assert origin["name"] == "FOMM checkpoint fomm.pth.tar" and "CC BY-NC" in origin["licence"]
    networks = ("generator", "kp_detector")
    theirs = {f"{net}/{key}": t for net in networks for key, t in payload[net].items()}
    assert {fomm_name(ours) for ours in weights} == theirs.keys()
    for ours, tensor in weights.items():
        assert torch.equal(tensor, theirs[fomm_name(ours)]), ours
    torch.save({"generator": {}, "kp_detector": {}, "epoch": Evil(tmp_path / "ran")}, files.pth)
    assert main(words) == 3 and not (tmp_path / "ran").exists()
    said = capsys.readouterr().err
    assert "error: " in said and "hint: " in said and "Traceback" not in said
    files.yaml.write_text("model_params: 3")
    assert main(words) == 2


def detector(change: Callable[[dict[Any, Any]], Any]) -> Callable[[Any], Any]:
    return lambda payload: change(payload["kp_detector"])


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (detector(lambda d: d.pop("kp.weight")), "kp_detector/kp.weight"),
        (
            detector(lambda d: d.update({"conv9.weight": torch.zeros(1)})),
            "kp_detector/conv9.weight",
        ),
        (detector(lambda d: d.update({"kp.weight": torch.zeros(4, 7, 7, 7)})), "kp.weight"),
        (detector(lambda d: d.update({3: torch.zeros(1)})), "kp_detector/3"),
        (detector(lambda d: d.update({"kp.bias": 3})), "kp_detector/kp.bias"),
        (detector(lambda d: d.update({"kp.bias": torch.zeros(3).to_sparse()})), "kp.bias"),
        (lambda payload: payload["generator"].clear(), " more"),
        (lambda payload: payload.pop("generator"), "generator"),
        (lambda payload: payload.update(kp_detector=[1]), "kp_detector"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, payload: dict[str, Any], spoil: Callable[[Any], Any], named: str
) -> None:
    spoil(payload)
    files = write(tmp_path, payload, SMALL)
    with pytest.raises(CheckpointError) as caught:
        files.run()
    assert named in caught.value.message and caught.value.hint and not files.out.exists()


def test_a_file_has_what_its_configuration_says(tmp_path: Path, payload: dict[str, Any]) -> None:
    for table, named in (
        (NO_JACOBIANS, "kp_detector/jacobian.bias"),
        (ONE_JACOBIAN, "jacobian.weight is [12, 7, 7, 7], not [4, 7, 7, 7]"),
        (NO_OCCLUSION, "generator/dense_motion_network.occlusion.bias"),
    ):
        for content, other in ((payload, table), (make_fomm(table), SMALL)):
            with pytest.raises(CheckpointError) as caught:
                write(tmp_path, content, other).run()
            assert named.partition(" ")[0] in caught.value.message
            assert named in caught.value.message or content is not payload


def test_files_that_cannot_be_read_or_written(tmp_path: Path, payload: dict[str, Any]) -> None:
    files = write(tmp_path, payload, SMALL)
    before = files.pth.read_bytes()
    for taken in (files.yaml / "below-a-file.pt", files.pth, files.yaml):
        with pytest.raises(OutputError):
            import_fomm(files.pth, files.yaml, taken)
    assert files.pth.read_bytes() == before
    with pytest.raises(CheckpointError):
        import_fomm(tmp_path / "none.pth.tar", files.yaml, files.out)
    with pytest.raises(ConfigError):
        import_fomm(files.pth, tmp_path / "none.yaml", files.out)
    files.pth.write_bytes(before[:20_000])
    with pytest.raises(CheckpointError):
        files.run()
    with pytest.raises(CheckpointError):
        write(tmp_path, [1, 2], SMALL).run()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("common_params.estimate_jacobian", 1),
        ("common_params.estimate_jacobian", "no"),
        ("common_params.num_channels", 2),
        ("common_params.num_kp", 0),
        ("common_params.num_kp", "ten"),
        ("common_params", ...),
        ("common_params", 3),
        ("generator_params.dense_motion_params", None),
        ("kp_detector_params.pad", 3),
        ("kp_detector_params.scale_factor", 0.5),
        ("kp_detector_params.single_jacobian_map", 1),
        ("generator_params.estimate_occlusion_map", None),
        ("kp_detector_params.temperature", 0),
        ("kp_detector_params.temprature", 0.1),
        ("generator_params.dense_motion_params.kp_variance", 0),
        ("generator_params.num_bottleneck_blocks", 10**9),
    ],
)
def test_settings_that_we_cannot_take_are_named(tmp_path: Path, path: str, value: Any) -> None:
    file = tmp_path / "fomm.yaml"
    file.write_text(yaml.safe_dump(changed((path, value))))
    with pytest.raises(ConfigError, match=path.rpartition(".")[2]) as caught:
        read_fomm_config(file)
    assert str(file) in caught.value.message and caught.value.hint
    section = path in ("common_params", "generator_params.dense_motion_params")
    assert value is ... or ("table" in caught.value.message) == section


@pytest.mark.parametrize(
    "text",
    [
        b"", b"just text", b"- a\n- list", b"model_params: 3", b"model_params: 2001-12-14",
        b"model_params: {common_params: 2001-12-14t21:59:43.10-05:00}",
        b"model_params: {2001-12-14: 1}", b"model_params: 0001-01-01T00:00:00+23:00",
        b"model_params: !!timestamp never", b"model_params: !!int ''",
        b"model_params: !!bool maybe", b"model_params: {common_params: &a {num_kp: *a}}",
        b"a: [1", b"a: !!python/name:os.system", b"\x00", b"\xff\xfe\xff", b"[" * 600,
    ],
)  # fmt: skip
def test_yaml_of_something_else(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "fomm.yaml"
    file.write_bytes(text)
    with pytest.raises(ConfigError, match="fomm"):
        read_fomm_config(file)
