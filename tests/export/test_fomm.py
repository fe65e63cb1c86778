"""import-fomm against a forward of torch.nn.functional alone, and what it refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from sonomime.cli import main
from sonomime.export.fomm import fomm_name, import_fomm, read_fomm_config
from sonomime.runtime.support.errors import CheckpointError, ConfigError, OutputError
from sonomime.training.checkpoint import load_checkpoint

from .fomm_reference import SMALL, Evil, centres, changed, forward, make_fomm, write


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


@pytest.mark.parametrize(
    ("table", "tracked"), [(SMALL, True), (VARIANT, False)], ids=["small", "variant"]
)
def test_numbers_are_those_of_a_functional_forward(
    tmp_path: Path, table: dict[str, Any], tracked: bool
) -> None:
    made = make_fomm(table, 3, tracked)
    source, driving = smooth_image(1), smooth_image(2)
    expected = forward(made["kp_detector"], made["generator"], table, source, driving)
    model = load_checkpoint(write(tmp_path, made, table).run()).model()
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
    assert (p_s - p_d).abs().max() > 0.01
    assert occlusion.std() > 0.01
    assert (deformation - centres(64, 64)).std() > 0.02
    assert picture.std() > 0.05


def test_the_command_takes_weights_as_they_are_and_runs_nothing(
    tmp_path: Path, payload: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    files = write(tmp_path, payload, SMALL)
    words = ["import-fomm", str(files.pth), "--config", str(files.yaml), "-o", str(files.out)]
    assert main(words) == 0 and str(files.out) in capsys.readouterr().out
    checkpoint = load_checkpoint(files.out)
    model, weights = checkpoint.config.model, checkpoint.weights
    assert (checkpoint.step, checkpoint.config.preset, model.geometry) == (0, "fomm", "fomm")
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
        ("common_params.estimate_jacobian", False),
        ("common_params.estimate_jacobian", 1),
        ("common_params.estimate_jacobian", ...),
        ("common_params.num_channels", 2),
        ("common_params.num_kp", 0),
        ("common_params.num_kp", "ten"),
        ("common_params", ...),
        ("common_params", 3),
        ("generator_params.dense_motion_params", None),
        ("kp_detector_params.pad", 3),
        ("kp_detector_params.scale_factor", 0.5),
        ("kp_detector_params.single_jacobian_map", True),
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
    assert value not in (3, None) or "table" in caught.value.message or "pad" in path


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
