"""The loop: what is shown, in which state, and what orders do meanwhile."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_feeds import HandFeed, until
from toy_bundle import blob, centre

from sonomime.runtime import Animator, Bundle
from sonomime.runtime.landmarks import Given, Picture
from sonomime.runtime.live import loop, pairs, showing
from sonomime.runtime.live.feed import Feed
from sonomime.runtime.live.how import How
from sonomime.runtime.live.pairs import Still
from sonomime.runtime.live.showing import Shown
from sonomime.runtime.live.stream import Stream
from sonomime.runtime.live.turns import Turns
from sonomime.runtime.support.errors import BackendError, ConfigError, InputError, StreamError

STILL = Still(Picture(blob(64, 0, 0)), "middle")
OTHER = Still(Picture(blob(64, 0.2, 0.2)), "other")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream notices silence soon; one frame in 10 ms while none come."""
    monkeypatch.setattr(loop, "HELD_AFTER", 0.05)
    monkeypatch.setattr(showing, "LOST_AFTER", 0.5)


class Run:
    """A started stream, all that it has shown, and what was answered."""

    def __init__(
        self, bundle: Path, source: Still | Feed = STILL, driving: Feed | None = None, **more: Any
    ) -> None:
        opened = Bundle.open(bundle)
        self.feed: Any = driving or HandFeed()
        self.feed.rate = 100
        opens = partial(Animator.open, opened, "cpu", threads=1)
        self.stream = Stream(opened.manifest, opens, source, self.feed, **more)
        self.shown: list[Shown] = []
        self.ended: list[Shown] = []
        self.stream.start(self.shown.append, self.ended.append)

    def next(self, true: Callable[[Shown], object], give: Any = None) -> Shown:
        """The first frame from now on that is so; meanwhile the feed gets this image."""
        seen = len(self.shown)

        def found() -> Shown | None:
            if give is not None:
                self.feed.give(give)
                time.sleep(0.005)
            return next((each for each in self.shown[seen:] if true(each)), None)

        return until(found)

    def order(self, text: str) -> str:
        answers: queue.Queue[str] = queue.Queue()
        self.stream.order(text, answers.put)
        return answers.get(timeout=60)

    def start(self) -> None:
        """Until it is live."""
        self.next(lambda shown: shown.state == "live", STILL.picture.image)


@pytest.fixture
def run(toy_bundle: Path) -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def begin(*args: Any, **more: Any) -> Run:
        runs.append(Run(more.pop("bundle", toy_bundle), *args, **more))
        return runs[-1]

    yield begin
    for each in runs:
        each.stream.close()
    assert not [t for t in threading.enumerate() if t.name.startswith(("feed", "pairs", "stream"))]


def is_at(x: float, y: float) -> Callable[[Shown], bool]:
    """Whether the blob is there; the mark is cut off."""
    there = centre(blob(64, x, y)[:50])

    def at_place(shown: Shown) -> bool:
        image = shown.image[:50]
        return bool(image.any()) and np.allclose(centre(image), there, atol=0.03)

    return at_place


def test_states_follow_the_driving_frames(run: Callable[..., Run]) -> None:
    live = run(how=How(mark=False))
    begin = live.next(lambda shown: True, blob(64, 0.1, 0))
    assert begin.state in ("warming up", "live")
    live.next(lambda shown: shown.state == "live", blob(64, 0.1, 0))
    moved = live.next(is_at(0.2, 0), blob(64, 0.3, 0))  # the first frame, at .1, is the reference
    assert moved.state == "live" and moved.latency is not None and moved.source == "middle"
    held = live.next(lambda shown: shown.state == "held")
    assert is_at(0.2, 0)(held) and held.latency is None and held.why
    lost = live.next(lambda shown: shown.state == "no signal")
    assert not lost.image.any()
    live.next(is_at(-0.2, 0.1), blob(64, -0.1, 0.1))
    live.stream.stop()
    assert live.stream.wait(60)
    assert [each.number for each in live.shown] == list(range(len(live.shown)))
    assert {each.image.shape for each in live.shown} == {(64, 64)}
    times = [each.timestamp for each in live.shown]
    assert times == sorted(times)
    (end,) = live.ended
    assert end.state == "no signal" and not end.image.any() and end.number == len(live.shown)
    now = live.stream.metrics.snapshot()
    assert now["frames"] == len(live.shown) and now["state_changes"] >= 4
    assert now["state"] == "no signal"
    assert now["latency_ms"]["p50"] <= now["latency_ms"]["max"]


def test_states_are_written_into_the_picture_unless_the_mark_is_left_out(
    run: Callable[..., Run],
) -> None:
    for mark in (True, False):
        live = run(how=How(mark=mark))
        shown = live.next(lambda shown: shown.state == "warming up")
        assert bool(shown.image[:20].any()) is mark  # the word; the mark is at the bottom
        assert bool(shown.image[40:].any()) is mark


def test_silence_before_the_first_frame_is_no_signal(run: Callable[..., Run]) -> None:
    live = run()
    live.feed.problem = "camera 0 cannot be opened"
    shown = live.next(lambda shown: shown.state == "no signal")
    assert shown.why == "camera 0 cannot be opened" and shown.image.shape == (64, 64)


def test_a_new_source_takes_over_without_a_gap(run: Callable[..., Run]) -> None:
    live = run(sources=OneSource(), how=How(mark=False))
    live.start()
    live.next(is_at(0.2, 0), blob(64, 0.2, 0))
    assert live.order("source other.png") == "ok"
    shown = live.next(is_at(0.4, 0.2), blob(64, 0.2, 0))  # the reference stays
    assert shown.source == "other"
    assert "nothing.png" in live.order("source nothing.png")
    live.next(is_at(0.2, 0.2), blob(64, 0.0, 0))
    live.stream.take_source(STILL)
    live.next(is_at(0.1, 0), blob(64, 0.1, 0))
    # While nothing moves it shows at once, in the pose of the last driving frame.
    live.next(lambda shown: shown.state == "held")
    live.stream.take_source(OTHER)
    shown = live.next(is_at(0.3, 0.2))
    assert shown.latency is None and shown.state == "held"
    live.next(lambda shown: shown.state == "no signal")
    seen = len(live.shown)
    live.stream.take_source(STILL)
    live.next(lambda shown: shown.source == "middle")
    assert {each.state for each in live.shown[seen:]} == {"no signal"}, "nothing new has come"


def test_a_source_that_cannot_be_read_while_the_first_is_prepared(run: Callable[..., Run]) -> None:
    live = run(sources=OneSource())
    answers: queue.Queue[str] = queue.Queue()
    live.stream.order("source nothing.png", answers.put)
    live.feed.give(STILL.picture.image)
    assert "nothing.png" in answers.get(timeout=60)
    live.next(lambda shown: shown.state == "live", STILL.picture.image)
    assert live.stream.error is None


def test_a_reference_that_cannot_be_prepared_is_tried_once(
    run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    live = run()
    live.start()
    tried = []

    def fails(self: Any, *words: Any) -> Any:
        tried.append(words)
        raise BackendError("no memory is left")

    monkeypatch.setattr(pairs.Pairs, "_prepared", fails)
    assert live.order("reference") == "ok"
    for _ in range(30):
        live.next(lambda shown: shown.state == "live", blob(64, 0.1, 0))
    assert len(tried) == 1 and live.stream.error is None


def test_the_seam_of_a_loop_is_no_cut(run: Callable[..., Run]) -> None:
    live = run()
    live.start()
    first = live.stream._pairing.reference
    until(lambda: live.feed.given.empty())
    live.feed.turn = 1  # the clip begins again, with a frame unlike the one before
    for _ in range(8):
        live.next(lambda shown: shown.state == "live", 255 - blob(64, 0.1, 0))
    assert live.stream._pairing.reference is first


def test_landmarks_are_for_the_pictures_that_are_shown(
    run: Callable[..., Run], displacement_toy: Path
) -> None:
    live = run(bundle=displacement_toy)
    live.start()
    answers: queue.Queue[str] = queue.Queue()
    given = Given({"1": (30.0, 30.0)}, {"1": (20.0, 30.0)})
    live.stream.take_landmarks(given, live.stream.pair_number - 1, answers.put)
    assert "changed" in answers.get(timeout=60)
    live.stream.take_source(OTHER)
    live.stream.take_landmarks(given, live.stream.pair_number, answers.put)
    assert "changed" in answers.get(timeout=60), "another source is being prepared"
    live.next(lambda shown: shown.source == "other", STILL.picture.image)
    live.stream.take_landmarks(given, live.stream.pair_number, answers.put)
    assert answers.get(timeout=60) == "ok"
    until(lambda: live.stream.pair.alignment.said.startswith("aligned by 1"))


def test_a_source_is_answered_though_a_reference_is_asked_for_after_it(
    run: Callable[..., Run],
) -> None:
    live = run(sources=OneSource())
    live.start()
    for _ in range(5):
        answers: queue.Queue[str] = queue.Queue()
        for text in ("source other.png", "reference", "source other.png", "reference"):
            live.stream.order(text, answers.put)
        live.next(lambda shown: shown.source == "other", STILL.picture.image)
        said = [answers.get(timeout=60) for _ in range(4)]
        assert said.count("ok") >= 3 and set(said) <= {"ok", pairs.REPLACED}


def test_who_waits_for_an_answer_gets_one(run: Callable[..., Run]) -> None:
    source = HandFeed("probe")
    live = run(source)
    source.give(STILL.picture.image)
    until(lambda: live.shown)  # it was taken: the size is known
    answers: queue.Queue[str] = queue.Queue()
    live.stream.take_source(OTHER, answers.put)  # before any driving frame
    live.next(is_at(0.2, 0.2), STILL.picture.image)
    assert answers.get(timeout=60) == "ok"
    live.stream.stop()
    live.stream.wait(60)
    live.stream.order("pause", answers.put)
    live.stream._errands.end()
    assert "ended" in answers.get(timeout=60)


class OneSource:
    """All that can be named."""

    def names(self) -> list[str]:
        return ["other.png"]

    def read(self, name: str) -> Still:
        if name != "other.png":
            raise InputError(f"there is no {name}")
        return OTHER


def test_sources_of_another_shape_and_colour_fit_into_the_first(run: Callable[..., Run]) -> None:
    live = run(how=How(mark=False))
    live.start()
    wide = np.full((32, 128, 3), (200, 100, 50), np.uint8)
    live.stream.take_source(Still(Picture(wide), "wide"))
    live.next(lambda shown: shown.source == "wide", STILL.picture.image)
    shown = live.next(lambda shown: True, STILL.picture.image).image
    assert shown.shape == (64, 64)
    assert not shown[:20].any() and not shown[-20:].any() and shown[28:36, 20:44].all()


def test_the_reference_is_taken_again_on_order_and_after_a_cut(run: Callable[..., Run]) -> None:
    live = run()
    live.start()
    live.next(is_at(0.3, 0), blob(64, 0.3, 0))
    assert live.order("reference") == "ok"
    live.next(is_at(0, 0), blob(64, 0.3, 0))
    cut = 255 - blob(64, 0.3, 0)
    live.next(is_at(0, 0), cut)
    until(lambda: live.stream._pairing.reference.image is cut)


def test_cuts_can_be_ignored(run: Callable[..., Run]) -> None:
    live = run(how=How(on_cut="ignore"))
    live.start()
    first = live.stream._pairing.reference
    for _ in range(10):
        live.next(lambda shown: shown.state == "live", 255 - blob(64, 0.3, 0))
    assert live.stream._pairing.reference is first


def test_a_pause_holds_the_picture(run: Callable[..., Run]) -> None:
    live = run(how=How(mark=False))
    live.start()
    live.next(is_at(0.2, 0), blob(64, 0.2, 0))
    assert live.order("pause") == "ok"
    live.next(lambda shown: shown.state == "held" and shown.why == "paused")
    for _ in range(5):
        shown = live.next(lambda shown: True, blob(64, -0.2, 0))
        assert is_at(0.2, 0)(shown) and shown.state == "held"
    assert live.order("resume") == "ok"
    live.next(is_at(-0.2, 0), blob(64, -0.2, 0))


def test_scale_is_changed_and_kept_for_later_sources(run: Callable[..., Run]) -> None:
    live = run()
    live.start()
    assert live.order("scale 2") == "ok"
    live.next(is_at(0.2, 0), blob(64, 0.1, 0))
    live.stream.take_source(OTHER)
    live.next(is_at(0.4, 0.2), blob(64, 0.1, 0))
    assert "shading" in live.order("shading off"), "this model cannot"
    live.stream.take_source(STILL)  # a scale that comes while it is prepared is for it too
    assert live.order("scale 3") == "ok"
    live.next(is_at(0.3, 0), blob(64, 0.1, 0))
    for wrong in ("", "dance", "scale", "scale 0", "scale x", "pause now", "shading bright"):
        with pytest.raises(ConfigError):
            live.stream.order(wrong)
    assert "no" in live.order("source x.png"), "this stream reads none"
    assert live.order("stop") == "ok"
    assert live.stream.wait(60) and live.stream.error is None


def test_a_live_source_gives_its_newest_frame(run: Callable[..., Run]) -> None:
    source = HandFeed("probe")
    live = run(source, how=How(mark=False))
    for _ in range(3):
        live.feed.give(blob(64, 0.1, 0))  # nothing can be shown yet
        time.sleep(0.01)
    assert not live.shown
    source.give(STILL.picture.image)
    live.next(is_at(0, 0), blob(64, 0.1, 0))
    assert "newer" in live.order("source newest")
    source.give(OTHER.picture.image)
    until(lambda: source.given.empty())
    live.next(is_at(0.2, 0), blob(64, 0.3, 0))
    assert live.order("source newest") == "ok"
    live.next(is_at(0.4, 0.2), blob(64, 0.3, 0))


def test_a_live_source_is_taken_every_so_often(run: Callable[..., Run]) -> None:
    source = HandFeed("probe")
    live = run(source, how=How(source_every=0.05))
    for still in (STILL, OTHER, STILL):
        source.give(still.picture.image)
        x, y = (0.2, 0.2) if still is OTHER else (0, 0)
        live.next(is_at(x, y), blob(64, 0.1, 0))


def test_what_ends_a_stream_is_known_afterwards(run: Callable[..., Run]) -> None:
    with pytest.raises(InputError):
        run(Still(Picture(np.zeros((4, 4), np.float32)), "no picture"))  # type: ignore[arg-type]
    live = run()
    live.start()
    live.feed.give(InputError("the clip is damaged"))
    assert live.stream.wait(60) and isinstance(live.stream.error, InputError)


def test_a_live_frame_that_cannot_be_used_is_passed_over(run: Callable[..., Run]) -> None:
    live = run()
    live.start()
    live.feed.give(np.full((5, 5, 7), 9, np.uint8))
    live.next(is_at(0.1, 0), blob(64, 0.1, 0))


def was_taken(live: Run, text: str, answer: Callable[[str], None]) -> bool:
    """Whether there was room for an order."""
    try:
        live.stream.order(text, answer)
    except StreamError:
        return False
    return True


def test_a_flood_of_orders_delays_no_frame(run: Callable[..., Run]) -> None:
    live = run()
    live.start()
    ended, refused = threading.Event(), threading.Event()

    def flood() -> None:
        while not ended.is_set():
            try:
                live.stream.order("scale 1.5")
            except StreamError:
                refused.set()

    flooders = [threading.Thread(target=flood) for _ in range(3)]
    for flooder in flooders:
        flooder.start()
    try:
        assert refused.wait(60)
        for _ in range(10):
            live.next(lambda shown: shown.state == "live", blob(64, 0.1, 0))
    finally:
        ended.set()
        for flooder in flooders:
            flooder.join()
    until(lambda: was_taken(live, "scale 1", lambda text: None))


def test_many_threads_may_give_orders(run: Callable[..., Run]) -> None:
    live = run(sources=OneSource())
    live.start()
    answers: queue.Queue[str] = queue.Queue()

    def ask(seed: int) -> None:
        random = np.random.default_rng(seed)
        texts = ["source other.png", "reference", "pause", "resume", "scale 1.5", "scale 1"]
        for text in random.choice(texts, 30):
            until(lambda text=text: was_taken(live, str(text), answers.put))
            live.stream.metrics.snapshot()

    askers = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    for _ in range(240):
        assert answers.get(timeout=60)
    assert live.order("resume") == live.order("scale 1") == live.order("reference") == "ok"
    live.next(lambda shown: shown.source == "other" and shown.state == "live", blob(64, 0.1, 0))
    assert live.stream.error is None
    kept = live.shown[-1].image.copy(), live.shown[-1]
    live.next(is_at(0.3, 0.2), blob(64, 0.2, 0))
    assert np.array_equal(kept[0], kept[1].image), "a frame belongs to whoever got it"


def test_a_stream_that_waits_for_its_turn_shows_the_newest_frame(run: Callable[..., Run]) -> None:
    turns = Turns(1)
    live = run(how=How(turns=turns))
    live.start()
    live.next(is_at(0.3, 0), blob(64, 0.3, 0))
    with turns.take(0.0):
        live.feed.give(blob(64, 0.3, 0))
        until(lambda: turns._waiting)
        seen, dropped = len(live.shown), live.feed.dropped
        live.feed.give(blob(64, 0.4, 0))
        live.feed.give(blob(64, 0.1, 0))
        until(lambda: live.feed.dropped > dropped)  # the second one has come
        assert len(live.shown) == seen
    until(lambda: len(live.shown) > seen)
    assert is_at(0.1, 0)(live.shown[seen])
    assert live.feed.dropped >= dropped + 2


class TwoSources(OneSource):
    """The source `slow.png` cannot be read, which takes a while to know."""

    def read(self, name: str) -> Still:
        if name == "slow.png":
            time.sleep(0.3)
            raise InputError("it is damaged")
        return super().read(name)


def test_a_source_that_fails_leaves_the_one_that_is_wanted_by_then(run: Callable[..., Run]) -> None:
    live = run(sources=TwoSources())
    live.start()
    answers: queue.Queue[str] = queue.Queue()
    live.stream.order("source slow.png", answers.put)
    time.sleep(0.1)  # it is being read
    live.stream.order("source other.png", answers.put)
    assert {answers.get(timeout=60), answers.get(timeout=60)} == {"it is damaged", "ok"}
    live.next(lambda shown: shown.source == "other", blob(64, 0.1, 0))
    assert live.order("reference") == "ok"
    for _ in range(20):
        assert live.next(lambda shown: True, blob(64, 0.1, 0)).source == "other"
