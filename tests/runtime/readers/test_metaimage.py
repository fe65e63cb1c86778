"""MetaImage files: every layout gives the values that were stored, and nothing is read wrongly."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from media_files import noise

from sonomime.runtime.media.levels import Window
from sonomime.runtime.readers.open_source import files_of, open_source
from sonomime.runtime.readers.reading import Reading
from sonomime.runtime.readers.source import FrameSource
from sonomime.runtime.sinks.open_sink import open_sink
from sonomime.runtime.support.errors import InputError, UnsupportedFormat
from sonomime.training.data.dataset import find_clips

FRAMES = noise(4, 20, 24)
COLOURS = noise(4, 20, 24, 4) | np.array([0, 0, 0, 255], np.uint8)  # none is transparent


def write(path: Path, data: bytes = FRAMES.tobytes(), **fields: str) -> Path:
    """A file of FRAMES, but for the fields given; an empty one is left out."""
    known = {"ObjectType": "Image", "NDims": "3", "DimSize": "24 20 4", "ElementType": "MET_UCHAR"}
    texts = {**known, **fields, "ElementDataFile": fields.get("ElementDataFile", "LOCAL")}
    lines = [f"{key} = {text}\n" for key, text in texts.items() if text and key[:7] != "Element"]
    lines += [f"{key} = {text}\n" for key, text in texts.items() if text and key[:7] == "Element"]
    path.write_bytes("".join(lines).encode() + data)
    return path


def images(source: FrameSource) -> list[np.ndarray]:
    return [frame.image for frame in source]


def same(source: FrameSource, expected: np.ndarray) -> bool:
    found = images(source)
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("UCHAR", "u1"), ("CHAR", "i1"), ("USHORT", "u2"), ("SHORT", "i2"),
        ("UINT", "u4"), ("INT", "i4"), ("FLOAT", "f4"), ("DOUBLE", "f8"),
    ],
)  # fmt: skip
def test_every_type_and_byte_order(
    tmp_path: Path, name: str, kind: str, big: bool, packed: bool
) -> None:
    low = -128 if kind[0] in "if" else 0
    data = (FRAMES.astype(np.int64) + low).astype((">" if big else "<") + kind).tobytes()
    fields = {"CompressedData": str(packed), "BinaryData": "True", "ElementByteOrderMSB": str(big)}
    data = zlib.compress(data) if packed else data
    path = write(tmp_path / "a.mha", data, ElementType=f"MET_{name}", **fields)
    source = open_source(path, Reading(window=Window(low, low + 255)))
    assert same(source, FRAMES) and source.damage is None
    assert (source.facts.bits, source.count_hint) == (8 * int(kind[1]), 4)
    assert source.facts.spacing is None and source.fps is None


@pytest.mark.parametrize(
    ("sizes", "channels", "expected"),
    [
        ("24 20", 1, FRAMES[:1]),
        ("24 20 1 4", 1, FRAMES),  # as PLUS writes it
        ("24 20 4 1", 1, FRAMES),
        ("24 20 4", 3, COLOURS[..., :3]),
        ("24 20 4", 4, COLOURS[..., :3]),
    ],
)
def test_every_shape(tmp_path: Path, sizes: str, channels: int, expected: np.ndarray) -> None:
    data = FRAMES if channels == 1 else COLOURS[..., :channels]
    data = data[: len(expected)].tobytes()
    fields = {"DimSize": sizes, "ElementNumberOfChannels": str(channels)}
    source = open_source(write(tmp_path / "a.mha", data, **fields), channels=min(channels, 3))
    assert same(source, expected) and source.facts.colour == (channels > 1)
    assert ("no frame rate" in " ".join(source.facts.notes)) == (len(expected) > 1)


@pytest.mark.parametrize(
    ("data_file", "skip", "packed"),
    [
        ("a b.raw", 0, False), ("a b.raw", 5, False), ("a b.raw", -1, False), ("a b.raw", 0, True),
        ("LIST\n0\n1\n2\n3", 0, False), ("LIST\n0.raw\n1.raw", 0, True),
        ("LIST 2\r\nx1.raw\r\nx2.raw\r\n", -1, False), ("s%03d.raw 2 8 2", 7, False),
    ],
)  # fmt: skip
def test_data_beside_the_header(tmp_path: Path, data_file: str, skip: int, packed: bool) -> None:
    names = data_file.split("\n")[1:] if "LIST" in data_file else [data_file]
    names = [f"s{n:03}.raw" for n in (2, 4, 6, 8)] if "%" in data_file else names
    names = [name.strip() for name in names if name.strip()]
    for name, part in zip(names, np.split(FRAMES, len(names)), strict=True):
        data = zlib.compress(part.tobytes()) if packed else part.tobytes()
        (tmp_path / name).write_bytes(bytes(5 if skip < 0 else skip) + data)
    path = write(tmp_path / "a.mhd", b"", HeaderSize=str(skip), CompressedData=str(packed),
                 ElementDataFile=data_file)  # fmt: skip
    assert same(open_source(path), FRAMES)
    assert [file.name for file in files_of(path)] == ["a.mhd", *names]
    assert [clip.name for clip in find_clips([tmp_path]).clips] == ["a.mhd"]


@pytest.mark.parametrize(
    ("letters", "turned"),
    [
        ("MF", lambda frames: frames),
        ("MFA", lambda frames: frames),
        ("UF", lambda frames: frames),
        ("UN", lambda frames: frames[:, ::-1]),
        ("FM", lambda frames: frames.swapaxes(1, 2)),
        ("NM", lambda frames: frames.swapaxes(1, 2)[:, ::-1]),
    ],
)
def test_the_probe_is_at_the_top(
    tmp_path: Path, letters: str, turned: Callable[[np.ndarray], np.ndarray]
) -> None:
    fields = {"UltrasoundImageOrientation": letters, "ElementSpacing": "0.100 0.1005 1"}
    source = open_source(write(tmp_path / "a.mha", **fields))
    assert same(source, turned(FRAMES))
    assert source.facts.spacing == ((0.1005, 0.1) if letters in ("FM", "NM") else (0.1, 0.1005))
    assert any(letters in note for note in source.facts.notes) == (letters[:2] != "MF")


def test_pixels_become_square_and_a_spacing_of_one_is_none(tmp_path: Path) -> None:
    for text, size, spacing in (
        ("0.1 0.2 1", (24, 40), (0.1, 0.1)),
        ("1 1 0.5", (24, 20), None),
        ("nan 0 1", (24, 20), None),
    ):
        source = open_source(write(tmp_path / "a.mha", ElementSpacing=text))
        assert (source.size, source.facts.spacing) == (size, spacing)
    source = open_source(write(tmp_path / "a.mha", TransformMatrix="0 1 0 1 0 0 0 0 1"))
    assert any("TransformMatrix" in note for note in source.facts.notes)


@pytest.mark.parametrize(
    ("said", "invalid", "expected", "noted"),
    [
        ("5 5.1 5.3 5.4", None, [0, 0.1, 0.3, 0.4], None),
        ("5 5.1 nan 5.4", 2, [0, 0.1, 0.4], "invalid"),
        ("5 5.1 5.3", None, None, "no valid time"),
        ("5 5.1 x 5.4", None, None, "no valid time"),
        ("5 5.3 5.2 6", None, [0, 0.3, 0.3 + 1 / 3, 1], "not after"),
        ("", 0, None, "invalid"),
    ],
)
def test_times_are_those_of_the_frames(
    tmp_path: Path, said: str, invalid: int | None, expected: list[float] | None, noted: str | None
) -> None:
    fields = {f"Seq_Frame{n:04}_Timestamp": text for n, text in enumerate(said.split())}
    if invalid is not None:
        fields[f"Seq_Frame{invalid:04}_ImageStatus"] = "INVALID"
    source = open_source(write(tmp_path / "a.mha", **fields, Seq_Frame9_Timestamp="1"))
    kept = [n for n in range(4) if n != invalid]
    assert same(source, FRAMES[kept]) and source.count_hint == len(kept)
    times = [frame.timestamp for frame in source]
    wanted = np.arange(len(kept)) / 30 if expected is None else expected
    assert np.allclose(times, wanted, atol=1e-9)
    assert (source.fps is None) == (expected is None)
    assert noted is None or any(noted in note for note in source.facts.notes)


REFUSED: list[tuple[dict[str, str], type[InputError]]] = [
    ({"ElementType": "MET_LONG_DOUBLE"}, UnsupportedFormat),
    ({"BinaryData": "False"}, UnsupportedFormat),
    ({"UltrasoundImageType": "RF_REAL"}, UnsupportedFormat),
    ({"ElementNumberOfChannels": "2"}, UnsupportedFormat),
    ({"DimSize": "12 20 2 4"}, UnsupportedFormat),
    ({"DimSize": "24"}, UnsupportedFormat),
    ({"DimSize": ""}, InputError),
    ({"DimSize": "24 20 -4"}, InputError),
    ({"DimSize": "24 20 1e3"}, InputError),
    ({"DimSize": "4 480 1"}, InputError),
    ({"DimSize": "16384 16384 1"}, InputError),
    ({"DimSize": "1 " * 30}, InputError),
    ({"DimSize": "8192 8192 1", "ElementType": "MET_DOUBLE"}, InputError),
    ({"ElementSpacing": "a b c"}, InputError),
    ({"HeaderSize": "-2"}, InputError),
    ({"HeaderSize": "-1", "CompressedData": "True"}, InputError),
    ({"HeaderSize": "1" * 30}, InputError),
    ({"CompressedData": "True"}, InputError),
    ({"ElementDataFile": "none.raw"}, InputError),
    ({"ElementDataFile": "/etc/passwd"}, InputError),
    ({"ElementDataFile": "../secret.raw"}, InputError),
    ({"ElementDataFile": "..\\secret.raw"}, InputError),
    ({"ElementDataFile": "link.raw"}, InputError),
    ({"ElementDataFile": "pipe.raw"}, InputError),
    ({"ElementDataFile": "LIST\n../secret.raw"}, InputError),
    ({"ElementDataFile": "LIST\n"}, InputError),
    ({"ElementDataFile": "LIST\na\nb\nc"}, InputError),
    ({"ElementDataFile": "%d%d.raw 1 4 1"}, InputError),
    ({"ElementDataFile": "%s.raw 1 4 1"}, InputError),
    ({"ElementDataFile": "%9999d.raw 1 4 1"}, InputError),
    ({"ElementDataFile": "%d.raw 1 4000000 1"}, InputError),
    ({"ElementDataFile": "%d.raw"}, InputError),
]


@pytest.mark.parametrize(("fields", "kind"), REFUSED)
def test_what_cannot_be_read_is_refused(
    tmp_path: Path, fields: dict[str, str], kind: type[InputError]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.raw").write_bytes(FRAMES.tobytes())
    (folder / "link.raw").symlink_to("../secret.raw")
    os.mkfifo(folder / "pipe.raw")
    with pytest.raises(kind) as caught:
        open_source(write(folder / "a.mha", **fields))
    assert caught.value.hint and str(folder / "a.mha") in caught.value.message


@pytest.mark.parametrize(
    "head", [b"", b"ObjectType = Image\n", b"ObjectType\n", b"A = " + b"b" * 99_999]
)
def test_a_header_without_an_end_is_refused(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "a.mha").write_bytes(head)
    with pytest.raises(InputError):
        open_source(tmp_path / "a.mha")


@pytest.mark.parametrize(
    ("damage", "packed", "whole"),
    [
        ("cut", False, 2),
        ("cut", True, 2),
        ("first", True, 0),
        ("checksum", True, 3),
        ("missing", False, 2),
        ("missing", True, 2),
    ],
)
def test_whole_frames_before_damage_are_kept(
    tmp_path: Path, damage: str, packed: bool, whole: int
) -> None:
    frames = noise(4, 200, 240)
    pack = (lambda data: zlib.compress(data, 0)) if packed else bytes
    fields = {"DimSize": "240 200 4", "CompressedData": str(packed)}
    data = bytearray(pack(frames.tobytes()))
    if damage == "cut":
        del data[-60_000:]
    elif damage == "missing":
        for number in (0, 1, 3):
            (tmp_path / f"{number}.raw").write_bytes(pack(frames[number].tobytes()))
        fields["ElementDataFile"] = "%d.raw 0 3 1"
    else:
        data[0 if damage == "first" else -1] ^= 1
    path = write(tmp_path / "a.mha", b"" if damage == "missing" else bytes(data), **fields)
    with pytest.raises(InputError):
        list(open_source(path, Reading(on_damage="stop")))
    if whole == 0:
        with pytest.raises(InputError):
            open_source(path)
        return
    source = open_source(path)
    assert same(source, frames[:whole])
    assert source.damage is not None and source.damage.frame == whole
    assert source.count_hint is not None and whole <= source.count_hint <= 4
    if damage == "missing":
        assert same(open_source(path, Reading(on_damage="skip")), frames[[0, 1, 3]])


def test_a_file_that_unpacks_to_more_than_it_says_is_not_unpacked(tmp_path: Path) -> None:
    packer = zlib.compressobj(9)
    bomb = FRAMES.tobytes() + bytes(1 << 28)
    data = packer.compress(bomb) + packer.flush()
    source = open_source(write(tmp_path / "a.mha", data, CompressedData="True"))
    assert same(source, FRAMES)
    assert any("more than its header" in note for note in source.facts.notes)
    # And one that says more than it can hold is not believed.
    source = open_source(write(tmp_path / "b.mha", DimSize="24 20 999999999"))
    assert source.count_hint == 4 and same(source, FRAMES) and source.damage is not None


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_written_is_read_again(tmp_path: Path, channels: int) -> None:
    frames = COLOURS[..., :3] if channels == 3 else FRAMES
    times = [7.0, 7.1, 7.1, 9.0]
    texts = {"synthetic": "YES", "comment": "two\nlines", "odd key = x": "ü"}
    path = tmp_path / "new" / "a.seq.mha"
    with open_sink(path, (24, 20), channels, metadata=texts, spacing=(0.25, 0.125)) as sink:
        for frame, time in zip(frames, times, strict=True):
            sink.write(frame, time)
    header = path.read_bytes().split(b"LOCAL\n")[0].decode().splitlines()
    assert header[:2] == ["ObjectType = Image", "NDims = 3"]
    said = ("Synthetic = YES", "Comment = two lines", "DimSize = 24 20 4", "Odd_key___x = ü")
    assert set(said) | {"Kinds = domain domain list", "ElementSpacing = 0.25 0.125 1"} <= {*header}
    assert list(path.parent.iterdir()) == [path]
    source = open_source(path, channels=channels)
    assert source.facts.spacing == (0.125, 0.125) and source.size == (48, 20)
    read = [frame.timestamp for frame in source]
    assert np.allclose(read, [0, 0.1, 0.1, 2], atol=1e-5) and min(np.diff(read)) > 0
    with open_sink(path, (24, 20), channels) as sink:
        sink.write(frames[0])
    source = open_source(path, channels=channels)
    assert same(source, frames[:1]) and source.facts.spacing is None


def test_a_recording_of_plus(shared_data: Path) -> None:
    path = shared_data / "test" / "clips" / "bone_BoneUltrasound_L14.igs.mha"
    source = open_source(path)
    times = [frame.timestamp for frame in source]
    assert source.size == (820, 616) and len(times) == source.count_hint == 21
    assert source.facts.notes == [] and source.facts.spacing is None and not source.facts.colour
    assert times[:2] == pytest.approx([0, 0.085943]) and source.fps == pytest.approx(
        11.63, abs=0.01
    )
    assert (
        next(iter(source)).image[:, 176:643].mean() > 10 * next(iter(source)).image[:, :170].mean()
    )
