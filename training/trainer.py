"""The training loop: read it from top to bottom."""

from __future__ import annotations

import copy
import math
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime.support.errors import CheckpointError, ConfigError
from ..runtime.support.progress import progress
from .checkpoint import Checkpoint
from .config import Config, config_to_dict
from .data.batch import PairBatch
from .logbook import picture_grid
from .models import image_losses
from .models.base import StepResult
from .models.discriminator import Discriminator
from .models.families import family_of

Sampler = Callable[[int], PairBatch]  # a pure function of the step, so that resuming is exact


class Trainer:
    """A model in training and everything that a checkpoint must keep."""

    def __init__(
        self,
        config: Config,
        sampler: Sampler,
        run: Path,
        supervised_names: list[str],
        data: list[dict[str, Any]],
    ) -> None:
        self.family = family_of(config.model)
        self.family.check_labels(config.model, supervised_names)
        self.config, self.sampler, self.run = config, sampler, run
        self.supervised_names, self.data = supervised_names, data
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(config.train.seed)
        train = config.train
        model = self.family.model(config.model)
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.ema = copy.deepcopy(self.model).requires_grad_(False)
        self.objective = self.family.objective(config).to(self.device)
        betas = (train.beta1, train.beta2)
        self.optimizer = torch.optim.Adam(self.model.parameters(), train.learning_rate, betas)
        self.discriminator: Discriminator | None = None
        if config.loss.adversarial > 0 or config.loss.feature_matching > 0:
            self.discriminator = Discriminator(
                config.model.discriminator, config.model.channels
            ).to(self.device)
            self.discriminator_optimizer = torch.optim.Adam(
                self.discriminator.parameters(), train.learning_rate, betas
            )
        self.step = 0
        self.forward_seconds: deque[float] = deque(maxlen=9)

    def learning_rate(self) -> float:
        """This step's rate: linear warm-up, then constant or a cosine to 0 at ``max_steps``."""
        train = self.config.train
        rate = train.learning_rate * min(1.0, (self.step + 1) / max(1, train.warmup))
        if train.schedule == "cosine":
            rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, self.step / train.max_steps)))
        return rate

    def autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.train.precision == "bf16"
        )

    def batch(self, step: int) -> PairBatch:
        return PairBatch(
            *(t.to(self.device) if isinstance(t, Tensor) else t for t in self.sampler(step))
        )

    def train_step(self) -> StepResult:
        """Draw the batch of this step and update every network once."""
        self.model.train()
        if self.config.train.batchnorm == "frozen":
            # Small batches of several anatomies differ from each other and from what the running
            # statistics say: a model that ends its training with those is judged as it was trained.
            for norm in _norms(self.model):
                norm.eval()
        start = time.monotonic()
        batch, rate = self.batch(self.step), self.learning_rate()
        if self.discriminator is not None:
            self.discriminator.requires_grad_(False)
        with self.autocast():
            result: StepResult = self.objective(self.model, batch, self.step, self.discriminator)
        self.forward_seconds.append(time.monotonic() - start)
        total = torch.stack(list(result.losses.values())).sum()
        self.update(self.optimizer, rate, total, self.model.networks())
        if self.discriminator is not None:
            self.discriminator.requires_grad_(True)
            with self.autocast():
                fake = self.discriminator(result.prediction.detach())
                loss = image_losses.lsgan_discriminator(self.discriminator(batch.driving), fake)
            self.update(self.discriminator_optimizer, rate, loss, [self.discriminator])
            result.losses["discriminator"] = loss
        self.follow()
        self.step += 1
        return result

    def update(
        self, optimizer: torch.optim.Optimizer, rate: float, loss: Tensor, networks: list[nn.Module]
    ) -> None:
        """Backward, clip each network's gradient by its largest element, step."""
        self.refuse_unless_finite("the loss", loss)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for network in networks:
            norm = nn.utils.clip_grad_norm_(
                network.parameters(), self.config.train.grad_clip, norm_type=math.inf
            )
            # A finite loss may have a gradient that is not: one step with it, and a checkpoint of
            # these weights, would be the end of the run.
            self.refuse_unless_finite("a gradient", norm)
        optimizer.step()

    def refuse_unless_finite(self, what: str, value: Tensor) -> None:
        if not torch.isfinite(value):
            raise CheckpointError(
                f"{what} became {value.item()} at step {self.step}",
                "resume from the last checkpoint with a smaller train.learning_rate",
            )

    @torch.no_grad()
    def follow(self) -> None:
        """EMA of weights and BatchNorm's statistics; shorter at first, to forget the start."""
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
        """Re-estimate BatchNorm's statistics for the EMA weights on batches of the data.

        Args:
            deadline: on time.monotonic()'s clock; at least one batch is seen, even after it.

        Returns:
            How many batches were seen.
        """
        count = self.batches_to_estimate()
        if count < 1:
            return 0
        norms = _norms(self.ema)
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # cumulative average
        self.ema.train()
        seen = 0
        for i in progress(range(count), label="estimating BatchNorm"):
            if i > 0 and time.monotonic() >= deadline:
                break
            with self.autocast():
                self.objective.run(self.ema, self.batch(self.step + i), self.step + i)
            seen += 1
        self.ema.eval()
        for norm in norms:
            norm.momentum = 0.1
        return seen

    def save(self, path: Path) -> None:
        """Write the whole state; ``weights`` are the EMA weights."""
        resume: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        if self.discriminator is not None:
            resume["discriminator"] = self.discriminator.state_dict()
            resume["discriminator_optimizer"] = self.discriminator_optimizer.state_dict()
        Checkpoint(
            self.config, self.step, self.ema.state_dict(), self.supervised_names, self.data, resume
        ).save(path)

    def load(self, checkpoint: Checkpoint) -> None:
        """Go on where ``checkpoint`` stopped: same batches, same numbers."""
        differing = _differing(config_to_dict(checkpoint.config), config_to_dict(self.config))
        if differing:
            raise ConfigError(
                f"cannot resume: {', '.join(differing)} differ(s) from the checkpoint's",
                "resume with the same preset and --set values; train.max_steps and the "
                "train.*_every may change",
            )
        if not checkpoint.resume:
            raise CheckpointError(
                "this checkpoint holds weights only", "it can be exported, not resumed"
            )
        parts: dict[str, Any] = {"model": self.model, "optimizer": self.optimizer}
        if self.discriminator is not None:
            parts["discriminator"] = self.discriminator
            parts["discriminator_optimizer"] = self.discriminator_optimizer
        try:
            self.ema.load_state_dict(checkpoint.weights)
            for name, part in parts.items():
                part.load_state_dict(checkpoint.resume[name])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"what this checkpoint keeps for resuming does not fit: {error}",
                "resume from the file as it was saved, with the sonomime that saved it",
            ) from error
        self.step = checkpoint.step
        self._keep_record(checkpoint)

    def start_from(self, checkpoint: Checkpoint) -> str:
        """Begin with the weights of another run, for fine-tuning; what that was trained on stays
        on record. A network that learns nothing but labels begins untrained where they are others.

        Returns:
            What begins untrained or is left out, in a sentence for the user; "" where nothing does.

        Raises:
            ConfigError: its model has other settings.
            CheckpointError: its weights do not fit them.
        """
        theirs, ours = (config_to_dict(c)["model"] for c in (checkpoint.config, self.config))
        name, known = self.family.label_network, checkpoint.supervised_names
        fresh = name != "" and (
            theirs[name] != ours[name] or self.supervised_names not in ([], known)
        )
        if fresh:
            theirs[name] = ours[name]
        differing = set(_differing(theirs, ours, "model.")) - set(FREE_ON_START)
        if differing:
            raise ConfigError(
                f"cannot start from this checkpoint: {', '.join(sorted(differing))} differ(s)",
                "give the settings of the checkpoint's model with --set",
            )
        try:
            for model in (self.model, self.ema):
                own = {k: v for k, v in model.state_dict().items() if fresh and _of(k, name)}
                kept = {k: v for k, v in checkpoint.weights.items() if not (fresh and _of(k, name))}
                model.load_state_dict(kept | own)
        except RuntimeError as error:
            raise CheckpointError(
                f"weights do not fit the configuration: {error}", "use the file as it was saved"
            ) from error
        mine = self.supervised_names
        self._keep_record(checkpoint)
        if fresh:
            self.supervised_names = mine
        if not fresh or not (known or mine):
            return ""
        old, new = (", ".join(names) or "none" for names in (known, mine))
        if self.family.labels(self.config.model):
            return f"its {name}: {old}; this run's: {new}. What finds them begins untrained"
        keep = f"--set model.{name}.count={len(known)}"
        return f"its {name} ({old}) are left out: this run learns none; {keep} keeps them"

    def _keep_record(self, checkpoint: Checkpoint) -> None:
        """What its weights were trained on; and what its keypoints mean, if no label says other."""
        self.data = [*(d for d in checkpoint.data if d not in self.data), *self.data]
        self.supervised_names = self.supervised_names or checkpoint.supervised_names

    @torch.no_grad()
    def picture(self, step: int, samples: int = 4) -> Any:
        """Picture grid of the EMA model on the batch of ``step``."""
        self.ema.eval()
        batch = PairBatch(*(t[:samples] if isinstance(t, Tensor) else t for t in self.batch(step)))
        shown = self.family.columns(self.ema, batch)
        return picture_grid(
            {k: v.float().cpu().numpy() for k, v in shown.images.items()},
            {k: v.cpu().numpy() for k, v in shown.points.items()},
        )


def _of(weight: str, network: str) -> bool:
    return weight.startswith(f"{network}.")


def _norms(model: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]


#: What has no weights: how smooth the field is that moves the texture.
FREE_ON_START = ("model.matcher.stiff",)

#: What a resumed run may change: how long and how talkative it is. (Under a cosine schedule
#: max_steps also changes the rate.)
FREE_ON_RESUME = (
    "train.max_steps",
    "train.log_every",
    "train.picture_every",
    "train.checkpoint_every",
)


def _differing(old: Any, new: Any, prefix: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            d
            for k in old.keys() | new.keys()
            for d in _differing(old.get(k), new.get(k), f"{prefix}{k}.")
        ]
    name = prefix.rstrip(".")
    return [] if old == new or name in FREE_ON_RESUME else [name]
