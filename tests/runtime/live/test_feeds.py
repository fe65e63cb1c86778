"""Where driving frames come from: clips and templates at their times, cameras, folders, peers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from live_feeds import until

from sonomime.runtime.bundle.bundle import Bundle
from sonomime.runtime.driving import open_driving
from sonomime.runtime.live import retry
from sonomime.runtime.live.cuts import SETTLE, Cuts
from sonomime.runtime.live.feed import Arrival, Feed, clip_feed, template_feed
from sonomime.runtime.live.opening import Stills, files_beside, open_driving_feed, open_live
from sonomime.runtime.live.retry import Retry
from sonomime.runtime.media.frames import Crop
from sonomime.runtime.readers.reading import AS_IS, Reading
from sonomime.runtime.support.errors import ConfigError, InputError


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Four frames at 50 a second; each has one level beside black."""
    folder = tmp_path / "clip"
    folder.mkdir()
    for number in range(4):
        cv2.imwrite(str(folder / f"{number}.png"), picture(number))
    return folder


def picture(number: int) -> Any:
    image = np.zeros((16, 16), np.uint8)
    image[4:12] = 50 + number
    return image


def number_of(arrival: Arrival) -> int:
    assert arrival.image is not None
    return int(arrival.image.max()) - 50


def taken(feed: Feed, count: int) -> list[Arrival]:
    return [each for each in (feed.arrivals.take(30) for _ in range(count)) if each is not None]


@pytest.fixture
def begun() -> Iterator[Callable[[Feed], Feed]]:
    feeds: list[Feed] = []

    def begin(feed: Feed) -> Feed:
        feed.start()
        feeds.append(feed)
        return feed

    yield begin
    for feed in feeds:
        feed.stop()


def driving(clip: Path) -> Any:
    return open_driving(clip, Reading(fps=Fraction(50)), 1)


def test_a_paced_clip_comes_at_its_times(clip: Path, begun: Callable[[Feed], Feed]) -> None:
    feed = begun(clip_feed("clip", driving(clip), "paced", loop=False))
    found = taken(feed, 9)
    until(lambda: feed.ended)
    assert feed.rate == 50 and feed.error is None
    assert {round(each.timestamp, 3) for each in found} <= {0, 0.02, 0.04, 0.06}
    assert len(found) + feed.dropped == 4
    due = [each.came - each.timestamp for each in found]
    assert max(due) - min(due) < 1e-6, "they came when they were due, not when they were taken"


def test_an_unpaced_clip_waits_and_drops_nothing(clip: Path, begun: Callable[[Feed], Feed]) -> None:
    feed = begun(clip_feed("clip", driving(clip), "unpaced", loop=True))
    found = taken(feed, 10)
    assert [number_of(each) for each in found] == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    times = [each.timestamp for each in found]
    assert np.allclose(np.diff(times), 0.02) and feed.dropped == 0


def test_a_loop_says_where_it_begins_again_and_ends_when_nothing_can_be_read(
    clip: Path, begun: Callable[[Feed], Feed]
) -> None:
    feed = begun(clip_feed("clip", driving(clip), "unpaced", loop=True))
    assert [each.turn for each in taken(feed, 9)] == [0, 0, 0, 0, 1, 1, 1, 1, 2]
    (clip / "0.png").write_bytes(b"damaged")
    until(lambda: feed.arrivals.take(0.01) is None and feed.ended)
    assert isinstance(feed.error, InputError)


def test_frames_that_are_no_pictures_are_passed_over(begun: Callable[[Feed], Feed]) -> None:
    def fetch(feed: Feed) -> None:
        feed.arrived(np.ones((5, 5, 7), np.uint8))
        feed.arrived(np.ones((5, 5), np.float32))  # type: ignore[arg-type]

    feed = begun(Feed("odd", fetch))
    until(lambda: feed.ended)
    assert feed.dropped == 2 and "uint8" in feed.problem and feed.error is None


def test_a_pause_delays_what_comes_after_it(clip: Path, begun: Callable[[Feed], Feed]) -> None:
    feed = clip_feed("clip", driving(clip), "paced", loop=False)
    feed.pause(True)
    begun(feed)
    assert feed.arrivals.take(0.1) is None
    begin = time.perf_counter()
    feed.pause(False)
    first = until(lambda: feed.arrivals.take(1))
    assert number_of(first) == 0 and first.came > begin - 0.01


def test_a_template_gives_times(begun: Callable[[Feed], Feed]) -> None:
    breathing: Any = open_driving(Path("breathing"), AS_IS, 1)
    feed = begun(template_feed("breathing", breathing, "unpaced", loop=False))
    times = [each.timestamp for each in taken(feed, 1000)]
    assert np.allclose(np.diff(times), 0.04) and times[0] == 0
    assert breathing.seconds - 0.04 < times[-1] <= breathing.seconds
    endless = begun(template_feed("breathing", breathing, "unpaced", loop=True))
    assert taken(endless, len(times) + 5)[-1].timestamp > breathing.seconds


class FakeCamera:
    """Stands for cv2.VideoCapture. `frames`: what each opening gives; it is gone in between."""

    frames: list[list[int]]
    opened = released = 0

    def __init__(self, number: int) -> None:
        assert number == 3
        type(self).opened += 1
        self._left = list(self.frames.pop(0)) if self.frames else []

    def set(self, key: int, value: float) -> bool:
        return True

    def isOpened(self) -> bool:
        return bool(self._left)

    def read(self) -> tuple[bool, Any]:
        if not self._left:
            return False, None
        time.sleep(0.02)
        image = np.stack([picture(self._left.pop(0))] * 3, -1)
        image[..., 2] += 9  # red is last
        return True, image

    def release(self) -> None:
        type(self).released += 1


def test_a_camera_that_goes_comes_back(
    monkeypatch: pytest.MonkeyPatch, begun: Callable[[Feed], Feed]
) -> None:
    monkeypatch.setattr(retry, "SOONEST", 0.01)
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    FakeCamera.frames = [[], [1, 2], [], [3]]
    opened: Any = open_live("camera:3", AS_IS)
    feed = begun(opened)
    seen = [taken(feed, 1)[0] for _ in range(3)]
    assert seen[-1].image.shape == (16, 16, 3) and seen[-1].image[5, 5].tolist() == [62, 53, 53]
    until(lambda: "camera 3" in feed.problem)
    feed.stop()
    assert FakeCamera.opened == FakeCamera.released >= 4 and feed.error is None


def test_a_folder_gives_its_newest_whole_picture(
    tmp_path: Path, begun: Callable[[Feed], Feed], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "grabbed"
    opened: Any = open_live(f"watch:{folder}", Reading(crop=Crop(0, 4, 16, 8)))
    feed = begun(opened)
    until(lambda: feed.problem)
    folder.mkdir()
    until(lambda: "no new pictures" in feed.problem)
    whole = cv2.imencode(".png", picture(1))[1].tobytes()
    write(folder / "b.png", whole[:-20])
    assert feed.arrivals.take(0.2) is None, "half of it is there"
    write(folder / "b.png", whole)
    first = taken(feed, 1)[0]
    assert number_of(first) == 1 and first.image.shape[:2] == (8, 16) and not feed.problem
    write(folder / ".hidden.png", whole)
    write(folder / "notes.txt", b"not a picture")
    write(folder / "a.png", cv2.imencode(".png", picture(2))[1].tobytes())  # newer, not by name
    assert number_of(taken(feed, 1)[0]) == 2
    monkeypatch.setattr("sonomime.runtime.live.watched.WRITTEN_WITHIN", 0.1)
    write(folder / "c.png", b"no picture")
    until(lambda: "c.png" in feed.problem)
    write(folder / "d.png", cv2.imencode(".png", picture(3))[1].tobytes())
    assert number_of(taken(feed, 1)[0]) == 3
    later: Any = open_live(f"watch:{folder}", AS_IS)
    assert begun(later).arrivals.take(0.2) is None, "what was there before is not live"


def write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    newest = max(each.stat().st_mtime_ns for each in path.parent.iterdir())
    os.utime(path, ns=(newest + 1, newest + 1))  # the clock of some file systems is coarse


def test_pictures_come_over_openigtlink(begun: Callable[[Feed], Feed]) -> None:
    pytest.importorskip("fastcrc")
    from sonomime.runtime.live.openigtlink.content import image_content, string_content
    from sonomime.runtime.live.openigtlink.message import Message
    from sonomime.runtime.live.openigtlink.server import Server

    with Server(port=0) as server:
        opened: Any = open_live(f"igtl://127.0.0.1:{server.port}", Reading(crop=Crop(0, 4, 8, 8)))
        feed = begun(opened)
        until(lambda: server.clients)
        server.send(Message("STRING", string_content("nothing to see")))
        server.send(Message("IMAGE", image_content(picture(1)), "Probe"))
        first = taken(feed, 1)[0]
        assert number_of(first) == 1 and first.image.shape == (8, 8)
        server.send(Message("IMAGE", image_content(picture(1)[:8]), "Probe"))
        until(lambda: "outside" in feed.problem)
        server.send(Message("IMAGE", b"nonsense", "Probe"))
        until(lambda: "malformed" in feed.problem)
        server.send(Message("IMAGE", image_content(picture(2)), "Probe"))
        assert number_of(taken(feed, 1)[0]) == 2 and not feed.problem
    until(lambda: "nothing answers" in feed.problem)


def test_waits_double_until_something_works() -> None:
    waits = Retry()
    assert [waits.pause() for _ in range(7)] == [0.25, 0.5, 1, 2, 4, 8, 8]
    waits.worked()
    assert waits.pause() == 0.25


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("camera:x", AS_IS),
        ("camera", AS_IS),
        ("/dev/video0", AS_IS),
        ("rtsp://camera/1", AS_IS),
        ("camera:99999999999", AS_IS),
        ("igtl://localhost", AS_IS),
        ("igtl://localhost:99999", AS_IS),
        ("igtl://a b:18944", AS_IS),
        ("camera:0", Reading(crop="auto")),
        ("camera:0", Reading(mask=True)),
        ("camera:0", Reading(fps=Fraction(25))),
    ],
)
def test_what_cannot_be_is_refused(text: str, how: Reading) -> None:
    with pytest.raises(ConfigError):
        open_live(text, how)


def test_options_of_clips_do_not_fit_live_feeds_and_templates(toy_bundle: Path) -> None:
    chain, said = Bundle.open(toy_bundle).manifest, list[str]()

    def opens(text: str, pace: Any = "paced", loop: bool = False, reference: Any = "first") -> Any:
        return open_driving_feed(text, AS_IS, chain, pace, loop, reference, said.append)

    for more in ({"loop": True}, {"pace": "unpaced"}, {"reference": 3}):
        with pytest.raises(ConfigError):
            opens("camera:0", **more)
    for text, reference in (("breathing", 3), ("breathing", "best")):
        with pytest.raises(ConfigError):
            opens(text, reference=reference)
    with pytest.raises(InputError):
        opens("no-such-clip.mp4")


def test_a_clip_is_opened_with_its_reference(clip: Path, toy_bundle: Path) -> None:
    chain = Bundle.open(toy_bundle).manifest
    how = Reading(crop=Crop(0, 2, 16, 12), fps=Fraction(25))
    found = open_driving_feed(str(clip), how, chain, "paced", False, 2, lambda line: None)
    assert found.reference is not None and found.reference.max() == 52
    assert found.crop == how.crop and found.feed.rate == 25
    with pytest.raises(InputError):
        open_driving_feed(str(clip), how, chain, "paced", False, 9, lambda line: None)
    with pytest.raises(ConfigError):
        open_driving_feed(str(clip), how, chain, "paced", False, "best", lambda line: None)


def test_sources_are_named_within_their_folder(
    clip: Path, tmp_path: Path, toy_bundle: Path
) -> None:
    cv2.imwrite(str(tmp_path / "beside.png"), picture(3))
    (clip / ".hidden.png").write_bytes(b"")
    files, chain = files_beside(clip / "1.png"), Bundle.open(toy_bundle).manifest
    stills = Stills(files, AS_IS, chain, lambda line: None)
    assert stills.names() == ["0.png", "1.png", "2.png", "3.png"]
    assert stills.read("2.png").picture.image.max() == 52
    for name in ("../beside.png", str(tmp_path / "beside.png"), "beside.png", "", ".", "a\0b"):
        with pytest.raises(InputError):
            stills.read(name)


def test_a_cut_is_noticed_when_the_new_scene_has_settled() -> None:
    random = np.random.default_rng(3)
    first, second = (
        cv2.resize(random.integers(0, 255, (8, 8)).astype(np.uint8), (200, 100)) for _ in range(2)
    )
    cuts = Cuts()
    assert not any(cuts.begun(np.roll(first, i, 1)) for i in range(20)), "motion is no cut"
    assert not any(cuts.begun(np.zeros((100, 200), np.uint8)) for _ in range(3))
    assert not cuts.begun(first), "a black gap is none"
    found = [cuts.begun(np.roll(second, i, 1)) for i in range(10)]
    assert [i for i, cut in enumerate(found) if cut] == [SETTLE]
    assert not cuts.begun(np.stack([np.roll(second, 10, 1)] * 3, -1)), "colours do not matter"
