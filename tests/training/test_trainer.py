"""The trainer: every loss reaches what it should, nothing spoils the weights, the log is right."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from sonomime.runtime.support.errors import CheckpointError, ConfigError, OutputError
from sonomime.training.checkpoint import Checkpoint, load_checkpoint
from sonomime.training.config import Config
from sonomime.training.data.batch import PairBatch
from sonomime.training.logbook import Logbook
from sonomime.training.loop import train
from sonomime.training.models.families import family_of
from sonomime.training.optimisation import learning_rate
from sonomime.training.starting import resume_from, start_from
from sonomime.training.trainer import Trainer
from sonomime.training.watch import Watch

from .small_runs import batch, config, full_after, logged, make, trained, unlabelled


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
        trained(trainer)
    assert "train.learning_rate" in error.value.hint and "--from" not in error.value.hint
    assert all(map(torch.equal, before, trainer.model.parameters()))
    assert not (tmp_path / "checkpoint.pt").exists()


def test_batchnorm_is_the_mean_over_batches_without_a_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(tmp_path, config("train.batchnorm_batches=3"))
    trainer.train_step()
    seen: list[dict[str, torch.Tensor]] = []
    for step in (1, 2, 3):
        one = copy.deepcopy(trainer.ema).train()
        for norm in one.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.momentum = 1.0  # what remains is this batch alone
        with torch.no_grad():
            trainer.objective.run(one, batch(step), step)
        seen.append(one.state_dict())
    # A feature network at four scales would cost more than the model.
    monkeypatch.setattr(trainer.objective, "forward", None)
    assert trainer.estimate_batchnorm() == 3
    found = trainer.ema.state_dict()
    names = [name for name in found if name.endswith(("running_mean", "running_var"))]
    assert names
    for name in names:
        mean = torch.stack([state[name] for state in seen]).mean(0)
        assert torch.allclose(found[name], mean, rtol=1e-4, atol=1e-6), name


def test_what_cannot_be_resumed(tmp_path: Path) -> None:
    whole = trained(make(tmp_path, config("train.max_steps=1")))
    with pytest.raises(ConfigError) as error:
        resume_from(make(tmp_path, config("train.seed=7")), whole)
    assert "train.seed" in error.value.message
    trainer = make(tmp_path, config())
    spoilt = {"model": {}, "optimizer": {}}, {**whole.resume, "discriminator": None}, {"model": 3}
    for resume in (*spoilt, {}):
        with pytest.raises(CheckpointError):
            resume_from(trainer, dataclasses.replace(whole, resume=resume))


def test_an_optimizer_of_an_earlier_version_goes_on_with_the_same_numbers(tmp_path: Path) -> None:
    """It was not fused, and its discriminator had another memory layout."""
    whole = trained(make(tmp_path, config("train.max_steps=1")))
    older = copy.deepcopy(whole)
    for name in ("optimizer", "discriminator_optimizer"):
        saved = older.resume[name]
        saved["param_groups"][0]["fused"] = None
        for state in saved["state"].values():
            state["exp_avg"] = state["exp_avg"].contiguous()
            state["exp_avg_sq"] = state["exp_avg_sq"].contiguous()
    found = []
    for checkpoint in (whole, older):
        trainer = make(tmp_path / "again", config())
        resume_from(trainer, checkpoint)
        trainer.train_step()
        found.append([*trainer.model.parameters(), *trainer.discriminator.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_settings_of_other_families_do_not_keep_a_run_from_resuming(tmp_path: Path) -> None:
    """An older checkpoint holds defaults that have changed since; no option could give them."""
    settings = config("train.max_steps=1", preset="lite")
    whole = trained(make(tmp_path, settings))
    others = dataclasses.replace(settings.loss, supervision=100.0, spline=0.005)
    older = dataclasses.replace(whole, config=dataclasses.replace(settings, loss=others))
    trainer = make(tmp_path, settings)
    resume_from(trainer, older)
    assert trainer.step == 1


def test_the_rate_warms_up_follows_its_cosine_and_is_logged(tmp_path: Path) -> None:
    cosine = ("train.schedule=cosine", "train.learning_rate=1.0", "train.warmup=2")
    planned = config(*cosine, "train.max_steps=10").train
    rates = [learning_rate(planned, step) for step in (0, 1, 5, 10)]
    assert rates == pytest.approx([0.5, 0.5 * (1 + np.cos(np.pi / 10)), 0.5, 0.0])
    settings = config("train.schedule=cosine", "train.max_steps=2", preset="lite")
    trained(make(tmp_path, settings))
    full = settings.train.learning_rate
    assert [line["rate"] for line in logged(tmp_path)] == pytest.approx([full, full / 2])


def test_a_picture_that_the_disk_refuses_is_an_error(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    book = Logbook(tmp_path, 0, Watch(config()), print)
    with full_after(2000), pytest.raises(OutputError):
        book.look(1, noise, {})
    assert list((tmp_path / "pictures").iterdir()) == []


# -- fine-tuning -----------------------------------------------------------------------------------

ONE_STEP = config("train.max_steps=1", preset="ours-p")


def weights_of(settings: Config) -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    state: dict[str, torch.Tensor] = family_of(settings.model).model(settings.model).state_dict()
    return state


def test_a_run_begins_with_the_weights_and_keeps_the_record(tmp_path: Path) -> None:
    weights, run = weights_of(ONE_STEP), tmp_path / "run"
    Checkpoint(ONE_STEP, 9, weights, ["neck"], [{"name": "first"}]).save(tmp_path / "old.pt")
    said: list[str] = []
    for steps in (1, 2):  # the second time it resumes with its own weights
        longer = config(f"train.max_steps={steps}", preset="ours-p")
        trainer = Trainer(longer, batch, run, [], [{"name": "mine"}])
        train(trainer, True, None, said.append, tmp_path / "old.pt")
    assert sum("starting from the weights" in line for line in said) == 1
    assert any("resuming at step 1" in line for line in said)
    kept = load_checkpoint(run / "checkpoint.pt")
    assert kept.step == 2
    assert kept.data == [{"name": "first"}, {"name": "mine"}]
    assert kept.supervised_names == ["neck"]


def test_weights_or_a_model_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    weights = weights_of(ONE_STEP)
    trainer = make(tmp_path / "run", ONE_STEP)
    other = config("model.keypoints.width=8", preset="ours-p")
    with pytest.raises(ConfigError) as error:
        start_from(trainer, Checkpoint(other, 9, weights_of(other)))
    assert "model.keypoints.width" in error.value.message
    judged = config("model.discriminator.width=8", preset="ours-p")  # its weights are not taken
    assert start_from(trainer, Checkpoint(judged, 9, weights)) == ""
    weights.popitem()
    with pytest.raises(CheckpointError):
        start_from(trainer, Checkpoint(ONE_STEP, 9, weights))


@pytest.mark.parametrize(
    ("old", "new", "mine", "kept", "names"),
    [
        (0, "count=2", "apex neck", False, "apex neck"),
        (2, "count=1", "other", False, "other"),
        (2, "count=2", "one other", False, "one other"),
        (2, "count=2, width=16", "apex neck", False, "apex neck"),
        (2, "count=2", "", True, "apex neck"),
        (2, "count=0", "", None, ""),
    ],
)
def test_landmarks_that_differ_begin_untrained(
    tmp_path: Path, old: int, new: str, mine: str, kept: bool | None, names: str
) -> None:
    theirs = config(f"model.landmarks={{count={old}}}", preset="lite")
    weights = weights_of(theirs)
    free = "model.matcher.stiff=8"  # which has no weights
    ours = config(f"model.landmarks={{{new}}}", free, preset="lite")
    trainer = Trainer(ours, unlabelled, tmp_path / "run", mine.split(), [])
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    said = start_from(trainer, Checkpoint(theirs, 9, weights, ["apex", "neck"][:old]))
    assert bool(said) == (kept is not True)
    assert trainer.supervised_names == names.split()
    for model in (trainer.model, trainer.ema):
        for name, value in model.state_dict().items():
            loaded = kept or not name.startswith("landmarks.")
            assert torch.equal(value, weights[name] if loaded else before[name]), name


def test_frozen_batchnorm_keeps_the_statistics_that_it_started_from(tmp_path: Path) -> None:
    frozen = config("train.batchnorm=frozen", "train.max_steps=2", preset="ours-p")
    with pytest.raises(ConfigError) as error:
        trained(make(tmp_path / "run", frozen))
    assert "--from" in error.value.hint
    weights = weights_of(ONE_STEP)
    for name in weights:
        if name.endswith("running_mean"):
            weights[name] = torch.rand_like(weights[name])
    Checkpoint(ONE_STEP, 9, weights).save(tmp_path / "old.pt")
    made = trained(make(tmp_path / "run", frozen), start=tmp_path / "old.pt").weights
    kept = {name for name in weights if name.endswith(("running_mean", "running_var"))}
    assert kept and all(torch.equal(made[name], weights[name]) for name in kept)
    assert any(not torch.equal(made[name], weights[name]) for name in set(weights) - kept)
