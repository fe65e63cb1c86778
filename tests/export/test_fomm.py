"""import-fomm against a forward of torch.nn.functional alone, straight from FOMM's keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor

from sonomime.cli import main
from sonomime.export.fomm import fomm_name, read_fomm_config
from sonomime.training.checkpoint import load_checkpoint

from .fomm_checkpoints import SMALL, VARIANT, Evil, make_fomm, write
from .fomm_forward import centres, forward


def smooth_image(seed: int) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(2, 3, 8, 8, generator=random)
    return F.interpolate(coarse, size=(256, 256), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize(
    ("table", "tracked"), [(SMALL, True), (VARIANT, False)], ids=["small", "variant"]
)
def test_numbers_are_those_of_a_functional_forward(
    tmp_path: Path, table: dict[str, Any], tracked: bool
) -> None:
    payload = make_fomm(table, seed=3, tracked=tracked)
    out = write(tmp_path, payload, table).run()
    model = load_checkpoint(out).model()
    source, driving = smooth_image(1), smooth_image(2)
    with torch.no_grad():
        expected = forward(payload, table, source, driving)
        encoded = model.encode(source)
        found = model.keypoint_detector(driving)
        prediction, motion = model.animate(encoded, found)
    for ours, theirs in (
        (encoded.keypoints.value, expected.source[0]),
        (encoded.keypoints.jacobian, expected.source[1]),
        (found.value, expected.driving[0]),
        (found.jacobian, expected.driving[1]),
        (motion.deformation, expected.deformation),
        (motion.occlusion_map, expected.occlusion),
        (prediction.image, expected.prediction),
    ):
        assert ours.shape == theirs.shape
        assert (ours - theirs).abs().max() < 1e-4
    # The random networks must say something, or agreement would prove nothing.
    assert torch.linalg.det(expected.driving[1]).abs().min() > 0.05
    assert (expected.source[0] - expected.driving[0]).abs().max() > 0.01
    assert expected.occlusion.std() > 0.01
    assert (expected.deformation - centres(64, 64)).std() > 0.02
    assert expected.prediction.std() > 0.05


def test_weights_are_taken_as_they_are_and_the_checkpoint_says_what_it_is(tmp_path: Path) -> None:
    payload = make_fomm(SMALL)
    checkpoint = load_checkpoint(write(tmp_path, payload, SMALL).run())
    model, weights = checkpoint.config.model, checkpoint.weights
    assert (checkpoint.step, checkpoint.config.preset, model.geometry) == (0, "fomm", "fomm")
    assert (model.keypoints.self_supervised, model.keypoints.supervised) == (3, 0)
    (origin,) = checkpoint.data
    assert origin["name"] == "FOMM checkpoint fomm.pth.tar" and "CC BY-NC" in origin["licence"]
    theirs = by_name(payload)
    assert {fomm_name(ours) for ours in weights} == theirs.keys()
    for ours, tensor in weights.items():
        assert torch.equal(tensor, theirs[fomm_name(ours)]), ours


def by_name(payload: dict[str, Any]) -> dict[str, Tensor]:
    networks = ("generator", "kp_detector")
    return {f"{net}/{k}": t for net in networks for k, t in payload[net].items()}


def test_every_size_of_the_yaml_is_read(tmp_path: Path) -> None:
    path = tmp_path / "fomm.yaml"
    path.write_text(yaml.safe_dump(VARIANT))
    model = read_fomm_config(path).model
    points, motion = model.keypoints, model.motion
    assert (model.channels, model.image_size, points.count) == (3, 256, 5)
    assert (points.width, points.max_features, points.depth) == (4, 16, 2)
    assert (motion.width, motion.max_features, motion.depth) == (5, 24, 4)
    assert (motion.variance, points.temperature) == (0.02, 0.1)
    assert (model.generator.width, model.generator.max_features) == (4, 12)
    assert (model.generator.downs, model.generator.blocks, model.generator.kind) == (3, 1, "single")


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = write(tmp_path, make_fomm(SMALL), SMALL)
    words = ["import-fomm", str(files.pth), "--config", str(files.yaml), "-o", str(files.out)]
    assert main(words) == 0 and str(files.out) in capsys.readouterr().out
    assert load_checkpoint(files.out).step == 0
    torch.save(Evil(tmp_path / "ran"), files.pth)
    assert main(words) == 3 and not (tmp_path / "ran").exists()
    said = capsys.readouterr().err
    assert "error: " in said and "hint: " in said and "Traceback" not in said
    files.yaml.write_text("model_params: 3")
    assert main(words) == 2
