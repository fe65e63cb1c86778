"""A bundle's description and model card."""

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
from ..runtime.support.errors import ConfigError
from ..training.checkpoint import Checkpoint

OWN_LICENCE = "Apache-2.0"
UNSTATED = "not stated"

# Data under these licences allows us to publish the weights under our own.
_FREE = re.compile(
    r"CC0( 1\.0)?|CC BY( \d\.\d)?|MIT|Apache-2\.0|BSD-[23]-Clause|public domain", re.IGNORECASE
)


@dataclass(frozen=True)
class Description:
    """What the exporting user says about a bundle."""

    name: str = ""  # empty: the preset's
    licence: str = ""  # of the weights; empty: ours if the licences of all the data allow it
    credits: str = ""  # text of CREDITS.md; empty: no such file
    figures: str = ""  # measured figures for the model card, Markdown
    data: tuple[DataCredit, ...] = ()  # adds to the checkpoint's list, or corrects it

    def of(self, checkpoint: Checkpoint) -> Description:
        """This description, completed from the checkpoint."""
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


def stated_licence(text: str) -> DataCredit:
    """Data and its licence, of the text NAME=LICENCE; ConfigError if it is no such text."""
    name, _, licence = text.partition("=")
    if not (name and licence):
        hint = 'e.g. --data "my clips=CC BY 4.0"'
        raise ConfigError(f"--data {text!r} is not NAME=LICENCE", hint)
    return DataCredit(name, licence)


USE = """\
Training and simulation only: it makes synthetic ultrasound pictures in which a still image moves
as a driving clip moves. It is not a medical device. Its pictures do not show how a patient moves.
Do not use them to diagnose, to plan or to guide treatment, and do not present them as a recording:
keep the mark that says they are synthetic.
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
- Parts that the still image does not show cannot appear: its edge is stretched or mirrored there.
- Motion is found by comparing each driving frame with the reference frame. Where the two show
  different things (another view, a cut, a probe that has left the skin) the result is a guess.
  The model marks frames as doubtful by its own numbers; no number guarantees that a frame is right.
- Displacements are carried over unturned and unscaled: a subject of another size or direction moves
  like the driving subject, not as it would itself.
- The model knows no anatomy: it also follows motion that no tissue can make.
- Between two subjects, motion is in the right place only if they are aligned well, by matching the
  source and the reference frame or by landmarks: check the picture that the alignment makes.
"""

LIMIT_OF_SHADING = """\
- Slow changes of brightness in the driving clip (a shadow, contact with the skin) are copied,
  unless shading is turned off.
"""


def model_card(checkpoint: Checkpoint, told: Description, precision: str, chain: Chain) -> str:
    """The model card in Markdown: what the model is, its use, data, figures and limits."""
    kept = (t for key, t in checkpoint.weights.items() if not key.endswith("num_batches_tracked"))
    weights = sum(tensor.numel() for tensor in kept)
    data = [f"- {credit.name}: {credit.licence}" for credit in told.data]
    where = "\nCredits: CREDITS.md.\n" if told.credits else ""
    limits = LIMITS_OF_KEYPOINTS
    if isinstance(chain.control, DisplacementControl):
        shaded = LIMIT_OF_SHADING if chain.control.shading_height else ""
        limits = LIMITS_OF_DISPLACEMENTS + shaded
    size, channels = chain.image.size, chain.image.channels
    own = f"; composed at the source's own size, up to {MOST_SIDE} pixels a side"
    return f"""\
# {told.name}

Preset `{checkpoint.config.preset}` of sonomime: a still image moves as a driving clip moves.

| | |
|---|---|
| input and output | uint8, {channels} x {size} x {size}{own if chain.layers else ""} |
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

{limits}{LIMITS}"""


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
    """The outputs of the stage `transfer` without states; nothing else can pass."""
    states = {recurrent.from_ for recurrent in chain.recurrent}
    transfer = next(stage for stage in chain.stages if stage.name == TRANSFER)
    passed = {t.name: t.shape for t in transfer.outputs if t.name not in states}
    listed = [
        f"{name} {' x '.join(str(n) for n in shape if n > 1) or '1'}"
        for name, shape in passed.items()
    ]
    return f"{sum(map(prod, passed.values())):,} numbers: {', '.join(listed)}"
