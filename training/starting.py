"""What a run begins with: its own checkpoint (`--resume`) or another run's weights (`--from`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from ..runtime.support.errors import CheckpointError, ConfigError
from .checkpoint import Checkpoint
from .config import has, settings
from .data.keypoints import described, slip_hint, slips
from .trainer import Trainer

#: Model settings that `--from` may change, as it takes no weights for them: names or beginnings.
FREE_ON_START = ("model.matcher.stiff", "model.discriminator.")
#: Settings that `--resume` may change, with those of `train.*_every`.
FREE_ON_RESUME = {f"train.{name}" for name in ("max_steps", "epochs", "num_repeats", "accumulate")}
FREE_ON_RESUME |= {"data.workers"}


def resume_from(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Go on where ``checkpoint`` stopped: same batches, same numbers. (Another ``max_steps``
    changes the rate of a schedule that goes by it.)

    Raises:
        ConfigError: its settings, or the names of its labels, differ.
        CheckpointError: it has no state to resume, or one that does not fit.
    """
    differing = _differing(trainer, checkpoint) - FREE_ON_RESUME
    differing = {name for name in differing if not name.endswith("_every")}
    known, mine = checkpoint.supervised_names, trainer.supervised_names
    counted = {f"model.{trainer.family.label_network}.count"}  # follows from the labels
    if differing - counted or (differing and mine == known):
        fault = f"cannot resume: {_difference(trainer, checkpoint, differing)}"
        free = ", ".join(sorted(FREE_ON_RESUME))
        hint = f"give the same preset and --set, or another -o; {free}, train.*_every may change"
        raise ConfigError(fault, hint)
    if mine != known and (differing or (mine and known)):
        hint = "give the data that it was begun with"
        raise _other_labels(trainer, "cannot resume", known, hint)
    if not checkpoint.resume:
        hint = "it can be exported, not resumed"
        raise CheckpointError("this checkpoint holds weights only", hint)
    try:
        trainer.ema.load_state_dict(checkpoint.weights)
        for name, part in trainer.parts.items():
            part.load_state_dict(checkpoint.resume[name])
            if isinstance(part, torch.optim.Adam):
                _as_fused(part)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        fault = f"the checkpoint's state for resuming does not fit: {error}"
        hint = "resume from the file as it was saved, with the sonomime that saved it"
        raise CheckpointError(fault, hint) from error
    trainer.step = trainer.saved = checkpoint.step
    _keep_record(trainer, checkpoint)


def _as_fused(adam: torch.optim.Adam) -> None:
    """Versions before saved an Adam that was not fused, and moments of another memory layout than
    the weights', which torch's fused Adam does not look at on a CPU."""
    for group in adam.param_groups:
        group["fused"] = True
    for weight, state in adam.state.items():
        state["step"] = state["step"].to(weight.device, torch.float32)
        for name in ("exp_avg", "exp_avg_sq"):
            state[name] = torch.empty_like(weight).copy_(state[name])


def start_from(trainer: Trainer, checkpoint: Checkpoint) -> str:
    """Begin with the weights of another run, for fine-tuning, and keep its record of data. A
    network that learns labels alone begins untrained if the labels differ.

    Returns:
        A sentence for the user about what begins untrained or is left out; "" if nothing does.

    Raises:
        ConfigError: its model has other settings; a label seems to be one of its own, misspelt.
        CheckpointError: its weights do not fit them.
    """
    name = trainer.family.label_network
    known, mine = checkpoint.supervised_names, trainer.supervised_names
    differing = {key for key in _differing(trainer, checkpoint) if key.startswith("model.")}
    of_labels = {key for key in differing if name and key.startswith(f"model.{name}.")}
    free = {key for key in differing if key.startswith(FREE_ON_START)}
    if others := differing - of_labels - free:
        fault = f"cannot start: {_difference(trainer, checkpoint, others)}"
        hint = "give the settings of the checkpoint's model with --set"
        if "model.family" in others:
            hint = f"train the preset {checkpoint.config.preset!r}, or give another checkpoint"
        raise ConfigError(fault, hint)
    if isinstance(trainer.labels, Mapping) and known and slips(trainer.labels, known):
        raise _other_labels(trainer, "cannot start", known, "")
    fresh = bool(of_labels or (name and mine not in ([], known)))

    weights = checkpoint.weights
    if fresh:
        weights = {k: v for k, v in weights.items() if not k.startswith(f"{name}.")}
        own = trainer.model.state_dict().items()
        weights |= {k: v for k, v in own if k.startswith(f"{name}.")}
    try:
        for model in (trainer.model, trainer.ema):
            model.load_state_dict(weights)
    except RuntimeError as error:
        fault = f"weights do not fit the configuration: {error}"
        raise CheckpointError(fault, "use the file as it was saved") from error
    _keep_record(trainer, checkpoint)
    if not fresh or not (known or mine):
        return ""
    trainer.supervised_names = mine
    old, new = (", ".join(names) or "none" for names in (known, mine))
    if trainer.family.labels(trainer.config.model):
        return f"its {name}: {old}; this run's: {new}. The network for them begins untrained"
    keep = f"--set model.{name}.count={len(known)}"
    return f"its {name} ({old}) are left out: this run has no labels; {keep} keeps them"


def _other_labels(trainer: Trainer, what: str, known: Sequence[str], hint: str) -> ConfigError:
    labels = trainer.labels
    theirs, ours = (described(names) or "nothing" for names in (known, labels))
    fault = f"the data labels {ours}; the checkpoint knows {theirs}"
    if isinstance(labels, Mapping):
        hint = slip_hint(slips(labels, known)) or hint
    return ConfigError(f"{what}: {fault}", hint)


def _differing(trainer: Trainer, checkpoint: Checkpoint) -> set[str]:
    """Names of the settings that a checkpoint's configuration has otherwise. Those of other
    families alone do nothing, and nobody could give them."""
    theirs = {name: value for name, value, _ in settings(checkpoint.config)}
    mine, family = settings(trainer.config), trainer.config.model.family
    return {name for name, value, facts in mine if has(family, facts) and theirs[name] != value}


def _difference(trainer: Trainer, checkpoint: Checkpoint, names: set[str]) -> str:
    """What differs, in words; of another family the family alone."""
    theirs, mine = checkpoint.config, trainer.config
    if theirs.model.family != mine.model.family:
        return (
            f"the checkpoint is of the preset {theirs.preset!r}, a model of the family "
            f"{theirs.model.family!r}; this run's is {mine.preset!r}, {mine.model.family!r}"
        )
    of = "" if theirs.preset == mine.preset else f" (of the preset {theirs.preset!r})"
    return f"different in the checkpoint{of}: {', '.join(sorted(names))}"


def _keep_record(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Keep what the weights were trained on, and keypoint names where this run has none."""
    trainer.data = [*(d for d in checkpoint.data if d not in trainer.data), *trainer.data]
    trainer.supervised_names = trainer.supervised_names or checkpoint.supervised_names
