"""Frames of one video stream, in order, with the damaged ones marked.

Decoders say that a picture is damaged in five ways: they raise, they mark the packet, they mark the
frame, they only write a line into FFmpeg's log, or the picture never comes. VP9, raw video and FFV1
without checksums say nothing, nor does HEVC mostly: there damage cannot be seen.
"""

from __future__ import annotations

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
_EMPTY = 20
"""Packets of so many bytes may only say that nothing has changed (N-VOPs of MPEG-4)."""
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
    # AVI has no times of pictures, only of packets.
    one_for_one = context.name in _ONE_FOR_ONE and container.format.name != "avi"
    first: int | None = None  # what comes before the first frame is of a clip that was cut there
    waiting: set[int | None] = set()  # given to the decoder, which holds some back
    safe: set[int | None] = set()  # decoded before the damage, although they come after it
    bad: set[int | None] = set()
    faults: dict[int, str] = {}  # pictures that never come, and why
    late: list[str] = []  # the same, where their times are not known
    spoiled, failures, packet = False, 0, None
    while failures < _MOST_FAILURES:
        stamp = None
        try:
            with _heard(context.name) as complaints:
                packet = None
                packet = next(packets, None)
                if packet is None:
                    break
                stamp = packet.dts if packet.pts is None else packet.pts
                frames = packet.decode()
            failures = 0
            if stamp is not None and (first is None or stamp > first):
                if not packet.is_discard and packet.size > _EMPTY:
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
            if first is None and at is not None:
                first = at
                waiting = {each for each in waiting if each is not None and each > at}
            waiting.discard(at)
            if at is not None:
                if one_for_one and packet is not None and packet.pts is not None:
                    for lost in [each for each in waiting if each is not None and each < at]:
                        waiting.remove(lost)
                        faults.setdefault(lost, "is lost: its data are damaged")
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
    for text in (*(faults[each] for each in sorted(faults)), *late):
        yield Picture(None, None, text)


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
