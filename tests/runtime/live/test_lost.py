"""A renderer is lost: the picture is held, another one takes over with all that the first had."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from live_feeds import HandFeed, until
from toy_bundle import blob

from sonomime.cli import main
from sonomime.runtime import Animator, Bundle
from sonomime.runtime.driving import open_driving
from sonomime.runtime.landmarks import Given, Picture
from sonomime.runtime.live import remote, retry, showing
from sonomime.runtime.live.feed import Feed, clip_feed
from sonomime.runtime.live.how import How
from sonomime.runtime.live.pairs import Still
from sonomime.runtime.live.remote import RemoteRenderer, _Studio
from sonomime.runtime.live.renderer import Prepared, Rendered, Renderer, RendererLost, Scene
from sonomime.runtime.live.showing import LOST, Shown
from sonomime.runtime.live.stream import Stream
from sonomime.runtime.readers.reading import AS_IS
from sonomime.runtime.sinks.open_sink import open_sink
from sonomime.runtime.still import SAMPLES
from sonomime.runtime.support.errors import BackendError, BundleError
from sonomime.runtime.support.process import Terminated
from sonomime.runtime.support.spread import TRIES

STILL = Still(Picture(blob(64, 0, 0)), "middle")
OTHER = Still(Picture(blob(64, 0.2, 0.2)), "other")
GIVEN = Given({"1": (30.0, 30.0)}, {"1": (20.0, 30.0)})


class Away(Renderer):
    """One that can be lost, with all that share its event."""

    def __init__(self, animator: Animator, gone: threading.Event) -> None:
        super().__init__(animator)
        self.gone, self.scenes = gone, list[Scene]()

    @property
    def lost(self) -> bool:  # type: ignore[override]
        return self.gone.is_set()

    def _here(self) -> None:
        if self.lost:
            raise RendererLost("gone")

    def prepare(self, scene: Scene) -> Prepared:
        self._here()
        self.scenes.append(scene)
        prepared = super().prepare(scene)
        self._here()
        return prepared

    def frame(self, driving: Any, due: float, timestamp: float) -> Rendered:
        self._here()
        return super().frame(driving, due, timestamp)

    def adjust(self, **options: Any) -> None:
        self._here()
        super().adjust(**options)

    def another(self) -> Away:
        self._here()
        return Away(self._animator.another(), self.gone)

    def stop(self) -> None:
        self.gone.set()


class Cluster:
    """Opens renderers, of which the newest can be lost; `free` when there is room for one."""

    def __init__(self, bundle: Path) -> None:
        self.bundle = Bundle.open(bundle)
        self.opened: list[Away] = []
        self.free = threading.Event()
        self.free.set()

    def open(self) -> Away:
        assert self.free.wait(60)
        made = Away(Animator.open(self.bundle, "cpu", threads=1), threading.Event())
        self.opened.append(made)
        return made

    def lose(self) -> None:
        self.opened[-1].gone.set()


class Live:
    def __init__(self, bundle: Path, feed: Feed | None = None, **more: Any) -> None:
        self.cluster, self.feed = Cluster(bundle), feed or HandFeed()
        manifest, how = self.cluster.bundle.manifest, How(mark=False, on_cut="ignore")
        self.stream = Stream(manifest, self.cluster.open, STILL, self.feed, how=how, **more)
        self.feed.rate = 100
        self.shown: list[Shown] = []
        self.stream.start(self.shown.append)

    def next(self, true: Callable[[Shown], object], image: Any = None) -> Shown:
        seen = len(self.shown)

        def found() -> Shown | None:
            if image is not None:
                self.feed.give(image)
                time.sleep(0.005)
            return next((each for each in self.shown[seen:] if true(each)), None)

        return until(found)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "SOONEST", 0.01)
    monkeypatch.setattr(showing, "LOST_AFTER", 30.0)


@pytest.fixture
def live(displacement_toy: Path) -> Iterator[Live]:
    begun = Live(displacement_toy)
    yield begun
    begun.cluster.free.set()
    begun.stream.close()


def is_live(shown: Shown) -> bool:
    return shown.state in ("live", "doubtful")


def alone(live: Live, scene: Scene, scale: float, driving: Any) -> Any:
    """The frame that a local Animator makes."""
    with Animator.open(live.cluster.bundle, "cpu", threads=1) as animator:
        renderer = Renderer(animator)
        renderer.prepare(scene)
        renderer.adjust(scale=scale)
        return renderer.frame(driving, 0.0, 1.0).image


def test_another_one_gets_source_reference_landmarks_and_settings(live: Live) -> None:
    live.next(is_live, blob(64, 0, 0))  # the reference
    live.stream.take_source(OTHER)
    live.next(lambda shown: shown.source == "other", blob(64, 0.1, 0))
    live.stream.take_landmarks(GIVEN)
    until(lambda: live.stream.pair.alignment.said.startswith("aligned by 1"))
    live.stream.order("scale 0.5")
    until(lambda: live.stream.settings)
    before = live.stream.pair
    live.cluster.free.clear()
    live.cluster.lose()
    held = live.next(lambda shown: shown.state == "held", blob(64, 0.2, 0.1))
    assert held.why == LOST and held.source == "other" and held.image.any()
    assert live.stream.metrics.snapshot()["renderers_lost"] == 1
    live.cluster.free.set()
    back = live.next(is_live, driving := blob(64, 0.2, 0.1))
    pair = live.stream.pair
    assert pair is not before and pair.landmarks == GIVEN and back.source == "other"
    assert np.array_equal(pair.reference.image, before.reference.image)
    (scene,) = live.cluster.opened[-1].scenes
    assert scene.source is OTHER.picture and scene.landmarks == GIVEN
    assert np.array_equal(back.image, alone(live, scene, 0.5, driving))
    now = live.stream.metrics.snapshot()
    assert now["renderers_lost"] == 1 and len(live.cluster.opened) == 2


@pytest.mark.parametrize("order", ["scale 2", "shading off"])
def test_an_order_that_nobody_can_check_is_refused(live: Live, order: str) -> None:
    live.next(is_live, blob(64, 0, 0))
    live.cluster.free.clear()
    live.cluster.lose()
    live.next(lambda shown: shown.state == "held", blob(64, 0, 0))
    answers: list[str] = []
    live.stream.order(order, answers.append)
    until(lambda: answers)
    assert answers == ["gone"] and not live.stream.settings
    live.cluster.free.set()
    live.next(is_live, blob(64, 0.1, 0))  # which "shading off" would have ended: there is none


def test_a_source_that_is_prepared_meanwhile_takes_over(live: Live) -> None:
    live.next(is_live, blob(64, 0, 0))
    live.cluster.free.clear()
    live.cluster.lose()
    live.stream.take_source(OTHER)
    live.next(lambda shown: shown.state == "held", blob(64, 0.1, 0))
    live.cluster.free.set()
    live.next(lambda shown: is_live(shown) and shown.source == "other", blob(64, 0.1, 0))
    time.sleep(0.1)
    assert live.stream.pair.still.name == "other" and not live.stream._pairs.busy


def test_it_may_be_lost_again_and_before_the_first_frame(displacement_toy: Path) -> None:
    live = Live(displacement_toy)
    try:
        for _ in range(3):
            live.next(is_live, blob(64, 0, 0))
            live.cluster.lose()
        live.next(is_live, blob(64, 0.1, 0))
        assert live.stream.metrics.snapshot()["renderers_lost"] == 3
    finally:
        live.stream.close()


def test_a_source_that_loses_every_renderer_is_given_up(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    live.next(is_live, blob(64, 0, 0))
    prepare, lost = Away.prepare, list[Away]()

    def lose(renderer: Away, scene: Scene) -> Prepared:
        if scene.source is OTHER.picture:
            renderer.gone.set()
            lost.append(renderer)
        return prepare(renderer, scene)

    monkeypatch.setattr(Away, "prepare", lose)
    answers: list[str] = []
    live.stream.take_source(OTHER, answers.append)
    until(lambda: answers)
    assert answers == ["gone"] and len(lost) == TRIES
    back = live.next(is_live, blob(64, 0.1, 0))
    assert back.source == "middle"


@pytest.fixture
def unpaced(tmp_path: Path) -> tuple[Feed, Any]:
    """A clip of 30 frames, and the first of them."""
    with open_sink(path := tmp_path / "clip.mkv", (64, 64), 1, 25) as sink:
        for i in range(30):
            sink.write(blob(64, i / 100, 0))
    driving = open_driving(path, AS_IS, 1)
    return clip_feed("clip", driving, "unpaced", False), driving.nth(0)


def test_an_unpaced_clip_loses_no_frame(displacement_toy: Path, unpaced: tuple[Feed, Any]) -> None:
    live = Live(displacement_toy, unpaced[0], reference=unpaced[1])
    try:
        until(lambda: len(live.shown) >= 5)
        live.cluster.lose()
        assert live.stream.wait(60) and live.stream.error is None
        assert len(live.shown) == 30
        scene = live.cluster.opened[-1].scenes[-1]
        last = alone(live, scene, 1.0, blob(64, 0.29, 0))
        assert np.array_equal(live.shown[-1].image, last)
    finally:
        live.stream.close()


# -- with a stand-in for Ray -----------------------------------------------------------------------


class FakeRay:
    """Answers at once, unless its one actor is killed or does not answer."""

    class exceptions:
        class RayError(Exception):
            pass

    def __init__(self, studio: _Studio) -> None:
        self.killed, self.silent = 0, False
        self.do = SimpleNamespace(remote=lambda *given, **more: studio.do(*given, **more))

    def wait(self, asked: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return ([], asked) if self.silent else (asked, [])

    def get(self, said: Any) -> Any:
        if self.killed:
            raise self.exceptions.RayError("the actor died")
        return said

    def kill(self, actor: Any) -> None:
        self.killed += 1


def away(opens: Any, version: str | None = None) -> tuple[FakeRay, RemoteRenderer]:
    ray = FakeRay(_Studio(version or remote.__version__, opens))
    return ray, RemoteRenderer(ray, ray, threading.Event(), count())


@pytest.fixture
def opens(displacement_toy: Path) -> Any:
    return partial(Animator.open, displacement_toy, "cpu", threads=1)


def test_a_remote_renderer_makes_what_a_local_one_does(opens: Any) -> None:
    scene = Scene(STILL.picture, Picture(blob(64, 0, 0)), GIVEN, None, False, (64, 64), True)
    ray, one = away(opens)
    one.check()
    local = Renderer(opens())
    assert one.prepare(scene).alignment.said == local.prepare(scene).alignment.said
    other = one.another()
    other.prepare(scene._replace(source=OTHER.picture))
    made = [each.frame(blob(64, 0.2, 0), 0.0, 1.0) for each in (one, local, other)]
    assert np.array_equal(made[0].image, made[1].image) and made[0].quality == made[1].quality
    assert not np.array_equal(made[0].image, made[2].image)
    local.close()
    ray.killed = 1
    with pytest.raises(RendererLost, match="the actor died"):
        other.frame(blob(64, 0.2, 0), 0.0, 2.0)
    assert one.lost and other.lost
    for ask in (partial(one.adjust, scale=0.5), partial(one.prepare, scene)):
        with pytest.raises(RendererLost):
            ask()


def test_who_does_not_answer_is_lost(opens: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FRAME_SECONDS", 0.0)
    ray, one = away(opens)
    ray.silent = True
    with pytest.raises(RendererLost):
        one.frame(None, 0.0, 0.0)
    assert one.lost and ray.killed


def test_a_stream_that_waits_for_a_free_processor_can_be_closed(
    opens: Any, displacement_toy: Path
) -> None:
    ray, one = away(opens)
    ray.silent = True
    stream = Stream(Bundle.open(displacement_toy).manifest, lambda: one, STILL, feed := HandFeed())
    shown: list[Shown] = []
    stream.start(shown.append)
    feed.give(blob(64, 0, 0))
    until(lambda: stream._pairs.busy and stream._pairs._all)
    stream.close()
    assert ray.killed and {each.state for each in shown} <= {"warming up"}


def test_an_unpaced_stream_that_waits_for_a_place_can_be_ended(
    opens: Any, displacement_toy: Path, unpaced: tuple[Feed, Any], caplog: pytest.LogCaptureFixture
) -> None:
    feed, reference = unpaced
    opened = [away(opens), away(opens)]
    opened[1][0].silent = True  # there is no place for a second one
    made = iter([one for _, one in opened])
    manifest, shown = Bundle.open(displacement_toy).manifest, list[Shown]()
    stream = Stream(manifest, lambda: next(made), STILL, feed, reference=reference)

    def show(frame: Shown) -> None:
        shown.append(frame)
        opened[0][0].killed = int(len(shown) == 5)

    stream.start(show)
    until(lambda: len(shown) == 5 and stream._pairs.busy and len(stream._pairs._all) == 1)
    until(lambda: opened[1][1] in stream._pairs._all)
    ending = threading.Thread(target=stream.finish, daemon=True)
    ending.start()
    ending.join(60)
    assert not ending.is_alive() and opened[1][0].killed and stream.error is None
    stream.close()
    assert len(shown) == 5 and stream.metrics.snapshot()["renderers_lost"] == 1
    assert [each.getMessage() for each in caplog.records if each.levelname == "WARNING"] == [
        f"middle: {LOST}"
    ]


@pytest.mark.parametrize("verb", ["serve", "stream"])
@pytest.mark.parametrize(
    ("more", "code", "named"),
    [
        (["--ray", "head"], 2, "'head'"), (["--ray", "127.0.0.1:1"], 4, "127.0.0.1:1"),
        (["--ray", "local", "--device", "0"], 2, "--device"),
        (["--ray", "local", "--threads", "0"], 2, "threads"),
    ],
)  # fmt: skip
def test_mistakes_with_a_cluster_are_named_with_a_hint(
    verb: str, more: list[str], code: int, named: str, toy_bundle: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    words = ["--source", str(SAMPLES / "still.png"), "--driving", "breathing", "--http", "0"]
    given = words if verb == "stream" else ["--http", "0"]
    assert main([verb, *given, "--bundle", str(toy_bundle), *more]) == code
    said = capsys.readouterr().err
    assert named in said and "hint: " in said and "defect" not in said


def test_a_signal_keeps_its_code_while_a_place_is_waited_for(
    opens: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def terminate(number: int, frame: Any) -> None:
        raise Terminated(number)

    def wait(asked: list[Any], timeout: float) -> Any:
        try:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(10)
        except Terminated:
            raise KeyboardInterrupt from None  # as Ray does

    ray, one = away(opens)
    monkeypatch.setattr(ray, "wait", wait)
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with pytest.raises(Terminated) as caught:
            one.check()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught.value.exit_code == 143


def test_what_is_wrong_there_is_said_here() -> None:
    def refused() -> Animator:
        raise BundleError("no model", "make one")

    for version, kind in ((None, BundleError), ("0.0", BackendError)):
        _, one = away(refused, version)
        with pytest.raises(kind) as caught:
            one.check()
        assert caught.value.hint and not one.lost
