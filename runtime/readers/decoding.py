"""Frames of one video stream, in order, with the damaged ones marked.

Decoders say that a picture is damaged in five ways: they raise, they mark the packet, they mark the
frame, they only write a line into FFmpeg's log, or the picture never comes. VP9, raw video and FFV1
without checksums say nothing, nor does HEVC mostly: there damage cannot be seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from ..support.errors import InputError
from .reading import Picture

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

_MOST_FAILURES = 100
"""In a row: what fails so often will go on failing."""
_WRITTEN_FAULTS = ("ffv1", "mjpeg", "gif")
"""Decoders that say only in FFmpeg's log that a picture is damaged. Those of other codecs mark the
picture; their log has more, which is not always damage."""
_ONE_FOR_ONE = ("h264", "hevc", "mpeg4", "mpeg2video", "mjpeg", "ffv1", "png")
"""Codecs whose packets are pictures, one for one. Packets of others may hold none."""
_NOTHING_NEW = 20
"""Packets of MPEG-4 of so many bytes may only say that nothing has changed (N-VOPs)."""
_DAMAGED = "is damaged, or made of one that is"


def decoded(
    container: InputContainer, stream: Any, convert: Callable[[VideoFrame], NDArray[Any]]
) -> Iterator[Picture]:
    """All pictures of a stream: their times, and what `convert` makes of them, or their damage.

    What is made of a damaged picture is wrong too, so pictures up to the next key frame are called
    damaged.

    Raises:
        InputError: `convert` refuses a frame.
    """
    context = stream.codec_context
    # With several threads the decoder of H.264 marks no damaged picture. One is as fast.
    context.thread_count = 1
    packets = container.demux(stream)
    # Whether each packet gives a picture. AVI has no times of pictures, only of packets.
    paired = context.name in _ONE_FOR_ONE and container.format.name != "avi"
    # What comes before the first key frame is of a clip that was cut there. H.264 may also begin
    # without one, and refresh the picture bit by bit.
    least = _NOTHING_NEW if context.name == "mpeg4" else 0
    begin, refreshed = math.inf, context.name == "h264"
    first: int | None = None
    waiting: set[int] = set()  # given to the decoder, which holds some back
    safe: set[int] = set()  # decoded before the damage, although they come after it
    bad: set[int] = set()
    faults: dict[int, str] = {}  # pictures that never come, and why
    late: list[str] = []  # the same, where their times are not known
    spoiled, failures, given, packet = False, 0, 0, None
    while failures < _MOST_FAILURES:
        stamp = None
        try:
            with _heard(context.name) as complaints:
                packet = None
                packet = next(packets, None)
                if packet is None:
                    break
                stamp = packet.dts if packet.pts is None else packet.pts
                if packet.size:
                    paired &= packet.pts is not None
                    if given == 0 and packet.is_keyframe and stamp is not None:
                        begin = stamp
                    given += 1
                frames = packet.decode()
            failures = 0
            if stamp is not None and (first is None or stamp > first):
                if not packet.is_discard and packet.size > least:
                    waiting.add(stamp)
                if packet.is_corrupt or complaints:
                    bad.add(stamp)
        except Exception as cause:  # PyAV raises many kinds of errors on a damaged file
            failures += 1
            text = f"cannot be decoded: {reason(cause)}"
            if stamp is None:
                late.append(text)
            else:
                faults[stamp] = text
            safe |= waiting
            spoiled = True
            frames = [] if packet is not None else _held(context)
        for frame in frames:
            at = frame.pts
            if at is not None:
                if first is None:
                    first = at
                    lost = begin if not refreshed else math.inf
                    waiting = {each for each in waiting if each > at or each >= lost}
                    faults = {each: faults[each] for each in faults if each > at or each >= begin}
                waiting.discard(at)
                paired &= not frame.interlaced_frame  # a packet may be half of one
                if paired:
                    _give_up({each for each in waiting if each < at}, waiting, faults)
                for earlier in sorted(each for each in faults if each < at):
                    yield Picture(None, None, faults.pop(earlier))
            damaged = frame.is_corrupt or at in bad
            if at not in safe:
                spoiled = damaged or (spoiled and not frame.key_frame)
            if damaged or (spoiled and at not in safe):
                yield Picture(frame.time, None, _DAMAGED)
                continue
            try:
                values = convert(frame)
            except InputError:
                raise
            except Exception as cause:  # its colours or size make no sense
                yield Picture(frame.time, None, f"cannot be used: {reason(cause)}")
            else:
                yield Picture(frame.time, values)
    if paired:
        _give_up(set(waiting), waiting, faults)
    for text in (*(faults[each] for each in sorted(faults)), *late):
        yield Picture(None, None, text)


def _give_up(lost: set[int], waiting: set[int], faults: dict[int, str]) -> None:
    """Pictures that should have come by now are lost."""
    waiting -= lost
    for each in lost:
        faults.setdefault(each, "is lost: its data are damaged")


def _held(context: Any) -> list[VideoFrame]:
    """What the decoder still holds where the file ends too early."""
    try:
        return list(context.decode(None))
    except Exception:
        return []


@contextmanager
def _heard(codec: str) -> Iterator[list[str]]:
    """What FFmpeg's decoder complains about meanwhile, of codecs that say it nowhere else."""
    complaints: list[str] = []
    if codec not in _WRITTEN_FAULTS:
        yield complaints
        return
    from av import logging

    before = logging.get_level()
    logging.set_level(logging.ERROR)
    logging.set_skip_repeated(False)
    try:
        with logging.Capture(local=True) as entries:
            yield complaints
    finally:
        logging.set_level(before)
        complaints += [text for _, name, text in entries if name != "swscaler"]


def reason(cause: Exception) -> str:
    """An error in a few words."""
    return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
