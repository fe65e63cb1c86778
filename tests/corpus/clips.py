"""Clips, sound and damaged, as other programs write them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np

from .case import COLOURS, GRID, LUMA, SIZE, add, grid, held, picture, steps, tiles

LIMITED, FULL = 1, 2


def frame_of(image: np.ndarray, pixels: str, colours: int) -> av.VideoFrame:
    """Grey becomes luma without the arithmetic of a converter; 16-bit values go in as they are."""
    if image.ndim == 3:
        return av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=pixels)
    frame = av.VideoFrame(image.shape[1], image.shape[0], pixels)
    bits = frame.format.components[0].bits
    if image.dtype == np.uint8:
        low, high = (
            (16 << bits - 8, 235 << bits - 8) if colours == LIMITED else (0, (1 << bits) - 1)
        )
        image = np.round(low + image / 255 * (high - low))
    for number, plane in enumerate(frame.planes):
        values = np.full(
            (plane.height, plane.line_size // (1 + (bits > 8))), 1 << bits - 1,
            np.uint16 if bits > 8 else np.uint8,
        )  # fmt: skip
        if number == 0:
            values[:, : plane.width] = image
        plane.update(values)
    return frame


def clip(
    path: Path, images: Iterable[np.ndarray] | None = None, codec: str = "libx264",
    pixels: str = "yuv420p", *, rate: int = 25, times: Sequence[float] | None = None,
    colours: int = FULL, sar: Fraction | None = None, rotation: int = 0,
    lost: int | None = None, **options: str,
) -> None:  # fmt: skip
    """Write frames; `lost` is the number of a packet that is left out."""
    images = [picture(step) for step in range(4)] if images is None else list(images)
    with av.open(str(path), "w", options={"avoid_negative_ts": "disabled"}) as file:
        stream: Any = file.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = images[0].shape[:2]
        context = stream.codec_context
        context.pix_fmt, context.color_range, context.thread_count = pixels, colours, 1
        context.bit_rate = 3_000_000
        if sar:
            context.sample_aspect_ratio = sar
        if rotation:
            stream.set_display_rotation(rotation)
        if times is not None:
            context.time_base = Fraction(1, 90_000)
        packets = []
        for step, image in enumerate(images):
            frame = frame_of(image, pixels, colours)
            frame.color_range = colours
            if times is not None:
                frame.pts, frame.time_base = round(times[step] * 90_000), Fraction(1, 90_000)
            packets += stream.encode(frame)
        for number, packet in enumerate(packets + stream.encode(None)):
            if number != lost:
                file.mux(packet)


right: dict[str, Any] = {"levels": steps(4), "off": 2, "times": np.arange(4) / 25, "close": 6e-4}

# -- what is right and has to stay so --------------------------------------------------------------

add("a.mp4", clip, **right)
add("limited.mp4", partial(clip, colours=LIMITED), **right)
add("空 間 é 1.mkv", clip, **right)
add("interlaced.mp4", partial(clip, flags="+ildct+ilme", **{"x264-params": "tff=1"}), **right)
add("yuvj420p.avi", partial(clip, codec="mjpeg", pixels="yuvj420p"), **right)
add("b-frames.avi", partial(clip, codec="mpeg4", colours=LIMITED, bf="2"), **right)
add("b-frames, h264.avi", partial(clip, bf="2"), **right)
add("a.mpg", partial(clip, codec="mpeg2video", colours=LIMITED), **right)
ten = partial(clip, codec="libx265", pixels="yuv420p10le", **{"x265-params": "log-level=none"})
add("10 bits.mp4", ten, **right)
add("10 bits, limited.mp4", partial(ten, colours=LIMITED), **right)
add("prores.mov", partial(clip, codec="prores_ks", pixels="yuv422p10le", colours=LIMITED), **right)
add("alpha.webm", partial(clip, codec="libvpx-vp9", pixels="yuva420p", **{"auto-alt-ref": "0"}),
    **right)  # fmt: skip
odd = [picture(step, 33, 35) for step in range(4)]
add("odd size.mkv", partial(clip, images=odd, codec="ffv1"), **right, size=(33, 35))
add("4:4:4, odd size.mp4", partial(clip, images=odd, pixels="yuv444p"), **right, size=(33, 35))
for degrees, turns in ((90, 1), (180, 2), (-90, -1)):
    add(f"turned by {degrees}.mp4", partial(clip, rotation=degrees), **right
        | {"levels": [np.rot90(levels, turns) for levels in steps(4)]},
        size=(96, 64) if turns == 2 else (64, 96))  # fmt: skip
for name, times in {
    "variable.mp4": [0, 0.04, 0.05, 0.9], "variable.mkv": [0, 0.04, 0.05, 0.9],
    "before zero.ts": [-1, -0.96, -0.5, 1], "late.mkv": [1e6, 1e6 + 1, 1e6 + 2, 1e6 + 9],
}.items():  # fmt: skip
    add(name, partial(clip, times=times), **right | {"times": np.subtract(times, times[0])})
add("one frame.mp4", partial(clip, images=[picture()]), **right | {"levels": [GRID], "times": [0]})
add("black.mp4", partial(clip, images=[picture() * 0] * 4), **right | {"levels": [GRID * 0] * 4})
add("stream.h264", clip, **right)
add("120 fps.mp4", partial(clip, rate=120), **right | {"times": np.arange(4) / 120, "close": 1e-4})


def bottom_up(path: Path) -> None:
    """An AVI of plain BGR rows, from the bottom, as capture programs write it."""

    def chunk(name: bytes, *parts: bytes) -> bytes:
        content = b"".join(parts)
        return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)

    width, height = SIZE
    frames = [picture(step)[::-1, :, None].repeat(3, 2).tobytes() for step in range(4)]
    size = len(frames[0])
    main = struct.pack("<14I", 40_000, 0, 0, 16, 4, 0, 1, size, width, height, 0, 0, 0, 0)
    video = b"vidsDIB " + struct.pack("<IHH8I4H", 0, 0, 0, 0, 1, 25, 0, 4, size, 0, 0, 0, 0, *SIZE)
    bitmap = struct.pack("<IiiHH6I", 40, width, height, 1, 24, 0, size, 0, 0, 0, 0)
    stream = chunk(b"LIST", b"strl", chunk(b"strh", video), chunk(b"strf", bitmap))
    head = chunk(b"LIST", b"hdrl", chunk(b"avih", main), stream)
    data = chunk(b"LIST", b"movi", *(chunk(b"00db", frame) for frame in frames))
    path.write_bytes(chunk(b"RIFF", b"AVI ", head, data))


add("bottom up.avi", bottom_up, **right | {"off": 0})

# -- colour, bits, shapes, times -------------------------------------------------------------------

flow = [tiles(COLOURS.astype(np.uint8))] * 4
add("flow.mp4", partial(clip, images=flow, colours=LIMITED), **right
    | {"levels": [COLOURS] * 4, "off": 6}, channels=3)  # fmt: skip
add("flow as grey.mp4", partial(clip, images=flow, colours=LIMITED), **right
    | {"levels": [LUMA] * 4, "off": 3})  # fmt: skip

for bits in (8, 10, 12, 14, 16):
    deep = [held(bits, step) for step in range(4)]
    add(f"{bits} in 16.mkv", partial(clip, images=deep, codec="ffv1", pixels="gray16le"), **right)
    if bits in (10, 12):
        dark = [values // 4 for values in deep]
        ffv1 = partial(clip, codec="ffv1", pixels=f"gray{bits}le")
        add(f"gray{bits}.mkv", partial(ffv1, images=deep), **right)
        add(f"gray{bits}, dark.mkv", partial(ffv1, images=dark), **right
            | {"levels": np.array(steps(4)) / 4})  # fmt: skip

PAL = [picture(step, 90, 72) for step in range(4)]
for name, images, sar, size in (
    ("2 to 1.mp4", None, Fraction(2), (192, 64)),
    ("1 to 2.mkv", None, Fraction(1, 2), (96, 128)),
    ("NTSC.mp4", None, Fraction(8, 9), (96, 72)),
    ("PAL.mp4", PAL, Fraction(16, 15), (96, 72)),
):
    add(name, partial(clip, images=images, sar=sar), **right, size=size)
mpeg = partial(clip, codec="mpeg2video", colours=LIMITED)
add("PAL.mpg", partial(mpeg, images=PAL, sar=Fraction(16, 15)), **right, size=(96, 72))
add("NTSC.mpg", partial(mpeg, sar=Fraction(8, 9)), **right, size=(96, 72))
add("turned, 2 to 1.mp4", partial(clip, sar=Fraction(2), rotation=90), **right
    | {"levels": [np.rot90(levels) for levels in steps(4)]}, size=(64, 192))  # fmt: skip

fast = partial(clip, images=[picture(step) for step in range(11)], codec="ffv1", pixels="gray")
for rate in (120, 5000):  # Matroska counts in milliseconds
    add(f"{rate} fps.mkv", partial(fast, rate=rate), levels=steps(11), times=np.arange(11) / rate,
        close=0.01 / rate)  # fmt: skip

# -- damage ----------------------------------------------------------------------------------------


def textured(count: int = 8) -> list[np.ndarray]:
    """Packets of many bytes each, so that there is something to damage."""
    random = np.random.default_rng(0)
    return [
        picture(step) + random.integers(-12, 13, SIZE[::-1]).astype(np.uint8)
        for step in range(count)
    ]


def hurt(path: Path, write: Callable[[Path], Any], number: int = 4) -> None:
    """Write and then damage the middle of a packet."""
    write(path)
    with av.open(str(path)) as file:
        packet = [packet for packet in file.demux(video=0) if packet.size][number]
    content = bytearray(path.read_bytes())
    at = content.find(bytes(packet)[:16], packet.pos) + packet.size // 2
    content[at : at + 16] = np.random.default_rng(4).bytes(16)
    path.write_bytes(content)


def cut(path: Path, write: Callable[[Path], Any]) -> None:
    write(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def joined(path: Path, writers: Iterable[Callable[[Path], Any]]) -> None:
    content = b""
    for write in writers:
        write(path)
        content += path.read_bytes()
    path.write_bytes(content)


damaged = {"levels": steps(2), "off": 3, "count": 4, "damaged": True}
many = partial(clip, images=textured())
h264, mpeg2 = partial(many, bf="0"), partial(many, codec="mpeg2video", colours=LIMITED)
for name, write in {
    "hurt.avi": partial(many, codec="mjpeg", pixels="yuvj420p"),
    "hurt.mp4": h264,
    "hurt.ts": h264,
    "hurt.mpg": mpeg2,
    "hurt, mpeg4.mp4": partial(many, codec="mpeg4", colours=LIMITED),
    "hurt, ffv1.mkv": partial(many, codec="ffv1", pixels="gray", level="3", slicecrc="1"),
    "hurt, prores.mov": partial(many, codec="prores_ks", pixels="yuv422p10le", colours=LIMITED),
}.items():
    add(name, partial(hurt, write=write), **damaged)
png = partial(many, codec="png", pixels="gray")
add("hurt, png.mov", partial(hurt, write=png), **damaged)
add("cut.ts", partial(cut, write=h264), **damaged | {"count": None})
add("cut.mpg", partial(cut, write=mpeg2), **damaged | {"count": None})
# Only its time says that one is gone.
gone = [0, 1, 3, 4, 5, 6, 7]
add("one lost.mkv", partial(many, lost=2, g="1"), levels=[grid(step) for step in gone], off=3,
    times=np.array(gone) / 25, close=6e-4, damaged=None)  # fmt: skip
add("cut.mp4", partial(cut, write=h264), refused=True)
large = [picture(0, 128, 96)] * 4
mjpeg = partial(clip, codec="mjpeg", pixels="yuvj420p")
for name, write in {"two sizes.ts": clip, "two sizes.mjpeg": mjpeg}.items():
    add(name, partial(joined, writers=[write, partial(write, images=large)]), levels=steps(4),
        off=3, damaged=True)  # fmt: skip
