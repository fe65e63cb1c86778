"""Checkpoints: whole or not there, and never code."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sonomime.cli import main
from sonomime.runtime.support.errors import CheckpointError, OutputError
from sonomime.training.checkpoint import Checkpoint, load_checkpoint
from sonomime.training.config import Config, load_config
from sonomime.training.models.keypoints.model import AnimationModel
from sonomime.training.weights_file import read_weights_only

TINY = [
    "model.image_size=64",
    "model.keypoints.width=2",
    "model.keypoints.max_features=4",
    "model.keypoints.depth=1",
    "model.motion.width=2",
    "model.motion.max_features=4",
    "model.motion.depth=1",
    "model.generator.width=2",
    "model.generator.blocks=1",
    "data.gain=[0.5, 2.0]",
]


def tiny() -> Config:
    return load_config("ours-p", TINY)


def checkpoint(step: int = 5) -> Checkpoint:
    torch.manual_seed(step)
    model = AnimationModel(tiny().model)
    resume = {
        "model": model.state_dict(),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 1e-3}]},
    }
    data = [{"name": "clips", "licence": "CC BY 4.0"}]
    return Checkpoint(tiny(), step, model.state_dict(), ["neck", "edge"], data, resume)


def payload(path: Path) -> dict[str, Any]:
    loaded = torch.load(path, weights_only=True)
    assert isinstance(loaded, dict)
    return loaded


def refused(path: Path, message: str) -> CheckpointError:
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path)
    error = caught.value
    assert error.hint and error.exit_code == 3 and str(path) in error.message
    # torch's own message tells the reader to switch the guard off.
    assert "weights_only" not in error.message + error.hint
    return error


# -- there and back --------------------------------------------------------------------------------


def test_everything_comes_back(tmp_path: Path) -> None:
    saved = checkpoint()
    saved.save(tmp_path / "run" / "checkpoint.pt")  # the folder is made
    found = load_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert found.config == saved.config and found.step == 5
    assert (found.supervised_names, found.data) == (saved.supervised_names, saved.data)
    assert found.weights.keys() == saved.weights.keys()
    assert all(torch.equal(found.weights[k], v) for k, v in saved.weights.items())
    assert found.resume["optimizer"] == saved.resume["optimizer"]
    assert os.listdir(tmp_path / "run") == ["checkpoint.pt"]


def test_model_has_the_weights_and_is_ready(tmp_path: Path) -> None:
    saved = checkpoint()
    saved.save(tmp_path / "c.pt")
    model = load_checkpoint(tmp_path / "c.pt").model()
    assert not model.training
    assert all(torch.equal(saved.weights[k], v) for k, v in model.state_dict().items())


def test_weights_of_another_configuration(tmp_path: Path) -> None:
    saved = checkpoint()
    wider = load_config("ours-p", [*TINY, "model.generator.width=4"])
    dataclasses.replace(saved, config=wider).save(tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="do not fit the configuration") as caught:
        load_checkpoint(tmp_path / "c.pt").model()
    assert caught.value.hint


@pytest.mark.parametrize("kind", ["single", "lite"])
def test_settings_that_are_gone(kind: str, tmp_path: Path) -> None:
    """Where they changed nothing the model is the same; where they did, it is no more."""
    path = tmp_path / "c.pt"
    checkpoint().save(path)
    content = payload(path)
    model = content["config"]["model"]
    model["generator"]["kind"] = kind
    model["keypoints"]["unshuffle"] = 1 if kind == "single" else 2
    model["motion"]["occlusion_maps"] = 1 if kind == "single" else 4
    content["config"]["loss"]["separation"] = 0.0
    torch.save(content, path)
    if kind == "single":
        assert load_checkpoint(path).config == checkpoint().config
    else:
        assert "train lite" in refused(path, "kind lite").hint


# -- files that are none ---------------------------------------------------------------------------


class Evil:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("whole", [True, False], ids=["inside a whole one", "alone"])
def test_malicious_pickle_does_not_run(tmp_path: Path, zipped: bool, whole: bool) -> None:
    path, trace = tmp_path / "evil.pt", tmp_path / "ran"
    checkpoint().save(path)
    content = {**payload(path), "resume": Evil(trace)} if whole else Evil(trace)
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    error = refused(path, "refused, because it holds more than weights")
    assert "mkdir" in error.message
    assert not trace.exists()


def test_command_line_leaves_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, trace = tmp_path / "evil.pt", tmp_path / "ran"
    torch.save(Evil(trace), path)
    assert main(["export", str(path), "-o", str(tmp_path / "bundle")]) == 3
    said = capsys.readouterr().err
    assert "holds more than weights" in said and "hint: " in said
    assert not trace.exists() and not (tmp_path / "bundle").exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    refused(tmp_path / "module.pt", "holds more than weights")


def test_missing_file_and_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none.pt", "no such checkpoint")
    refused(tmp_path, "no such checkpoint")


@pytest.mark.parametrize(
    "content",
    [b"", b"hello, I am a text\n" * 40, b"PK\x03\x04" + bytes(200), bytes(range(256)) * 20],
    ids=["empty", "text", "half a zip", "binary"],
)
def test_other_kinds_of_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    refused(path, "not a readable checkpoint")


@pytest.mark.parametrize("keep", [10, 300, 0.5, 0.99])
def test_truncated_file(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "cut.pt"
    checkpoint().save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep < 1 else int(keep)])
    refused(path, "not a readable checkpoint")


@settings(max_examples=40)
@given(data=st.data())
def test_damaged_bytes_never_end_in_another_error(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "damaged.pt"
    small = dataclasses.replace(checkpoint(), weights={"a": torch.ones(2)}, resume={})
    small.save(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        found = load_checkpoint(path)
    except CheckpointError:
        return
    assert isinstance(found.step, int)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sonomime_checkpoint": 2}, "not a sonomime checkpoint of format 1"),
        ({"sonomime_checkpoint": ...}, "not a sonomime checkpoint"),
        ({"config": ...}, "incomplete checkpoint: no 'config'"),
        ({"weights": ...}, "incomplete checkpoint: no 'weights'"),
        ({"config": {"modle": {}}}, "unknown key 'modle'"),
        ({"config": {"model": {"channels": 2}}}, "channels must be 1 or 3"),
        ({"config": [1]}, "not a whole checkpoint"),
        ({"step": "many"}, "not a whole checkpoint"),
        ({"weights": [1, 2]}, "weights are not tensors"),
        ({"weights": {"a": 3}}, "weights are not tensors"),
        ({"resume": 3}, "not a whole checkpoint"),
    ],
    ids=str,
)
def test_checkpoints_that_are_not_whole(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "c.pt"
    checkpoint().save(path)
    content = {k: v for k, v in {**payload(path), **change}.items() if v is not ...}
    torch.save(content, path)
    refused(path, message)


@pytest.mark.parametrize("content", [[1, 2], torch.ones(3), {"generator": {}}], ids=str)
def test_other_things_that_torch_saved(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.pt")
    error = refused(tmp_path / "other.pt", "not a sonomime checkpoint")
    assert "import-fomm" in error.hint
    assert type(read_weights_only(tmp_path / "other.pt", "")) is type(content)


# -- writing ---------------------------------------------------------------------------------------


def test_full_disk_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint(step=1).save(path)

    def fill(content: Any, target: Any) -> None:
        target.write(b"the first half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", fill)
    with pytest.raises(OutputError) as caught:
        checkpoint(step=2).save(path)
    assert caught.value.exit_code == 7 and "free some space" in caught.value.hint
    assert str(path) in caught.value.message
    assert os.listdir(tmp_path) == ["checkpoint.pt"] and load_checkpoint(path).step == 1


def test_the_systems_limit_on_files_is_told_as_such(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    path = tmp_path / "checkpoint.pt"
    checkpoint(step=1).save(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, hard))
    try:
        with pytest.raises(OutputError, match="File too large") as caught:
            checkpoint(step=2).save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "ulimit" in caught.value.hint
    assert os.listdir(tmp_path) == ["checkpoint.pt"] and load_checkpoint(path).step == 1


def test_interruption_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    checkpoint(step=1).save(path)

    def interrupt(content: Any, target: Any) -> None:
        target.write(b"the first half")
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        checkpoint(step=2).save(path)
    assert os.listdir(tmp_path) == ["checkpoint.pt"] and load_checkpoint(path).step == 1


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError) as caught:
        checkpoint().save(tmp_path / "file" / "checkpoint.pt")
    assert caught.value.hint
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError):
        checkpoint().save(tmp_path / "folder")
