"""What a bundle says of itself: its description and its model card."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import prod

from ..runtime.bundle.manifest import (
    TRANSFER,
    Chain,
    DataCredit,
    DisplacementControl,
    KeypointControl,
)
from ..runtime.compose import MOST_SIDE
from ..training.checkpoint import Checkpoint

OWN_LICENCE = "Apache-2.0"
UNSTATED = "not stated"

# Data under these can be learned from and the weights given away under our own licence.
_FREE = re.compile(
    r"CC0( 1\.0)?|CC BY( \d\.\d)?|MIT|Apache-2\.0|BSD-[23]-Clause|public domain", re.IGNORECASE
)


@dataclass(frozen=True)
class Description:
    """What a bundle says of itself besides its numbers."""

    name: str = ""  # empty: the preset's
    licence: str = ""  # of the weights; empty: ours where that of all the data allows it
    credits: str = ""  # text of CREDITS.md; empty: there is none
    figures: str = ""  # measured figures for the model card, Markdown
    note: str = ""
    data: tuple[DataCredit, ...] = ()  # adds to what the checkpoint says, or corrects it

    def of(self, checkpoint: Checkpoint) -> Description:
        """The same, with what was left open taken from the checkpoint."""
        stated = {
            entry.get("name", "?"): entry.get("licence", UNSTATED) for entry in checkpoint.data
        } | {credit.name: credit.licence for credit in self.data}
        free = bool(stated) and all(_FREE.fullmatch(licence) for licence in stated.values())
        return replace(
            self,
            name=self.name or checkpoint.config.preset,
            licence=self.licence or (OWN_LICENCE if free else UNSTATED),
            data=tuple(DataCredit(*item) for item in stated.items()),
        )


USE = """\
Training and simulation only: it makes synthetic ultrasound pictures in which a still image moves
as a driving clip moves. It is not a medical device. What it makes shows no patient's anatomy in
motion, and must not be used to diagnose, to plan or to guide treatment, nor be passed off as a
recording: keep the synthetic mark that the sinks add.
"""

LIMITS = """\
- Relative motion assumes that the reference frame is in the pose of the still image.
"""

LIMITS_OF_KEYPOINTS = """\
- Anatomies, probes and motions unlike those of the training data are drawn with errors that may
  look plausible.
- Structures that the still image does not show are invented or missing when motion uncovers them.
- Keypoints may carry slow changes of brightness as well as motion.
"""

LIMITS_OF_DISPLACEMENTS = """\
- What the still image does not show cannot be shown: its edge is stretched or mirrored there.
- Motion is found by comparing each driving frame with the reference frame. Where the two show
  different things (another view, a cut, a probe that has left the skin) what is found is a guess.
  Such frames are called doubtful as far as the model's own numbers tell; no number promises that a
  frame is right.
- Displacements are carried over unturned and unscaled: a subject of another size or direction moves
  as the driving one does, not as it would itself.
- Nothing in the model knows an anatomy: a motion that no tissue can make is followed too.
- Between two subjects motion lies in the right place only as far as they are aligned, by matching
  the source and the reference frame or by landmarks: look at the picture that the alignment makes.
"""

LIMIT_OF_SHADING = """\
- Slow changes of brightness of the driving clip (a shadow, contact with the skin) are taken on,
  unless shading is turned off.
"""


def model_card(checkpoint: Checkpoint, told: Description, precision: str, chain: Chain) -> str:
    """Markdown: what the model is, its data, what it may be used for, how well it does."""
    weights = sum(
        tensor.numel()
        for key, tensor in checkpoint.weights.items()
        if not key.endswith("num_batches_tracked")
    )
    data = [f"- {credit.name}: {credit.licence}" for credit in told.data]
    where = "\nCredits: CREDITS.md.\n" if told.credits else ""
    return f"""\
# {told.name}

Preset `{checkpoint.config.preset}` of sonomime: a still image moves as a driving clip moves.

| | |
|---|---|
| input and output | {_pictures(chain)} |
| what carries the motion | {_carrier(chain.control)} |
| what passes from a driving frame | {_passed(chain)} |
| geometry | `{chain.geometry}` |
| weights | {weights:,} numbers, {precision} convolutions, float32 coordinates |
| last training run | {checkpoint.step:,} steps |
| licence of the weights | {told.licence} |

## Intended use

{USE}
## Training data

{chr(10).join(data) or "- not stated"}
{where}
## Figures

{told.figures.strip() or "None were measured when this bundle was made: run `sonomime evaluate`."}

## Limits

{_limits(chain)}"""


def _pictures(chain: Chain) -> str:
    size, channels = chain.image.size, chain.image.channels
    own = f"; composed at the source's own size, up to {MOST_SIDE} pixels a side"
    return f"uint8, {channels} x {size} x {size}" + (own if chain.layers else "")


def _carrier(control: KeypointControl | DisplacementControl) -> str:
    if isinstance(control, KeypointControl):
        names = [point.name for point in control.supervised]
        supervised = f"{len(names)} supervised: {', '.join(names)}" if names else "none supervised"
        return f"{control.count} keypoints, {supervised}"
    landmarks = ", ".join(control.landmarks) or "none"
    return (
        f"displacements from a reference driving frame, {control.grid_height} x "
        f"{control.grid_width} cells; landmarks that it finds by itself: {landmarks}"
    )


def _passed(chain: Chain) -> str:
    """What the stage `transfer` hands on, states aside; nothing else can pass."""
    states = {recurrent.from_ for recurrent in chain.recurrent}
    passed = [
        tensor
        for stage in chain.stages
        if stage.name == TRANSFER
        for tensor in stage.outputs
        if tensor.name not in states
    ]
    shapes = [" x ".join(str(n) for n in tensor.shape if n > 1) or "1" for tensor in passed]
    listed = ", ".join(f"{t.name} {shape}" for t, shape in zip(passed, shapes, strict=True))
    return f"{sum(prod(tensor.shape) for tensor in passed):,} numbers: {listed}"


def _limits(chain: Chain) -> str:
    control = chain.control
    if isinstance(control, KeypointControl):
        return LIMITS_OF_KEYPOINTS + LIMITS
    return LIMITS_OF_DISPLACEMENTS + (LIMIT_OF_SHADING if control.shading_height else "") + LIMITS
