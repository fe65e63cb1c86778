"""Damaged pictures of a stream are found, in their places; sound streams are not called damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from media_files import LEVELS, apart, noise

from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.readers.reading import Reading
from sonomime.runtime.support.errors import InputError

MakeVideo = Callable[..., Path]
MOVED = [
    np.roll(LEVELS, 8 * (step % 6), axis=1) // 2 + noise(128, 128, seed=step) // 8
    for step in range(24)
]
SKIP = Reading(on_damage="skip")


def test_a_lost_picture_keeps_its_number(tmp_path: Path, make_video: MakeVideo) -> None:
    """A decoder passes over what follows a lost key frame without a word."""
    path = make_video(tmp_path / "a.mp4", MOVED, options={"g": "6", "bf": "0", "sc_threshold": "0"})
    with av.open(str(path)) as container:
        keys = [packet for packet in container.demux(video=0) if packet.is_keyframe]
    content = path.read_bytes()
    picture = bytes(keys[2])
    assert content.count(picture) == 1
    path.write_bytes(content.replace(picture, bytes(len(picture))))
    frames = list(open_source(path, Reading(on_damage="skip")))
    assert len(frames) < 24 and frames[-1].index == 23
    for frame in frames:
        assert frame.timestamp == pytest.approx(frame.index / 25, abs=1e-6)
        assert apart(frame.image, MOVED[frame.index]).mean() < 12


@pytest.mark.parametrize("place", [0, 7, 23])
@pytest.mark.parametrize("codec", ["libx265", "mpeg2video"])
def test_a_picture_that_never_comes_is_said(
    tmp_path: Path, make_video: MakeVideo, codec: str, place: int
) -> None:
    """Decoders pass over such packets, at both ends too."""
    path = make_video(tmp_path / "a.mp4", MOVED, codec, options={"g": "12"})
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    content, picture = path.read_bytes(), packets[place]
    assert content.count(picture) == 1
    path.write_bytes(content.replace(picture, picture[:4] + bytes(len(picture) - 4)))
    source = open_source(path, SKIP)
    frames = list(source)
    assert len(frames) < 24 and source.damage is not None
    assert frames[-1].index == 23 or place == 23


def nothing_new(number: int) -> bytes:
    """An N-VOP of a clip of 25 frames a second."""
    bits = f"0101{number % 25:05b}10"
    bits += "0" + "1" * (-(len(bits) + 1) % 8)
    return b"\0\0\1\xb6" + int(bits, 2).to_bytes(len(bits) // 8, "big")


def test_a_packet_that_says_that_nothing_changed_is_no_loss(
    tmp_path: Path, make_video: MakeVideo
) -> None:
    """N-VOPs of MPEG-4, which give no picture."""
    path = make_video(tmp_path / "a.mp4", MOVED, "mpeg4", options={"g": "24"})
    still = tmp_path / "still.mkv"
    with av.open(str(path)) as found, av.open(str(still), "w") as made:
        stream = made.add_stream_from_template(found.streams.video[0])
        for number, packet in enumerate(found.demux(video=0)):
            if packet.size:
                data = nothing_new(number) if number in (5, 6, 14) else bytes(packet)
                copy = av.Packet(data)
                copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
                copy.stream, copy.is_keyframe = stream, packet.is_keyframe
                made.mux(copy)
    source = open_source(still)
    assert len(list(source)) >= 21 and source.damage is None


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [("a.avi", "mjpeg", "yuvj420p"), ("a.mkv", "ffv1", "gray"), ("a.mov", "png", "gray")],
)
def test_what_is_done_on_damage_is_what_was_asked(
    make_video: MakeVideo, tmp_path: Path, name: str, codec: str, pix_fmt: str
) -> None:
    path = tmp_path / name
    make_video(path, MOVED[:6], codec, pix_fmt, options={"g": "1"})
    damage_picture(path, 3)
    source = open_source(path)
    assert [frame.index for frame in source] == [0, 1, 2]
    damage = source.damage
    assert damage is not None and damage.frame == 3
    assert damage.seconds == pytest.approx(3 / 25, abs=0.001)
    source = open_source(path, Reading(on_damage="skip"))
    read = list(source)
    assert [frame.index for frame in read] == [0, 1, 2, 4, 5]
    assert [frame.timestamp for frame in read] == pytest.approx(
        [index / 25 for index in (0, 1, 2, 4, 5)], abs=0.001
    )
    assert source.damage is not None and source.damage.frame == 3
    for frame in read:
        assert apart(frame.image, MOVED[frame.index]).mean() <= 12
    source = open_source(path, Reading(on_damage="stop"))
    with pytest.raises(InputError, match=rf"{name}: frame 3 "):
        list(source)


def damage_picture(path: Path, index: int) -> None:
    """Overwrite the second half of one picture of a clip."""
    with av.open(str(path)) as container:
        picture = [bytes(packet) for packet in container.demux(video=0)][index]
    content, half = path.read_bytes(), len(picture) // 2
    assert content.count(picture) == 1
    path.write_bytes(content.replace(picture, picture[:half] + bytes(noise(len(picture) - half))))
