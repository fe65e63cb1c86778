"""The trainer: every loss reaches what it should, nothing spoils the weights, the log is right."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sonomime.runtime.animator import Animator
from sonomime.runtime.support.errors import CheckpointError, ConfigError, OutputError
from sonomime.training.checkpoint import load_checkpoint
from sonomime.training.data.batch import PairBatch, flow_weights
from sonomime.training.logbook import Logbook
from sonomime.training.loop import train
from sonomime.training.models.matching import losses
from sonomime.training.torch_backend import open_session
from sonomime.training.trainer import Trainer

from .small_runs import SIZE, batch, config, make, silent, unlabelled


def test_labels_must_match_the_supervised_keypoints(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Trainer(config(), batch, tmp_path, ["a", "b"], [])
    # A model without supervised keypoints ignores them.
    settings = config("model.keypoints.supervised=0")
    result = Trainer(settings, batch, tmp_path, [], []).train_step()
    assert "supervision" not in result.losses


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_stops_before_it_spoils_the_weights(where: str, tmp_path: Path) -> None:
    def broken(step: int) -> PairBatch:
        whole = batch(step)
        return whole._replace(driving=whole.driving * float("nan")) if where == "loss" else whole

    trainer = Trainer(config(), broken, tmp_path, ["bladder_neck"], [])
    before = [p.detach().clone() for p in trainer.model.parameters()]
    if where == "gradient":
        bias = trainer.model.generator.content.final.bias
        bias.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(CheckpointError) as error:
        train(trainer, False, None, silent)
    assert "last checkpoint" in error.value.hint
    assert all(map(torch.equal, before, trainer.model.parameters()))
    assert not (tmp_path / "checkpoint.pt").exists()


def test_batchnorm_is_the_mean_over_batches_without_a_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(tmp_path, config("train.batchnorm_batches=3"))
    trainer.train_step()
    wanted: dict[str, list[torch.Tensor]] = {}
    for step in (1, 2, 3):
        one = copy.deepcopy(trainer.ema).train()
        for norm in one.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.momentum = 1.0  # what remains is this batch alone
        with torch.no_grad():
            trainer.objective.run(one, batch(step), step)
        for name, value in one.state_dict().items():
            if name.endswith(("running_mean", "running_var")):
                wanted.setdefault(name, []).append(value)
    # A feature network at four scales would cost more than the model.
    monkeypatch.setattr(trainer.objective, "forward", None)
    assert trainer.estimate_batchnorm() == 3
    found = trainer.ema.state_dict()
    assert wanted
    for name, values in wanted.items():
        assert torch.allclose(found[name], torch.stack(values).mean(0), rtol=1e-4, atol=1e-6), name


def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    path = train(make(tmp_path, config("train.max_steps=1")), False, None, silent)
    whole = load_checkpoint(path)
    with pytest.raises(ConfigError) as error:
        make(tmp_path, config("train.seed=7")).load(whole)
    assert "train.seed" in error.value.message
    spoilt = {"model": {}, "optimizer": {}}, {**whole.resume, "discriminator": None}, {"model": 3}
    for resume in (*spoilt, {}):
        whole.resume = resume
        with pytest.raises(CheckpointError):
            make(tmp_path, config()).load(whole)


def test_the_flow_loss_decays_and_exact_flow_may_stay(tmp_path: Path) -> None:
    flow = ("loss.flow=8.0", "loss.flow_until=4")
    for kept in (0.0, 3.0):
        settings = config(*flow, f"loss.flow_exact={kept}", preset="lite")
        weights = [flow_weights(settings.loss, step) for step in (0, 2, 3, 4, 9)]
        assert weights == [(8, 8), (4, 4), (2, max(2, kept)), (0, kept), (0, kept)]
        trainer = make(tmp_path, settings)
        exact = torch.tensor([False, True])
        pairs = unlabelled(0)._replace(flow_exact=exact, bent=~exact)
        result = trainer.objective(trainer.model, pairs, 9, None)
        match, _ = trainer.model.match(*trainer.model.observe_both(pairs.driving, pairs.source))
        error, _ = losses.endpoint(match, pairs.flow, pairs.flow_valid, torch.tensor([0.0, kept]))
        assert (error > 0) == (kept > 0)
        assert result.losses["flow"].item() == pytest.approx(error.item(), rel=1e-5)


def test_the_rate_warms_up_follows_its_cosine_and_is_logged(tmp_path: Path) -> None:
    cosine = ("train.schedule=cosine", "train.learning_rate=1.0")
    trainer = make(tmp_path, config(*cosine, "train.max_steps=10", "train.warmup=2"))
    rates = []
    for step in (0, 1, 5, 10):
        trainer.step = step
        rates.append(trainer.learning_rate())
    assert rates == pytest.approx([0.5, 0.5 * (1 + np.cos(np.pi / 10)), 0.5, 0.0])
    settings = config("train.schedule=cosine", "train.max_steps=2", preset="lite")
    train(make(tmp_path, settings), False, None, silent)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    full = settings.train.learning_rate
    assert [json.loads(line)["rate"] for line in lines] == pytest.approx([full, full / 2])


def test_the_log_drops_what_is_run_again(tmp_path: Path) -> None:
    with Logbook(tmp_path, 0) as book:
        for step in (1, 2, 3):
            book.write(step, {"l1": 0.5})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "l1"')  # killed while writing
    with Logbook(tmp_path, 2):
        lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]


def test_a_picture_that_the_disk_refuses_is_an_error(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Logbook(tmp_path, 0) as book:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
        try:
            with pytest.raises(OutputError):
                book.picture(1, noise)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list((tmp_path / "pictures").iterdir()) == []


@pytest.mark.parametrize(
    ("preset", "motion", "shape"),
    [("ours-ptg", "deformation", (1, 16, 16, 2)), ("lite", "displacement", (1, 8, 8, 2))],
)
def test_a_checkpoint_animates(
    preset: str, motion: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    settings = config("train.max_steps=1", preset=preset)
    checkpoint = load_checkpoint(train(make(tmp_path, settings), False, None, silent))
    animator = Animator(open_session(checkpoint))
    random = np.random.default_rng(0)
    source, driving = (random.integers(0, 255, (48, 70), dtype=np.uint8) for _ in range(2))
    animator.set_source(source)
    frame = animator.animate(driving)
    assert frame.shape == (SIZE, SIZE) and frame.dtype == np.uint8
    assert animator.read(motion).shape == shape
    if preset == "ours-ptg":  # the first frame is its own reference: the source's own pose
        image = torch.tensor(animator.read("source_image")) / 255
        value = checkpoint.model().keypoint_detector(image).value.detach().numpy()
        assert np.allclose(animator.read("target_kp_value"), value, atol=1e-5)


def test_a_model_that_would_learn_no_image_is_refused(tmp_path: Path) -> None:
    loss = dataclasses.replace(config().loss, content=0.0, reconstruction=0.0, adversarial=0.0)
    with pytest.raises(ConfigError) as error:
        make(tmp_path, dataclasses.replace(config(), loss=loss))
    assert "perceptual_network" in error.value.hint
