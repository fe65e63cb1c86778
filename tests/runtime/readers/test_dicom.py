"""DICOM files are read, with what is damaged, or refused by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import (
    DEFLATED,
    EXPLICIT,
    GREY,
    JPEG,
    JPEG_LS,
    MPEG4,
    NONSENSE,
    RLE,
    jpeg,
    levels,
    notes,
    region,
    times,
    write_dicom,
)
from media_files import apart, noise

from sonomime.runtime.media.frames import Crop
from sonomime.runtime.readers import dicom_codecs
from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.readers.reading import Reading
from sonomime.runtime.sinks.open_sink import open_sink
from sonomime.runtime.support.errors import InputError, OutputError, UnsupportedFormat

pydicom = pytest.importorskip("pydicom")


@pytest.mark.parametrize(
    ("header", "syntax", "says"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.6.2"}, EXPLICIT, "volume"),
        ({}, "1.2.840.10008.1.2.4.92", "2000"),
        ({"Rows": 20_000, "Columns": 20_000}, EXPLICIT, "large"),
        ({"NumberOfFrames": 100_001}, EXPLICIT, "100001"),
        ({"NumberOfFrames": NONSENSE}, EXPLICIT, "nonsense"),
        ({"SamplesPerPixel": 2}, EXPLICIT, "2 x 8"),
        ({"BitsAllocated": 32}, EXPLICIT, "of 32"),
        ({"PhotometricInterpretation": "CMYK"}, EXPLICIT, "CMYK"),
        ({"BitsAllocated": 16, "BitsStored": 12, "HighBit": 15}, EXPLICIT, "upper"),
        ({"Rows": 4096}, EXPLICIT, "missing"),
    ],
)
def test_what_is_not_read_is_refused_by_name(
    tmp_path: Path, header: dict[str, Any], syntax: str, says: str
) -> None:
    encoded = None if syntax == EXPLICIT else [b"ab"]
    with pydicom.config.disable_value_validation():
        path = write_dicom(tmp_path / "a.dcm", [GREY], "MONOCHROME2", syntax, encoded, **header)
    with pytest.raises(InputError, match=rf"a\.dcm.*{says}"):
        open_source(path)


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dicom(tmp_path / "a.dcm", [GREY], syntax=JPEG_LS)
    monkeypatch.setitem(dicom_codecs._PLUGINS, JPEG_LS, ("another",))
    with pytest.raises(InputError, match=r"a\.dcm") as caught:
        open_source(path)
    assert "sonomime[dicom]" in caught.value.hint
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UnsupportedFormat, match=r"a\.dcm") as caught:
        open_source(path)
    assert "sonomime[dicom]" in caught.value.hint
    with pytest.raises(OutputError, match="pydicom"), open_sink(tmp_path / "b.dcm", (64, 64)):
        pass


def test_what_is_left_out_is_noted(tmp_path: Path) -> None:
    for burned_in, value in ((True, "YES"), (False, "NO"), (None, None)):
        path = write_dicom(tmp_path / "a.dcm", [GREY], BurnedInAnnotation=value, Modality="CT")
        assert open_source(path).facts.burned_in is burned_in
        assert ("BurnedIn" in notes(path)) == bool(burned_in) and "CT" in notes(path)
    with pytest.raises(InputError, match="CT"):
        open_source(path, Reading(strict=True))
    path = write_dicom(tmp_path / "a.dcm", [GREY] * 3, NumberOfFrames=2)
    assert "more than the 2 frames" in notes(path) and len(levels(path)) == 2


@pytest.mark.parametrize("table", [True, False])
@pytest.mark.parametrize("damage", ["frame", "cut", "tag"])
def test_damage_stays_in_its_frame(tmp_path: Path, damage: str, table: bool) -> None:
    pictures = [np.roll(GREY, 9 * i, axis=0) for i in range(4)]
    encoded = [jpeg(picture) for picture in pictures]
    if damage == "frame":
        encoded[2] = encoded[2][:100]
    path = write_dicom(tmp_path / "a.dcm", pictures, "MONOCHROME2", JPEG, encoded, table)
    data = path.read_bytes()
    third = [at for at in range(len(data)) if data.startswith(b"\xff\xd8\xff", at)][2]
    if damage == "cut":
        path.write_bytes(data[: third + 200])
    elif damage == "tag":  # of the item: what follows is found by the table alone
        path.write_bytes(data[: third - 8] + b"x" + data[third - 7 :])
    source = open_source(path, Reading(on_damage="skip"))
    read = list(source)
    kept = 3 if damage == "frame" or (damage == "tag" and table) else 2
    assert [frame.index for frame in read] == [0, 1, 3][:kept]
    assert np.allclose([frame.timestamp for frame in read], [0, 0.04, 0.12][:kept])
    assert source.damage is not None and source.damage.frame == 2
    assert source.damage.seconds == pytest.approx(0.08)
    assert len(levels(path)) == 2
    with pytest.raises(InputError, match="frame 2"):
        levels(path, on_damage="stop")


def test_a_cut_off_file_yields_its_whole_frames(tmp_path: Path) -> None:
    for syntax in (EXPLICIT, DEFLATED):
        path = write_dicom(
            tmp_path / "a.dcm", [noise(64, 64, seed=i) for i in range(6)], syntax=syntax
        )
        path.write_bytes(path.read_bytes()[:-6000])
        source = open_source(path)
        assert len(list(source)) == 4 and source.damage is not None and source.damage.frame == 4


def test_a_wrong_table_of_offsets_is_not_followed(tmp_path: Path) -> None:
    pictures = [np.roll(GREY, 9 * i, axis=0) for i in range(4)]
    path = tmp_path / "a.dcm"
    write_dicom(path, pictures, "MONOCHROME2", JPEG, [jpeg(picture) for picture in pictures])
    data = path.read_bytes()
    table = data.index(b"\xfe\xff\0\xe0\x10\0\0\0") + 8
    path.write_bytes(
        data[:table] + bytes.fromhex("00000000 0a000000 0b000000 0c000000") + data[table + 16 :]
    )
    for read, picture in zip(levels(path), pictures, strict=True):
        assert apart(read, picture).mean() < 4


def test_decoders_do_not_write_into_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_dicom(tmp_path / "a.dcm", [GREY] * 2, syntax=RLE)
    data = path.read_bytes()
    path.write_bytes(data[:-1500] + bytes(1000) + data[-500:])
    assert len(levels(path)) == 1
    assert {record.name for record in caplog.records} == {"sonomime"}


@pytest.mark.parametrize("frames", [1, 3])
def test_frames_in_several_pieces_are_joined(tmp_path: Path, frames: int) -> None:
    data, path = jpeg(GREY), tmp_path / "a.dcm"
    pieces = [part for _ in range(frames) for part in (data[:500], data[500:])]
    write_dicom(path, [GREY] * frames, "MONOCHROME2", JPEG, pieces, table=False)
    assert (
        all(apart(read, GREY).mean() < 2 for read in levels(path)) and len(levels(path)) == frames
    )


@pytest.mark.parametrize("timed", [True, False])
def test_a_video_stream_has_the_header_s_times_and_region(
    tmp_path: Path, make_video: Callable[..., Path], timed: bool
) -> None:
    pictures = [np.roll(GREY, 5 * i, axis=0) for i in range(6)]
    data = make_video(tmp_path / "a.mp4", pictures, options={"crf": "4"}).read_bytes()
    pieces = [data[at : at + 1000] for at in range(0, len(data), 1000)]
    pieces[-1] += bytes(len(pieces[-1]) % 2 + 20)
    header = {} if timed else {"FrameTime": None, "FrameIncrementPointer": None}
    header |= {"SequenceOfUltrasoundRegions": [region(8, 4, 55, 39)]}
    if timed:
        header |= {"FrameTime": "20"}
    path = write_dicom(tmp_path / "a.dcm", pictures, "YBR_PARTIAL_420", MPEG4, pieces, **header)
    source = open_source(path)
    assert np.allclose(times(path), np.arange(6) * (0.02 if timed else 0.04))
    assert source.crop == Crop(8, 4, 48, 36) and source.facts.frames == 6
    for read, picture in zip(levels(path), pictures, strict=True):
        assert apart(read, picture[4:40, 8:56]).mean() < 4
    path.write_bytes(path.read_bytes()[:-20])  # of padding, which a decoder does not miss
    source = open_source(path)
    assert len(list(source)) == 6 and source.damage is not None


def test_a_file_is_recognised_by_its_content_or_by_its_name(tmp_path: Path) -> None:
    data = write_dicom(tmp_path / "a.dcm", [GREY]).read_bytes()
    (tmp_path / "unnamed").write_bytes(data)
    (tmp_path / "bare.dcm").write_bytes(data[132:])  # as before DICOM had files
    for name in ("unnamed", "bare.dcm"):
        assert np.array_equal(levels(tmp_path / name)[0], GREY)


def test_a_real_clip(shared_data: Path) -> None:
    path = shared_data / "test" / "clips" / "cardiac_examples_ybr_color.dcm"
    source = open_source(path)
    frames = list(source)
    assert (len(frames), source.size, source.fps) == (30, (320, 240), 30)
    assert frames[-1].timestamp == pytest.approx(29 * 0.033333)
    assert source.facts.regions == 1 and source.facts.region is None  # of a picture twice as large
    luma = pydicom.pixels.pixel_array(path, raw=True, decoding_plugin="pillow")[..., 0]
    assert np.array_equal([frame.image for frame in frames], luma)
