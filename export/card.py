"""What a bundle says of itself: its description and its model card."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ..runtime.bundle.manifest import Chain, DataCredit, DisplacementControl, KeypointControl
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
- Anatomies, probes and motions unlike those of the training data are drawn with errors that may
  look plausible.
- Structures that the still image does not show are invented or missing when motion uncovers them.
- Relative motion assumes that the reference frame is in the pose of the still image.
"""


def model_card(checkpoint: Checkpoint, told: Description, precision: str, chain: Chain) -> str:
    """Markdown: what the model is, its data, what it may be used for, how well it does."""
    size, channels = chain.image.size, chain.image.channels
    weights = sum(
        tensor.numel()
        for key, tensor in checkpoint.weights.items()
        if not key.endswith("num_batches_tracked")
    )
    data = [f"- {credit.name}: {credit.licence}" for credit in told.data]
    where = "Credits: CREDITS.md.\n" if told.credits else ""
    return f"""\
# {told.name}

Preset `{checkpoint.config.preset}` of sonomime: a still image moves as a driving clip moves.

| | |
|---|---|
| input and output | uint8, {channels} x {size} x {size} |
| what carries the motion | {_carrier(chain.control)} |
| geometry | `{chain.geometry}` |
| weights | {weights:,} numbers, {precision} convolutions, float32 coordinates |
| training | {checkpoint.step:,} steps |
| licence of the weights | {told.licence} |

## Intended use

{USE}
## Training data

{chr(10).join(data) or "- not stated"}

{where}
## Figures

{told.figures.strip() or "None were measured when this bundle was made: run `sonomime evaluate`."}

## Limits

{LIMITS}"""


def _carrier(control: KeypointControl | DisplacementControl) -> str:
    if isinstance(control, KeypointControl):
        names = [point.name for point in control.supervised]
        supervised = f"{len(names)} supervised: {', '.join(names)}" if names else "none supervised"
        return f"{control.count} keypoints, {supervised}"
    shading = f", shading {control.shading_height} x {control.shading_width}"
    return f"displacements {control.grid_height} x {control.grid_width}" + (
        shading if control.shading_height else ""
    )
