"""Checkpoints: whole or not there, never code, and believed only as far as they are checked."""

from __future__ import annotations

import copy
import dataclasses
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from sonomime.cli import main
from sonomime.runtime.support.errors import CheckpointError, OutputError
from sonomime.training.checkpoint import Checkpoint, load_checkpoint, record, recorded
from sonomime.training.data.dataset import Clip
from sonomime.training.models.families import family_of

from .small_runs import config, full_after


def checkpoint(step: int = 5, preset: str = "ours-p") -> Checkpoint:
    torch.manual_seed(step)
    settings = config("data.gain=[0.5, 2.0]", preset=preset)
    weights = family_of(settings.model).model(settings.model).state_dict()
    optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3}]}
    data = [{"name": "clips", "licence": "CC BY 4.0"}, {"name": "b", "clips": {"s": ["a", "b"]}}]
    resume = {"model": weights, "optimizer": optimizer}
    return Checkpoint(settings, step, weights, ["neck"], data, resume)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a whole checkpoint's file holds; copy it before changing it."""
    path = tmp_path_factory.mktemp("whole") / "c.pt"
    checkpoint().save(path)
    return dict(torch.load(path, weights_only=True))


def refused(path: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    error = caught.value
    assert error.hint and error.exit_code == 3 and str(path) in error.message
    # torch's own message tells the reader to switch the guard off.
    assert "weights_only" not in error.message + error.hint
    return error


@pytest.mark.parametrize("preset", ["ours-p", "lite"])
def test_everything_comes_back(preset: str, tmp_path: Path) -> None:
    saved = checkpoint(preset=preset)
    saved.save(tmp_path / "run" / "checkpoint.pt")  # the folder is made
    found = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert found.config == saved.config and found.step == 5
    assert (found.supervised_names, found.data) == (saved.supervised_names, saved.data)
    assert found.resume["optimizer"] == saved.resume["optimizer"]
    assert os.listdir(tmp_path / "run") == ["checkpoint.pt"]
    model = found.model()
    assert not model.training and model.state_dict().keys() == saved.weights.keys()
    assert all(torch.equal(saved.weights[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("unshuffle", [1, 2])
def test_settings_that_are_gone(unshuffle: int, content: dict[str, Any], tmp_path: Path) -> None:
    """Where they changed nothing the model is the same; where they did, it no longer exists."""
    older = copy.deepcopy(content)
    older["config"]["loss"] |= {"separation": 0.0, "perceptual_scales": 4}
    older["config"]["data"] |= {"near_start": 4, "near_steps": 0, "synthetic_until": 0}
    model = older["config"]["model"]
    model["keypoints"]["unshuffle"] = unshuffle
    model["motion"]["occlusion_maps"] = 1
    torch.save(older, tmp_path / "c.pt")
    if unshuffle == 1:
        assert load_checkpoint(tmp_path / "c.pt").config == checkpoint().config
    else:
        assert "unshuffle" in refused(tmp_path / "c.pt").message


@pytest.mark.parametrize("preset", ["ours-p", "lite"])
@pytest.mark.parametrize("upsample", ["nearest", "bilinear"])
def test_upsampling_and_splines_before_they_were_settings_of_the_model(
    preset: str, upsample: str, tmp_path: Path
) -> None:
    """The decoders alone had a setting; splines bent frames less. A run is not resumed unnoticed
    with others."""
    checkpoint(preset=preset).save(tmp_path / "c.pt")
    older = torch.load(tmp_path / "c.pt", weights_only=True)
    model, loss = older["config"]["model"], older["config"]["loss"]
    del model["upsample"], loss["spline"]
    model["generator"]["upsample"] = upsample
    torch.save(older, tmp_path / "c.pt")
    if upsample == "nearest":
        found = load_checkpoint(tmp_path / "c.pt").config
        assert found.model == checkpoint(preset=preset).config.model
        assert found.loss.spline == 0.005
    else:
        assert "upsample" in refused(tmp_path / "c.pt").message


@pytest.mark.parametrize("step", [0, 7])
def test_what_the_old_geometry_of_imports_meant(
    tmp_path: Path, step: int, content: dict[str, Any]
) -> None:
    """It sampled as torch 1.3: so were checkpoints trained, but not FOMM's public ones."""
    old = copy.deepcopy({**content, "step": step})
    old["config"]["model"]["geometry"] = "fomm"
    torch.save(old, tmp_path / "c.pt")
    if step == 0:
        assert "import-fomm" in refused(tmp_path / "c.pt").hint
    else:
        assert load_checkpoint(tmp_path / "c.pt").config.model.geometry == "fomm_unaligned"


@pytest.mark.parametrize(
    ("preset", "wide"),
    [
        ("ours-p", "keypoints={self_supervised=10, width=4096, max_features=4096, depth=2}"),
        ("lite", "matcher={fine=4096, coarse=4096, grid=8, stiff=8, shading=8}"),
    ],
)
def test_a_configuration_is_compared_with_the_weights_before_memory_is_taken(
    preset: str, wide: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = checkpoint(preset=preset)
    taken: list[str] = []
    real = torch.nn.Conv2d.__init__

    def watched(self: Any, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **kwargs)
        taken.append(self.weight.device.type)

    monkeypatch.setattr(torch.nn.Conv2d, "__init__", watched)
    with pytest.raises(CheckpointError) as caught:
        dataclasses.replace(saved, config=config(f"model.{wide}", preset=preset)).model()
    assert caught.value.hint and set(taken) == {"meta"}


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("zipped", [True, False], ids=["inside of a whole one", "alone, legacy"])
def test_malicious_pickle_does_not_run(
    tmp_path: Path, zipped: bool, content: dict[str, Any]
) -> None:
    path, trace = tmp_path / "evil.pt", tmp_path / "ran"
    evil = {**content, "resume": Evil(trace)} if zipped else Evil(trace)
    torch.save(evil, path, _use_new_zipfile_serialization=zipped)
    assert "mkdir" in refused(path).message
    assert main(["export", str(path), "-o", str(tmp_path / "bundle")]) == 3
    assert not trace.exists() and not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"sonomime_checkpoint": 2},
        {"config": ...},
        {"config": {"modle": {}}},
        {"config": {"model": {"channels": 2}}},
        {"config": {"preset": "x", "model": {"keypoints": {"width": 10**6}}}},
        {"config": [1]},
        {"step": "many"},
        {"step": float("inf")},
        {"weights": [1, 2]},
        {"weights": {"a": 3}},
        {"weights": {3: torch.ones(2)}},
        {"weights": {"larger than the file": torch.zeros(1).expand(10**6, 10**6)}},
        {"supervised_names": [3]},
        {"resume": 3},
        {"data": [["ab"]]},
        {"data": [{}]},
        {"data": [{"name": "x", "clips": [1]}]},
        {"data": [{"name": "x", "clips": {"s": 5}}]},
        [1, 2],
        torch.ones(3),
        {"generator": {}, "sonomime_checkpoint": ...},
        b"",
        b"I am a text\n" * 40,
        b"PK\3\4" + bytes(200),
        bytes(range(256)) * 20,
    ],
    ids=lambda change: str(change)[:40],
)
def test_files_that_are_no_whole_checkpoint(
    tmp_path: Path, change: Any, content: dict[str, Any]
) -> None:
    path, ours = tmp_path / "c.pt", isinstance(change, dict)
    if isinstance(change, bytes):
        path.write_bytes(change)
    else:
        if ours:
            change = {key: v for key, v in {**content, **change}.items() if v is not ...}
        torch.save(change, path)
    error = refused(path)
    ours = ours and change.get("sonomime_checkpoint") == 1
    assert ours or isinstance(change, bytes) or "import-fomm" in error.hint


def test_folders_nothing_and_deflated_files_are_refused(tmp_path: Path) -> None:
    refused(tmp_path)
    refused(tmp_path / "missing.pt")
    plain, bomb = tmp_path / "plain.pt", tmp_path / "bomb.pt"
    torch.save({"w": torch.zeros(4 << 20)}, plain)
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    assert bomb.stat().st_size < 1 << 20
    assert "MiB" in refused(bomb).message  # before it is unpacked


def test_a_write_error_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    """torch hides the disk's own error behind one of its own."""
    path = tmp_path / "checkpoint.pt"
    checkpoint(step=1).save(path)
    with full_after(path.stat().st_size // 2), pytest.raises(OutputError) as caught:
        checkpoint(step=2).save(path)
    assert "ulimit" in caught.value.hint
    assert os.listdir(tmp_path) == ["checkpoint.pt"] and load_checkpoint(path).step == 1


def test_clips_are_recorded_by_subject_as_their_own_folder_names_them() -> None:
    places = {"one/a.mp4": "s", "one/b.mp4": "s", "two/a.mp4": "u", "bare/x.mp4": "x", "y.mp4": "y"}
    clips = [Clip(name, Path("/data", name), subject, "g", "") for name, subject in places.items()]
    kept = record([Path("/data", name) for name in ("one", "two", "bare", "y.mp4")], clips)
    assert kept == [
        {"name": "one", "clips": {"s": ["a.mp4", "b.mp4"]}},
        {"name": "two", "clips": {"u": ["a.mp4"]}},
        {"name": "bare", "clips": {"x": ["x.mp4"]}},
        {"name": "y.mp4", "clips": {"y": ["y.mp4"]}},
    ]
    assert recorded(kept[:3]) == ({"a.mp4", "b.mp4", "x.mp4"}, {"s", "u", "x"})
    assert recorded([{"name": "older"}]) == (set(), set())
