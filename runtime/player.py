"""A source moved by a motion template, at any time of it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from .alignment import by_landmarks, is_inside, pixels_to_points
from .animator import Animator
from .bundle.manifest import DisplacementControl
from .clock import STEP_SECONDS
from .compose import Size
from .media.frames import Image
from .passed import put_on_source
from .session import own_places
from .support.errors import ConfigError, InputError
from .template import Template, control_of, said


class Player:
    """Moves an Animator's source by a template, as a driving clip would. `aligned_by`: the names of
    the landmarks that align it::

        animator.set_source(still)
        player = Player(animator, Template.load(path))
        for i in range(250):
            frame = player.frame(i / 25, loop=True)

    It belongs to that source: make another for another one. Times may go backward, or be a probe's
    angle.
    """

    def __init__(
        self, animator: Animator, template: Template,
        landmarks: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:  # fmt: skip
        """
        Args:
            landmarks: places in the source's pixels, by name; those that the template has too say
                where in the source its motion belongs. None: every place at its own.

        Raises:
            ConfigError: the template is of another control than the model, smoothing is on where a
                template's motion cannot be smoothed, or the model cannot align.
            InputError: no source yet, a landmark outside of it, none that the template has.
        """
        session, _ = animator.session, animator.letterbox  # there is a source
        self._animator, self.template = animator, template
        self._displaced = isinstance(session.chain.control, DisplacementControl)
        self._check_fit()
        if self._displaced and session.has_control("min_cutoff") and session.control("min_cutoff"):
            hint = "leave the smoothing out (--smooth)"
            raise ConfigError("the displacements of a template cannot be smoothed", hint)
        self.aligned_by: tuple[str, ...] = ()
        self._alignment = None
        if self._displaced:
            self._alignment = own_places(*template.frames["displacement"].shape[2:4])
        if landmarks is not None:
            self._align(landmarks)
        self._last: float | None = None

    def frame(self, seconds: float, size: Size | None = None, loop: bool = False) -> Image:
        """The frame at a time of the template.

        Args:
            seconds: before the beginning and after the end as there.
            size: None for the model's own frame; else the frame is what `compose` returns.
            loop: repeat the template's loop, whose beginning is time 0.

        Returns:
            What `Animator.animate` returns, unmarked.

        Raises:
            InputError: a time that is not finite.
            ConfigError, BackendError: as `Animator.replay`.
        """
        if not math.isfinite(seconds):
            raise InputError(f"a time has to be finite, not {seconds}")
        template = self.template
        passed = template.looped(seconds) if loop else template.at(seconds)
        if self._alignment is not None:
            control = self._animator.session.control
            passed = put_on_source(passed, self._alignment, control("scale"), control("shade"))
        step = STEP_SECONDS if self._last is None else abs(seconds - self._last)
        made = self._animator.replay(passed, step, size, template.reference)
        self._last = seconds
        return made

    def _check_fit(self) -> None:
        """ConfigError unless the template holds what this chain passes on."""
        session, template = self._animator.session, self.template
        tensors, ours = session.chain.tensors(), control_of(session.chain)
        frames = {name: values.shape[1:] for name, values in template.frames.items()}
        wanted = {name: tensors[name].shape for name in session.passed()}
        seen = {name: values.shape for name, values in template.reference.items()}
        expected = {} if self._displaced else wanted
        known = {"displacement", "confidence", "shading"} if self._displaced else wanted.keys()
        if not ours.get("training", True) or not wanted.keys() <= known:
            raise ConfigError("this model cannot be driven by templates", "give a driving clip")
        if template.control != ours or frames != wanted or seen != expected:
            hint = "make it again with this bundle: sonomime template DRIVING --bundle B -o FILE"
            what = f"the template moves {said(template.control)}, this model {said(ours)}"
            raise ConfigError(what, hint)

    def _align(self, landmarks: Mapping[str, tuple[float, float]]) -> None:
        if self._alignment is None:
            raise ConfigError("only models that move by displacements are aligned by landmarks")
        box, known = self._animator.letterbox, self.template.landmarks
        self.aligned_by = tuple(name for name in landmarks if name in known)
        for name in self.aligned_by:
            if not is_inside(np.array(landmarks[name]), box.width, box.height):
                raise InputError(f"the landmark {name!r} lies outside of the source")
        if not self.aligned_by:
            hint = f"the template has {', '.join(known) or 'no landmarks'}"
            raise InputError("no landmark of the source is one of the template's", hint)
        source = pixels_to_points(np.array([landmarks[name] for name in self.aligned_by]), box)
        reference = np.array([known[name] for name in self.aligned_by])
        cells = self._alignment.astype(np.float64)
        self._alignment = by_landmarks(cells, source, reference).astype(np.float32)
