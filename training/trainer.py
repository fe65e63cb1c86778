"""One training step, and everything that a checkpoint must keep."""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from .. import __version__
from ..runtime.support.dataclass_parser import plain
from ..runtime.support.errors import CheckpointError, ConfigError
from ..runtime.support.progress import progress
from .checkpoint import Checkpoint
from .config import Config, settings
from .data.batch import PairBatch, Sampler
from .data.keypoints import described, slip_hint, slips
from .models import image_losses
from .models.base import StepResult
from .models.families import family_of
from .models.image_losses import Discriminator
from .probe import Look, look

#: Model settings that have no weights: `--from` may change them.
FREE_ON_START = {"model.matcher.stiff"}
PROBE = 4  # pairs that are looked at again and again


class Trainer:
    """A model in training."""

    def __init__(
        self,
        config: Config,
        sampler: Sampler,
        run: Path,
        supervised_names: Sequence[str] | Mapping[str, int],
        data: list[dict[str, Any]],
    ) -> None:
        self.family = family_of(config.model)
        self.family.check_labels(config.model, supervised_names)
        self.config, self.sampler, self.run = config, sampler, run
        self.supervised_names, self.data = list(supervised_names), data
        self._labels = supervised_names  # with counts, where they are known
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(config.train.seed)
        model = self.family.model(config.model)
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.objective = self.family.objective(config).to(self.device)
        self.optimizer = self._adam(self.model)
        #: What a checkpoint keeps for resuming, beside the EMA weights.
        self.parts: dict[str, Any] = {"model": self.model, "optimizer": self.optimizer}
        self.discriminator: Discriminator | None = None
        if config.loss.adversarial > 0 or config.loss.feature_matching > 0:
            seen = self.family.judged_channels(config.model)
            judge = Discriminator(config.model.discriminator, seen)
            self.discriminator = judge.to(self.device)
            self.discriminator_optimizer = self._adam(self.discriminator)
            self.parts["discriminator"] = self.discriminator
            self.parts["discriminator_optimizer"] = self.discriminator_optimizer
        self.step = 0
        self._probe: PairBatch | None = None
        self.forward_seconds: deque[float] = deque(maxlen=9)

    def _adam(self, network: nn.Module) -> torch.optim.Adam:
        train = self.config.train
        betas = (train.beta1, train.beta2)
        return torch.optim.Adam(network.parameters(), train.learning_rate, betas)

    def learning_rate(self) -> float:
        """This step's rate: linear warm-up, then constant or a cosine to 0 at ``max_steps``."""
        train = self.config.train
        rate = train.learning_rate * min(1.0, (self.step + 1) / max(1, train.warmup))
        if train.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / train.max_steps)))
        return rate

    def _autocast(self) -> torch.autocast:
        bf16 = self.config.train.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=bf16)

    def batch(self, step: int) -> PairBatch:
        """The batch of a step, on the device."""
        batch = self.sampler(step).map(lambda tensor: tensor.to(self.device))
        if step == 0:
            self._probe = batch.map(lambda tensor: tensor[:PROBE])
        return batch

    def train_step(self) -> StepResult:
        """Draw the batch of this step and update every network once.

        Raises:
            CheckpointError: a loss or a gradient is not finite; no network was updated with it.
        """
        self.model.train()
        for norm in _norms(self.model):
            norm.train(self.config.train.batchnorm != "frozen")
        start = time.monotonic()
        batch, rate = self.batch(self.step), self.learning_rate()
        if self.discriminator is not None:
            self.discriminator.requires_grad_(False)
        with self._autocast():
            result: StepResult = self.objective(self.model, batch, self.step, self.discriminator)
        self.forward_seconds.append(time.monotonic() - start)
        total = torch.stack(list(result.losses.values())).sum()
        self._update(self.optimizer, rate, total, self.model.networks())
        if self.discriminator is not None:
            self.discriminator.requires_grad_(True)
            with self._autocast():
                judged = (self.discriminator(each.detach()) for each in result.judged)
                loss = image_losses.lsgan_discriminator(*judged)
            self._update(self.discriminator_optimizer, rate, loss, [self.discriminator])
            result.losses["discriminator"] = loss
        self._average()
        self.step += 1
        return result

    def _update(
        self, optimizer: torch.optim.Optimizer, rate: float, loss: Tensor, networks: list[nn.Module]
    ) -> None:
        """Backward, clip each network's gradient by its largest element, step."""
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        most = self.config.train.grad_clip
        norms = [
            nn.utils.clip_grad_norm_(network.parameters(), most, norm_type=math.inf)
            for network in networks
        ]
        # Even a finite loss may have a gradient that is not.
        for what, value in (("the loss", loss), *(("a gradient", norm) for norm in norms)):
            if not torch.isfinite(value):
                fault = f"{what} became {value.item()} at step {self.step}"
                hint = "resume from the last checkpoint with a smaller train.learning_rate"
                raise CheckpointError(fault, hint)
        optimizer.step()

    @torch.no_grad()
    def _average(self) -> None:
        """Move the EMA of weights and BatchNorm's statistics; faster at first, to forget the start.
        (torch's AveragedModel copies at its first update, and prefixes every weight's name.)"""
        decay = min(self.config.train.ema, (1 + self.step) / (10 + self.step))
        ours, theirs = self.ema.state_dict(), self.model.state_dict()
        floating = [k for k in ours if ours[k].is_floating_point()]
        torch._foreach_lerp_([ours[k] for k in floating], [theirs[k] for k in floating], 1 - decay)

    def batches_to_estimate(self) -> int:
        """How many batches :meth:`estimate_batchnorm` wants; 0 where there is nothing to do."""
        train = self.config.train
        return train.batchnorm_batches if train.batchnorm == "batch" and _norms(self.ema) else 0

    def seconds_to_estimate(self) -> float:
        """How long that will take, by the forward passes of the last steps; 0 before the first."""
        return self.batches_to_estimate() * median(self.forward_seconds or [0.0])

    @torch.no_grad()
    def estimate_batchnorm(self, deadline: float = math.inf) -> int:
        """Re-estimate BatchNorm's statistics for the EMA weights; how many batches were seen: at
        least one, even after the deadline (of time.monotonic())."""
        if (count := self.batches_to_estimate()) == 0:
            return 0
        for norm in _norms(self.ema):
            norm.reset_running_stats()
            norm.momentum = None  # cumulative average
        self.ema.train()
        steps = range(self.step, self.step + count)
        for step in progress(steps, label="estimating BatchNorm"):
            with self._autocast():
                self.objective.run(self.ema, self.batch(step), step)
            if time.monotonic() >= deadline:
                break
        self.ema.eval()
        return step + 1 - self.step

    def save(self, path: Path) -> None:
        """Write the whole state; ``weights`` are the EMA weights."""
        resume = {name: part.state_dict() for name, part in self.parts.items()}
        weights, names = self.ema.state_dict(), self.supervised_names
        Checkpoint(self.config, self.step, weights, names, self.data, resume).save(path)

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on where ``checkpoint`` stopped: same batches, same numbers. (Under a cosine schedule
        another ``max_steps`` changes the rate.)

        Raises:
            ConfigError: its settings, or the names of its labels, differ.
            CheckpointError: it has no state to resume, or one that does not fit.
        """
        differing = self._differing(checkpoint) - {"train.max_steps"}
        if differing := {name for name in differing if not name.endswith("_every")}:
            fault = f"cannot resume: different in the checkpoint: {', '.join(sorted(differing))}"
            hint = "give the same preset and --set; train.max_steps and train.*_every may change"
            raise ConfigError(fault, hint)
        known, mine = checkpoint.supervised_names, self.supervised_names
        if mine and known and mine != known:
            raise self._other_labels("cannot resume", known, "give the data that it was begun with")
        if not checkpoint.resume:
            hint = "it can be exported, not resumed"
            raise CheckpointError("this checkpoint holds weights only", hint)
        try:
            self.ema.load_state_dict(checkpoint.weights)
            for name, part in self.parts.items():
                part.load_state_dict(checkpoint.resume[name])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            fault = f"the checkpoint's state for resuming does not fit: {error}"
            hint = "resume from the file as it was saved, with the sonomime that saved it"
            raise CheckpointError(fault, hint) from error
        self.step = checkpoint.step
        self._keep_record(checkpoint)

    def start_from(self, checkpoint: Checkpoint) -> str:
        """Begin with the weights of another run, for fine-tuning, and keep its record of data. A
        network that learns labels alone begins untrained if the labels differ.

        Returns:
            A sentence for the user about what begins untrained or is left out; "" if nothing does.

        Raises:
            ConfigError: its model has other settings; a label seems to be one of its own, misspelt.
            CheckpointError: its weights do not fit them.
        """
        name = self.family.label_network
        known, mine = checkpoint.supervised_names, self.supervised_names
        differing = {key for key in self._differing(checkpoint) if key.startswith("model.")}
        of_labels = {key for key in differing if name and key.startswith(f"model.{name}.")}
        if others := differing - of_labels - FREE_ON_START:
            fault = f"cannot start: different in the checkpoint: {', '.join(sorted(others))}"
            raise ConfigError(fault, "give the settings of the checkpoint's model with --set")
        if isinstance(self._labels, Mapping) and known and slips(self._labels, known):
            raise self._other_labels("cannot start", known, "")
        fresh = bool(of_labels or (name and mine not in ([], known)))

        weights = checkpoint.weights
        if fresh:
            weights = {k: v for k, v in weights.items() if not k.startswith(f"{name}.")}
            own = self.model.state_dict().items()
            weights |= {k: v for k, v in own if k.startswith(f"{name}.")}
        try:
            for model in (self.model, self.ema):
                model.load_state_dict(weights)
        except RuntimeError as error:
            fault = f"weights do not fit the configuration: {error}"
            raise CheckpointError(fault, "use the file as it was saved") from error
        self._keep_record(checkpoint)
        if not fresh or not (known or mine):
            return ""
        self.supervised_names = mine
        old, new = (", ".join(names) or "none" for names in (known, mine))
        if self.family.labels(self.config.model):
            return f"its {name}: {old}; this run's: {new}. The network for them begins untrained"
        keep = f"--set model.{name}.count={len(known)}"
        return f"its {name} ({old}) are left out: this run has no labels; {keep} keeps them"

    def _other_labels(self, what: str, known: Sequence[str], hint: str) -> ConfigError:
        fault = (
            f"the data labels {described(self._labels)}; the checkpoint knows {described(known)}"
        )
        if isinstance(self._labels, Mapping):
            hint = slip_hint(slips(self._labels, known)) or hint
        return ConfigError(f"{what}: {fault}", hint)

    def _differing(self, checkpoint: Checkpoint) -> set[str]:
        """Names of the settings that a checkpoint's configuration has otherwise."""
        theirs = {name: value for name, value, _ in settings(checkpoint.config)}
        return {name for name, value, _ in settings(self.config) if theirs[name] != value}

    def _keep_record(self, checkpoint: Checkpoint) -> None:
        """Keep what the weights were trained on, and keypoint names where this run has none."""
        self.data = [*(d for d in checkpoint.data if d not in self.data), *self.data]
        self.supervised_names = self.supervised_names or checkpoint.supervised_names

    @torch.no_grad()
    def look(self) -> Look:
        """What the EMA model makes of the probe: the first pairs of the run, always the same, so
        that looks can be compared."""
        probe = self._probe or self.batch(0).map(lambda tensor: tensor[:PROBE])
        self.ema.eval()
        return look(self.family.columns(self.ema, probe), self.config.model.geometry)

    def facts(self) -> dict[str, Any]:
        """What is trained, for run.json: plain JSON types. Of the data no names of subjects."""
        cuda = self.device.type == "cuda"
        count = torch.get_num_threads()
        threads = f"CPU, {count} thread{'s' if count > 1 else ''}"
        data = [
            {
                "name": each["name"],
                "clips": sum(map(len, each.get("clips", {}).values())),
                "subjects": len(each.get("clips", {})),
            }
            for each in self.data
        ]
        return {
            "sonomime": __version__,
            "device": torch.cuda.get_device_name() if cuda else threads,
            "weights": sum(p.numel() for p in self.model.parameters()),
            "labels": self.supervised_names,
            "data": data,
            "config": plain(self.config),
        }


def _norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
