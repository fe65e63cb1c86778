"""Where frames go: files that grow, OpenIGTLink, shared memory; outlets that are slow or fail."""

from __future__ import annotations

import queue
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from live_feeds import until

from sonomime.runtime.live.outlets import Outlets, ThreadedOutlet, recorder
from sonomime.runtime.live.shared_memory import SharedMemoryOutlet
from sonomime.runtime.live.showing import Shown
from sonomime.runtime.quality import Quality
from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.support.errors import OutputError, StreamError


def shown(number: int, **more: Any) -> Shown:
    image = np.full((16, 24), number % 256, np.uint8)
    return Shown(number, image, number / 25, 1.7e9 + number, **{"state": "live"} | more)


class Collector:
    """A writer that keeps what it gets; `slow` seconds each."""

    def __init__(self, slow: float = 0, fails_at: int | None = None) -> None:
        self.numbers: list[int] = []
        self.closed = False
        self._slow, self._fails_at = slow, fails_at

    @contextmanager
    def open(self, first: Shown) -> Iterator[Callable[[Shown], object]]:
        yield self._take
        self.closed = True

    def _take(self, each: Shown) -> None:
        if each.number == self._fails_at:
            raise OutputError("the disk is full")
        time.sleep(self._slow)
        self.numbers.append(each.number)


def test_a_slow_outlet_gets_the_newest_frames_and_delays_nobody() -> None:
    slow, quick = Collector(0.05), Collector()
    outlets = ThreadedOutlet("slow", slow.open), ThreadedOutlet("quick", quick.open, waits=True)
    group = Outlets(outlets)
    for number in range(100):
        group.show(shown(number))
    group.close()
    assert quick.numbers == list(range(100)) and quick.closed and slow.closed
    assert slow.numbers == sorted(slow.numbers) and slow.numbers[-1] == 99
    assert len(slow.numbers) + outlets[0].dropped() == 100 and not group.errors


def test_one_that_waits_takes_every_frame() -> None:
    slow = Collector(0.002)
    outlet = ThreadedOutlet("slow", slow.open, waits=True)
    for number in range(50):
        outlet.show(shown(number))
    outlet.close()
    assert slow.numbers == list(range(50)) and outlet.dropped() == 0


def test_an_outlet_that_fails_is_left_out_and_the_others_go_on() -> None:
    bad, good = Collector(fails_at=3), Collector()
    group = Outlets(
        [ThreadedOutlet("bad", bad.open, True), ThreadedOutlet("good", good.open, True)]
    )
    for number in range(20):
        group.show(shown(number))
    group.close()
    assert good.numbers == list(range(20)) and bad.numbers == [0, 1, 2]
    assert [type(error) for error in group.errors] == [OutputError]
    alone = Outlets([ThreadedOutlet("bad", Collector(fails_at=0).open, True)])
    with pytest.raises(OutputError):
        for number in range(20):
            alone.show(shown(number))


@pytest.mark.parametrize("name", ["out.mp4", "out.mkv"])
def test_a_recording_grows_and_is_playable_before_its_end(tmp_path: Path, name: str) -> None:
    path, part = tmp_path / name, tmp_path / f"{name}.part"
    outlet = recorder(path, 25, None, waits=True)
    outlet.show(shown(0, state="warming up"))
    for number in range(1, 101):
        outlet.show(shown(number))
    until(lambda: part.exists() and part.stat().st_size > 0)
    playable = tmp_path / f"copy-{name}"
    until(lambda: frames_in(part, playable) >= 50)
    assert not path.exists()
    outlet.close()
    found = list(open_source(path))
    assert len(found) == 100 and not part.exists()
    assert np.allclose([each.timestamp for each in found], np.arange(100) / 25, atol=1e-3)
    assert abs(int(found[7].image[4, 4]) - 8) <= 1  # what was shown while warming up is left out


def frames_in(part: Path, copy: Path) -> int:
    shutil.copy(part, copy)
    try:
        return sum(1 for _ in open_source(copy, announce=False))
    except Exception:
        return 0


def test_a_recording_that_was_cut_off_is_not_written_over(tmp_path: Path) -> None:
    part = tmp_path / "out.mkv.part"
    part.write_bytes(b"all that is left of a lesson")
    outlet = recorder(tmp_path / "out.mkv", 25, None, waits=True)
    with pytest.raises(OutputError):
        for number in range(9):
            outlet.show(shown(number))
    assert part.read_bytes() == b"all that is left of a lesson"


def test_a_recording_begins_with_a_picture_and_one_without_is_an_error(tmp_path: Path) -> None:
    outlet = recorder(tmp_path / "a.mkv", 25, None, waits=True)
    for number, state in enumerate(("warming up", "no signal", "held", "live", "held")):
        outlet.show(shown(number, state=state))
    outlet.close()
    assert [frame.image[0, 0] for frame in open_source(tmp_path / "a.mkv")] == [3, 4]
    empty = recorder(tmp_path / "b.mkv", 25, None, waits=True)
    empty.show(shown(0, state="no signal"))
    with pytest.raises(OutputError):
        empty.close()
    assert not (tmp_path / "b.mkv").exists()


def test_an_outlet_with_a_defect_is_left_out_too() -> None:
    class Broken:
        name = "broken"

        def show(self, each: Shown) -> None:
            raise UnicodeEncodeError("utf-8", "x", 0, 1, "no text")

        end = show

        def dropped(self) -> int:
            return 0

        def close(self) -> None:
            raise RuntimeError("also broken")

    good = Collector()
    group = Outlets([Broken(), ThreadedOutlet("good", good.open, True)])
    for number in range(3):
        group.show(shown(number))
    group.end(shown(3))
    group.close()
    assert good.numbers == [0, 1, 2] and len(group.errors) == 1


def test_a_recording_in_dicom_appears_when_it_is_whole(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom")
    outlet = recorder(tmp_path / "out.dcm", None, False, waits=True)
    for number in range(5):
        outlet.show(shown(number, spacing=(0.2, 0.3)))
    assert not (tmp_path / "out.dcm").exists()
    outlet.close()
    data = pydicom.dcmread(tmp_path / "out.dcm")
    assert data.NumberOfFrames == 5 and data.SyntheticData == "YES"
    assert data.BurnedInAnnotation == "NO"


# -- OpenIGTLink -----------------------------------------------------------------------------------


@pytest.fixture
def igtl() -> Any:
    pytest.importorskip("fastcrc")
    from sonomime.runtime.live.openigtlink import client, content, message, outlet, server

    return SimpleNamespace(
        Client=client.Client, Server=server.Server, Message=message.Message,
        IgtlOutlet=outlet.IgtlOutlet, **vars(content),
    )  # fmt: skip


def newest(inbox: queue.Queue[Any], kind: str) -> Any:
    while (message := inbox.get(timeout=60)).type != kind:
        pass
    return message


def test_frames_states_and_orders_go_over_openigtlink(igtl: Any) -> None:
    orders: queue.Queue[str] = queue.Queue()

    def order(text: str, answer: Callable[[str], None]) -> None:
        orders.put(text)
        if text == "wrong":
            raise StreamError("no such order", "try another")
        answer("ok")

    outlet = igtl.IgtlOutlet("igtl", partial(igtl.Server, 0, "127.0.0.1"), order)
    inbox: queue.Queue[Any] = queue.Queue()
    quality = Quality(0.25, 0.1, 0, 0, "")
    with igtl.Client("127.0.0.1", outlet._sender.port, inbox.put) as client:
        until(lambda: outlet._sender.clients)
        outlet.show(shown(7, quality=quality, latency=0.0125, spacing=(0.5, 0.25), source="a.png"))
        image = newest(inbox, "IMAGE")
        assert image.device == "Image" and image.number == 7 and image.time == 1.7e9 + 7
        found = igtl.read_image(image.content)
        assert (found.image == 7).all() and found.spacing == (0.5, 0.25)
        texts = image.metadata
        assert (
            texts["Synthetic"] == "YES" and texts["State"] == "live" and texts["Source"] == "a.png"
        )
        assert texts["Confidence"] == "0.250" and texts["LatencyMilliseconds"] == "12.5"
        status = igtl.read_status(newest(inbox, "STATUS").content)
        assert status.code == 1 and status.name == "LIVE"
        for number, (state, code) in enumerate(
            {"held": 7, "no signal": 16, "doubtful": 2, "warming up": 13}.items(), 8
        ):
            outlet.show(shown(number, state=state, why="because"))
            status = igtl.read_status(newest(inbox, "STATUS").content)
            assert (status.code, status.name) == (code, state.upper().replace(" ", "_"))
            assert status.text == "because"
        client.send(igtl.Message("STRING", igtl.string_content("pause")))
        assert orders.get(timeout=60) == "pause"
        answer = newest(inbox, "STRING")
        assert igtl.read_string(answer.content) == "ok" and answer.metadata == {"Order": "pause"}
        client.send(igtl.Message("STRING", igtl.string_content("wrong")))
        assert "try another" in igtl.read_string(newest(inbox, "STRING").content)
        client.send(igtl.Message("STRING", b"\0"))  # malformed
        assert "malformed" in igtl.read_string(newest(inbox, "STRING").content)
    late: queue.Queue[Any] = queue.Queue()
    with igtl.Client("127.0.0.1", outlet._sender.port, late.put):
        kinds = [late.get(timeout=60).type for _ in range(2)]
        outlet.end(shown(99, state="no signal"))
        kinds += [late.get(timeout=60).type for _ in range(2)]
        assert "STRING" not in kinds, "answers are not kept"
    last: queue.Queue[Any] = queue.Queue()
    with igtl.Client("127.0.0.1", outlet._sender.port, last.put):
        assert newest(last, "IMAGE").metadata["State"] == "no signal", "nor is a live frame"
    outlet.close()


def test_an_answer_does_not_replace_one_that_waits(igtl: Any) -> None:
    sent: list[tuple[str, str]] = []

    class Sender:
        def __init__(self, received: Callable[[Any], None]) -> None:
            self.received = received

        def send(self, message: Any, keep: bool, kind: str) -> None:
            sent.append((kind, message.metadata["Order"]))

    outlet = igtl.IgtlOutlet("igtl", Sender, lambda text, answer: answer("ok"))
    for order in ("pause", "resume"):
        outlet._sender.received(igtl.Message("STRING", igtl.string_content(order)))
    assert [order for _, order in sent] == ["pause", "resume"]
    assert len({kind for kind, _ in sent} | {"STRING"}) == 3


def test_an_outlet_can_connect_to_a_server_and_speak_version_1(igtl: Any) -> None:
    inbox: queue.Queue[Any] = queue.Queue()
    with igtl.Server(0, received=inbox.put) as server:
        connect = partial(igtl.Client, "127.0.0.1", server.port)
        outlet = igtl.IgtlOutlet("igtl", connect, lambda text, answer: None, version=1)
        until(lambda: outlet._sender.connected)
        outlet.show(shown(3))
        image = newest(inbox, "IMAGE")
        assert image.version == 1 and not image.metadata
        assert (igtl.read_image(image.content).image == 3).all()
        outlet.close()


# -- shared memory ---------------------------------------------------------------------------------


def test_a_program_in_c_reads_frames_from_shared_memory(tmp_path: Path, repository: Path) -> None:
    if (compiler := shutil.which("cc") or shutil.which("gcc")) is None:
        pytest.skip("there is no C compiler")
    reader = tmp_path / "reader"
    code = repository / "examples" / "shared_memory_reader.c"
    subprocess.run([compiler, "-Wall", "-Werror", "-O2", "-o", reader, code, "-lrt"], check=True)
    name, last = f"sonomime-{tmp_path.name}", tmp_path / "last.pgm"
    with subprocess.Popen(
        [reader, name, "200", last], stdout=subprocess.PIPE, text=True
    ) as reading:
        outlet = SharedMemoryOutlet(name)
        number = 0
        while reading.poll() is None:
            image = np.full((48, 64), number % 256, np.uint8)
            outlet.show(shown(number, state="held")._replace(image=image))
            number += 1
            time.sleep(0.0005)
        outlet.close()
        assert reading.stdout is not None
        said = reading.stdout.read()
    assert reading.returncode == 0 and said.startswith("64 x 48 x 1, held, ")
    pixels = last.read_bytes()[-64 * 48 :]
    assert len(set(pixels)) == 1, "of one frame, not of two"
    assert not Path(f"/dev/shm/{name}").exists()


def test_shared_memory_that_is_taken_is_an_error() -> None:
    first, second = SharedMemoryOutlet("sonomime-taken"), SharedMemoryOutlet("sonomime-taken")
    first.show(shown(0))
    with pytest.raises(StreamError):
        second.show(shown(0))
    second.close()
    first.show(shown(1))
    first.close()
    assert not Path("/dev/shm/sonomime-taken").exists()
