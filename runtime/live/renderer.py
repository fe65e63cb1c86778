"""What makes a stream's frames: an Animator with one source and reference, here or elsewhere."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, Self

from numpy.typing import NDArray

from ..animator import Animator
from ..bundle.manifest import ALIGNMENT
from ..driving import DrivingTemplate
from ..landmarks import Alignment, Landmarks, Picture, align_pair
from ..media.frames import Image, resize
from ..player import Player
from ..quality import Quality
from ..support.errors import BackendError


class RendererLost(BackendError):
    """Its machine or process is gone; another one can take its place."""


class Scene(NamedTuple):
    """What frames are made of: source; reference, None for a template, which has its own;
    landmarks, as for `align_pair`; the driving template, if it is one, and whether it is repeated;
    (width, height) of the frames; whether to make a first one in advance, so that the first one
    shown is not slow."""

    source: Picture
    reference: Picture | None
    landmarks: Landmarks
    template: DrivingTemplate | None
    loop: bool
    size: tuple[int, int]
    warm: bool


class Prepared(NamedTuple):
    """By what source and reference are aligned; grid, (1, rows, columns, 2): where in the reference
    cells of the source are, None where the reference is no picture or nothing is aligned."""

    alignment: Alignment
    grid: NDArray[Any] | None


class Rendered(NamedTuple):
    """A frame, uint8 (H, W) or (H, W, 3), unmarked, and how far it can be trusted."""

    image: Image
    quality: Quality | None


class AnyRenderer(Protocol):
    """`Renderer`, or one that is elsewhere. All methods of one that is lost raise RendererLost, but
    `another`, `stop` and `close`."""

    @property
    def lost(self) -> bool: ...
    def prepare(self, scene: Scene) -> Prepared: ...
    def frame(self, driving: Image | None, due: float, timestamp: float) -> Rendered: ...
    def adjust(self, **options: Any) -> None: ...
    def another(self) -> Self: ...
    def stop(self) -> None:
        """End whatever waits for it, in any thread."""
        ...

    def close(self) -> None: ...


class Renderer:
    """With an Animator of this process, which is closed with it."""

    lost = False

    def __init__(self, animator: Animator) -> None:
        self._animator = animator
        self._player: Player | None = None
        self._loop = False
        self._size = (0, 0)

    def prepare(self, scene: Scene) -> Prepared:
        """Take a source and a reference; errors as of `Animator.set_source`, `set_reference` and
        `align_pair`."""
        animator, reference = self._animator, scene.reference
        self._loop, self._size, self._player = scene.loop, scene.size, None
        animator.reset()
        animator.set_source(scene.source.image)
        composed = scene.size if self._composes else None
        if scene.template is not None:
            # Aligned by the template's landmarks alone: there is no picture.
            self._player, said = scene.template.player(animator, scene.source, scene.landmarks)
            if scene.warm:
                self._player.frame(0.0, composed)
            return Prepared(Alignment(said), None)
        if reference is None:
            return Prepared(Alignment(""), None)
        animator.set_reference(reference.image)
        if scene.warm:
            animator.animate(reference.image, size=composed)
            animator.set_reference(reference.image)  # the clock and smoothing start again
        if not animator.session.can_align:
            return Prepared(Alignment(""), None)
        alignment = align_pair(animator, scene.landmarks, scene.source, reference)
        return Prepared(alignment, animator.read(ALIGNMENT))

    def frame(self, driving: Image | None, due: float, timestamp: float) -> Rendered:
        """The frame of a driving frame; errors as of `Animator.animate`.

        Args:
            driving: the driving frame; None for a template.
            due: where in the template it is, in seconds.
            timestamp: seconds, later than that of the frame before.
        """
        animator, composes = self._animator, self._composes
        size = self._size if composes else None
        if self._player is not None:
            made = self._player.frame(due, size, self._loop)
        else:
            made = animator.animate(driving, timestamp, size=size)
        if not composes:
            made = resize(animator.letterbox.inside(made), *self._size)
        return Rendered(made, animator.quality)

    def adjust(self, **options: Any) -> None:
        """See `Animator.adjust`."""
        self._animator.adjust(**options)

    def another(self) -> Renderer:
        """One more, for another source: see `Animator.another`."""
        return Renderer(self._animator.another())

    def stop(self) -> None:
        """Nothing waits long."""

    def close(self) -> None:
        self._animator.close()

    @property
    def _composes(self) -> bool:
        return self._animator.session.chain.layers is not None
