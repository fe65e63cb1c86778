"""NRRD files: whatever the order of the axes, the values are those that were stored."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from media_files import noise

from sonomime.runtime.media.levels import Window
from sonomime.runtime.readers.open_source import files_of, open_source
from sonomime.runtime.readers.reading import Reading
from sonomime.runtime.readers.source import FrameSource
from sonomime.runtime.support.errors import InputError, UnsupportedFormat

nrrd = pytest.importorskip("nrrd", reason="pynrrd is not installed")

FRAMES = noise(4, 20, 24)
COLOURS = noise(4, 20, 24, 3)


def write(path: Path, data: bytes = FRAMES.tobytes(), **fields: str) -> Path:
    """A file of FRAMES, but for the fields given; "_" is a blank, an empty field is left out."""
    known = {"type": "uint8", "dimension": "", "sizes": "24 20 4", "encoding": "raw"}
    texts = {key.replace("_", " "): text for key, text in {**known, **fields}.items()}
    texts["dimension"] = str(len(texts["sizes"].split()))
    names = texts.pop("data file", "")
    lines = [f"{key}:{'=' * ('index' in key)} {text}\n" for key, text in texts.items() if text]
    last = f"data file: {names}\n" if names else "\n"
    path.write_bytes(("NRRD0005\n# by hand\n" + "".join(lines) + last).encode() + data)
    return path


def same(source: FrameSource, expected: np.ndarray) -> bool:
    found = [frame.image for frame in source]
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
@pytest.mark.parametrize(
    ("sizes", "kinds", "data"),
    [
        ("24 20", "domain domain", FRAMES[:1]),
        ("24 20 4", "", FRAMES),
        ("24 20 4", "space space space", FRAMES),  # a volume
        ("24 20 1 4", "domain domain domain list", FRAMES),  # 3D Slicer since 5.10
        ("4 24 20 1", "list domain domain domain", np.moveaxis(FRAMES, 0, 2)),  # and before
        ("24 4 20", "domain time domain", np.moveaxis(FRAMES, 0, 1)),
        ("3 24 20 4", "RGB-color domain domain list", COLOURS),
        ("3 24 20 4", "", COLOURS),
        ("3 24 20 1 4", "vector domain domain domain list", COLOURS),
        ("4 3 24 20", "list vector domain domain", np.moveaxis(COLOURS, 0, 3)),
        ("24 20 3 4", "domain domain 3-color list", np.moveaxis(COLOURS, 3, 1)),
    ],
)
def test_axes_in_any_order(
    tmp_path: Path, sizes: str, kinds: str, data: np.ndarray, encoding: str
) -> None:
    stored = data.tobytes() if encoding == "raw" else gzip.compress(data.tobytes())
    path = write(tmp_path / "a.nrrd", stored, sizes=sizes, kinds=kinds, encoding=encoding)
    expected = COLOURS if "3" in sizes else FRAMES[: 1 if sizes == "24 20" else 4]
    source = open_source(path, channels=3 if "3" in sizes else 1)
    assert same(source, expected) and same(source, expected)
    assert source.damage is None and source.count_hint == len(expected)
    guessed = any("taken as colour" in note for note in source.facts.notes)
    assert guessed == (sizes[0] == "3" and not kinds)


@pytest.mark.parametrize(
    ("names", "dtype"),
    [
        (("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
        (("signed char", "int8", "int8_t"), "i1"),
        (("short", "short int", "signed short", "signed short int", "int16"), "i2"),
        (("ushort", "unsigned short", "unsigned short int", "uint16_t"), "u2"),
        (("int", "signed int", "int32"), "i4"),
        (("uint", "unsigned int", "uint32_t"), "u4"),
        (("float",), "f4"),
        (("double",), "f8"),
    ],
)
def test_every_type_and_byte_order(tmp_path: Path, names: tuple[str, ...], dtype: str) -> None:
    for name in names:
        for endian, mark in (("little", "<"), ("big", ">")):
            low = -128 if dtype[0] in "if" else 0
            data = (FRAMES.astype(np.int64) + low).astype(mark + dtype).tobytes()
            path = write(tmp_path / "a.nrrd", data, type=name, endian=endian)
            assert same(open_source(path, Reading(window=Window(low, low + 255))), FRAMES)


def test_data_beside_the_header(tmp_path: Path) -> None:
    for number, frame in enumerate(FRAMES):
        (tmp_path / f"{number}.raw").write_bytes(b"two\nlines\n\1" + frame.tobytes())
    skip = {"line_skip": "2", "byte_skip": "1"}
    names = "LIST\n0.raw\n1.raw\n2.raw\n3.raw\n"
    for said, fields in (("%d.raw 0 3 1", skip), (names, skip), (names, {"byte_skip": "-1"})):
        path = write(tmp_path / "a.nhdr", b"", data_file=said, **fields)
        assert same(open_source(path), FRAMES)
    assert [file.name for file in files_of(path)] == ["a.nhdr", *(f"{n}.raw" for n in range(4))]


@pytest.mark.parametrize(
    ("fields", "spacing", "fps"),
    [
        ({"spacings": "0.1 0.2 nan"}, 0.1, None),
        ({"spacings": "1 1 1"}, None, None),
        ({"spacings": "0.1 0.2 0.04", "units": '"cm" "cm" "s"'}, 1.0, None),
        ({"spacings": "0.1 0.2 0.04", "units": '"V" "V" "s"'}, None, None),
        ({"space": "LPS", "space_directions": "(0,-0.1,0) (0,0,0.2) none"}, 0.1, None),
        ({"labels": '"" "" "time"', "units": '"" "" "s"'}, None, 2.5),
        ({"labels": '"" "" "time"', "units": '"" "" "ms"'}, None, 2500),
        ({"labels": '"" "" "time"'}, None, None),
        ({"labels": '"" "" "frame"', "units": '"" "" "s"'}, None, None),
    ],
)
def test_distances_and_times_count_where_the_file_says_what_they_are(
    tmp_path: Path, fields: dict[str, str], spacing: float | None, fps: float | None
) -> None:
    index = {"axis_2_index_values": "0 0.3 0.8 1.2"} if "labels" in fields else {}
    source = open_source(write(tmp_path / "a.nrrd", kinds="space space list", **fields, **index))
    assert (source.facts.spacing or (None,))[0] == pytest.approx(spacing)
    assert source.size == ((24, 40) if spacing else (24, 20))
    assert source.fps == pytest.approx(fps)
    if fps:
        times = np.array([frame.timestamp for frame in source])
        assert np.allclose(times * fps / 2.5, [0, 0.3, 0.8, 1.2])
    noted = any("times" in note for note in source.facts.notes)
    assert noted == ("time" in fields.get("labels", "") and fps is None)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"type": "block"}, UnsupportedFormat),
        ({"type": "int64"}, UnsupportedFormat),
        ({"encoding": "bzip2"}, UnsupportedFormat),
        ({"encoding": "gzip", "byte_skip": "3"}, UnsupportedFormat),
        ({"line_skip": "-1"}, UnsupportedFormat),
        ({"sizes": "24 20 2 2", "kinds": "domain domain domain list"}, UnsupportedFormat),
        ({"sizes": "2 24 20 2", "kinds": "vector domain domain list"}, UnsupportedFormat),
        ({"sizes": "3 24 20", "kinds": "HSV-color domain domain"}, InputError),
        ({"type": "uint16"}, InputError),  # without endian
        ({"sizes": "24 20 x"}, InputError),
        ({"sizes": ""}, InputError),
        ({"data_file": "../a.raw"}, InputError),
        ({"data_file": "LIST\n/etc/passwd\n"}, InputError),
        ({"encoding": "gzip"}, InputError),
        ({"sizes": "9999 24 20", "kinds": "list domain domain"}, InputError),
        ({"sizes": "9999999 24 20", "kinds": "list domain domain", "encoding": "gzip"}, InputError),
    ],
)
def test_what_cannot_be_read_is_refused(
    tmp_path: Path, fields: dict[str, str], kind: type[InputError]
) -> None:
    with pytest.raises(kind) as caught:
        open_source(write(tmp_path / "a.nrrd", **fields))
    assert caught.value.hint and "a.nrrd" in caught.value.message


@pytest.mark.parametrize("head", [b"NRRD0004", b"NRRD0009\n\n", b"NRRD0004\nno colon\n\n"])
def test_a_damaged_header_is_refused(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "a.nrrd").write_bytes(head)
    with pytest.raises(InputError):
        open_source(tmp_path / "a.nrrd")


def test_what_pynrrd_writes_and_cut_files(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    nrrd.write(str(path), FRAMES, {"encoding": "gzip"}, index_order="C")
    assert same(open_source(path), FRAMES)
    path = write(tmp_path / "b.nrrd", FRAMES.tobytes()[:-1])
    source = open_source(path)
    assert same(source, FRAMES[:3]) and source.damage is not None and source.damage.frame == 3
    members = b"".join(gzip.compress(frame.tobytes()) for frame in FRAMES)  # as pigz packs
    assert same(open_source(write(path, members, encoding="gz")), FRAMES)
