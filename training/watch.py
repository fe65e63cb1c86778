"""What goes wrong in a training, noticed from the lines that it writes: each fault is said once,
with what to try.

Thresholds come from small runs (128 pixels, a quarter of the widths, simulated and real clips); the
comments beside them say what healthy and broken runs had.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from .config import Config

#: Lines of the log, and looks at the probe, that must agree: single batches differ much.
LINES, LOOKS = 20, 2
#: Steps before which no look counts: every detector begins with all keypoints in the middle.
EARLY = 200
#: Pixels of 256. Untrained keypoints have a spread of 6. Trained ones had 26 to 64; in a run whose
#: keypoints drew together they had 11 to 13. The two nearest of trained ones were 4.5 to 23 apart.
SPREAD, COINCIDE = 15.0, 3.0
#: Of a jacobian's determinant: at a tenth of this its inverse is held (`inverse_2x2`), and the
#: motion is no longer what was found. Trained models had 0.66 or more.
SINGULAR = 0.01
#: Pixels of 256: the longest displacement of the probe. Trained models had 8 to 55, untrained ones
#: 0.1 to 0.8.
STILL = 0.5
#: Mean of the occlusion map; trained models had 0.4 on ultrasound, half of which is black.
CLOSED, OPEN = 0.02, 0.98
#: Mean of lite's gate, the share of the texture that is drawn; trained models had 1.05 to 1.1.
GATE = 0.3
#: LSGAN's losses (METHOD, Eq. 7 and 8). A discriminator that is sure has 0, the generator then 1:
#: against pictures that were only blurred it had 0.10 to 0.15 after 400 steps, the generator 0.66
#: to 0.78. One that says 0.5 to everything has 0.5 and 0.25. In balance both are near these, too,
#: but move: over LINES lines by 0.02 or more.
WINS, LOST = 0.1, 0.75
UNDECIDED, MOVES = 0.02, 0.002
#: Either loss: scores in [-1, 2] would not lead there.
RUNAWAY = 4.0
#: Times the best share of hold so far. In healthy runs it rose to at most 1.3 of it.
GROWS = 2.0
#: Steps that a model has to get better than a picture that stands still, if max_steps is not less
#: than twice that. Small keypoint models still had 1.3 times its error after 800 steps.
PATIENCE = 5000


class Warned(NamedTuple):
    """A fault: its name, what is the case, and what to try."""

    name: str
    what: str
    advice: str


class Watch:
    """Notices faults in lines of log.jsonl and probe.jsonl, given in the order of their steps."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._lines: deque[Mapping[str, Any]] = deque(maxlen=LINES)
        self._looks: deque[Mapping[str, Any]] = deque(maxlen=LOOKS)
        self._best = float("inf")
        self.said: set[str] = set()  # names of faults

    def logged(self, line: Mapping[str, Any]) -> list[Warned]:
        """New faults, after one more line of the log."""
        if _has(line, "l1", "hold"):
            self._lines.append(line)
        return self._new(self._in_losses()) if len(self._lines) == LINES else []

    def probed(self, record: Mapping[str, Any]) -> list[Warned]:
        """New faults, after one more look at the probe."""
        if record["step"] >= EARLY:
            self._looks.append(record)
        return self._new(self._in_looks()) if len(self._looks) == LOOKS else []

    def _new(self, found: Iterable[Warned]) -> list[Warned]:
        new = [each for each in found if each.name not in self.said]
        self.said.update(each.name for each in new)
        return new

    def _in_losses(self) -> Iterator[Warned]:
        step, settings = self._lines[-1]["step"], self.config
        share = self._mean("l1") / max(self._mean("hold"), 1e-6)
        begins = settings.loss.pixels_from if settings.model.family == "matching" else 0
        if step >= begins + min(PATIENCE, settings.train.max_steps / 2) and share >= 1:
            yield Warned(
                "hold",
                f"the prediction is no better than a picture that stands still (l1 is {share:.2f} "
                "of hold)",
                "Look at the deformation in pictures/: without motion try a smaller "
                "train.learning_rate or clips that move more (sonomime data check); with motion, "
                "train longer",
            )
        if share >= GROWS * self._best:
            yield Warned(
                "growing",
                f"the error grows: l1 is {share:.2f} of hold, and was {self._best:.2f}",
                "Begin again with a smaller train.learning_rate, or --from an older checkpoint",
            )
        self._best = min(self._best, share)
        weight = settings.loss.adversarial
        if weight > 0 and all(_has(each, "adversarial", "discriminator") for each in self._lines):
            yield from self._in_contest(weight)

    def _in_contest(self, weight: float) -> Iterator[Warned]:
        judge, fooled = self._mean("discriminator"), self._mean("adversarial") / weight
        values = f"its loss is {judge:.2f}, the generator's {fooled:.2f} of at most 1"
        if judge < WINS and fooled > LOST:
            yield Warned(
                "discriminator wins",
                f"the discriminator tells all predictions from real frames ({values})",
                "The generator no longer learns from it: model.discriminator.spectral_norm=true, a "
                "smaller model.discriminator.width, or a larger loss.adversarial",
            )
        scores = ([line[name] for line in self._lines] for name in ("adversarial", "discriminator"))
        calm = all(max(each) - min(each) < MOVES for each in scores)
        if abs(judge - 0.5) < UNDECIDED and calm:
            yield Warned(
                "discriminator learns nothing",
                f"the discriminator says the same to everything ({values}; a guess has 0.5 and "
                "0.25)",
                "The adversarial losses do nothing: a larger model.discriminator.width or "
                "train.learning_rate",
            )
        if max(judge, fooled) > RUNAWAY:
            yield Warned(
                "discriminator runs away",
                f"the discriminator's scores lie far from 0 and 1 ({values})",
                "A smaller train.learning_rate, or model.discriminator.spectral_norm=true",
            )

    def _in_looks(self) -> Iterator[Warned]:
        found = {
            name: max(each[name] for each in self._looks)
            for name in ("spread", "displacement_max", "occlusion", "gate")
            if all(name in each for each in self._looks)
        }
        if (spread := found.get("spread", SPREAD)) < SPREAD:
            yield Warned(
                "keypoints collapse",
                f"all keypoints lie on one spot (within {spread:.1f} pixels of 256)",
                "Begin again with another train.seed, a smaller train.learning_rate or a larger "
                "loss.equivariance_value; a model.keypoints.temperature above 0.1 does this too",
            )
        elif all(each.get("closest", (0, 0, COINCIDE))[2] < COINCIDE for each in self._looks):
            i, j, apart = self._looks[-1]["closest"]
            yield Warned(
                "keypoints coincide",
                f"keypoints {i} and {j} lie on the same spot in every picture (at most {apart:.1f} "
                "pixels of 256 apart)",
                "One of them is wasted: fewer model.keypoints.self_supervised, or another "
                "train.seed",
            )
        if all(each.get("determinant", (0, 1.0))[1] < SINGULAR for each in self._looks):
            k, size = self._looks[-1]["determinant"]
            yield Warned(
                "singular jacobian",
                f"the jacobian of keypoint {k} is nearly singular (determinant {size:.4f})",
                "Its motion is not to be trusted: a larger loss.equivariance_jacobian or a smaller "
                "train.learning_rate",
            )
        if found.get("displacement_max", STILL) < STILL:
            yield Warned(
                "no motion",
                f"nothing moves: no displacement is above {found['displacement_max']:.2f} pixels "
                "of 256",
                "The model only draws: check that the clips move (sonomime data check), then try "
                "another train.learning_rate",
            )
        if found.get("occlusion", 0.5) < CLOSED:
            yield Warned(
                "occlusion closed",
                "the occlusion map is closed everywhere: the frame is drawn without the source",
                "Begin again with a smaller train.learning_rate or another train.seed",
            )
        if min(each.get("occlusion", 0.5) for each in self._looks) > OPEN:
            yield Warned(
                "occlusion open",
                "the occlusion map is open everywhere: the generator invents nothing",
                "No fault where nothing appears or vanishes in the clips; else train longer",
            )
        if found.get("gate", 1.0) < GATE:
            yield Warned(
                "gate closed",
                f"the gate is closed: {100 * found['gate']:.0f} % of the texture is drawn",
                "Pictures will be soft: a larger loss.sharpness, or a smaller train.learning_rate",
            )

    def _mean(self, name: str) -> float:
        return sum(line[name] for line in self._lines) / len(self._lines)


def _has(line: Mapping[str, Any], *names: str) -> bool:
    """Whether a line, which may be of a damaged file, has numbers of these names."""
    return all(isinstance(line.get(name), int | float) for name in names)
