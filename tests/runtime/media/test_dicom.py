"""DICOM is read as it says, at its own times, or refused by name; ours is read the same."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import (
    BIG,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    JPEG,
    JPEG_2000,
    JPEG_LOSSLESS,
    JPEG_LS,
    MPEG4,
    NONSENSE,
    RLE,
    jpeg,
    jpeg_2000,
    lossless_jpeg,
    raw_jpeg,
    region,
    write_dicom,
)
from media_files import LEVELS, apart, noise

from sonomime.runtime.media import dicom_codecs, dicom_sink
from sonomime.runtime.media.dicom_sink import may_show_somebody
from sonomime.runtime.media.frames import Crop
from sonomime.runtime.media.readers import open_source
from sonomime.runtime.media.reading import Facts, Reading
from sonomime.runtime.media.sinks import open_sink
from sonomime.runtime.support.errors import InputError, OutputError, UnsupportedFormat

pydicom = pytest.importorskip("pydicom")
for _module in ("openjpeg", "jpeg_ls", "rle"):
    pytest.importorskip(_module)

GREY, COLOUR = LEVELS[::2, ::2], noise(8, 12, 3).repeat(4, 0).repeat(4, 1)
DEEP = (np.arange(64 * 64).reshape(64, 64) * 16 + 5).astype(np.uint16)  # 0 to 65535
SIGNED, TWELVE = (DEEP.astype(int) - 32768).astype(np.int16), DEEP >> 4
ADOBE = b"Adobe\0\x64\0\0\0\0"


def levels(path: Path, channels: int = 1, **how: Any) -> list[np.ndarray]:
    return [frame.image for frame in open_source(path, Reading(**how), channels)]


def times(path: Path) -> list[float]:
    return [frame.timestamp for frame in open_source(path)]


def notes(path: Path, **how: Any) -> str:
    return " / ".join(open_source(path, Reading(**how)).facts.notes)


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip(np.rint((values.astype(float) - low) * 255 / (high - low)), 0, 255)


def ybr(image: np.ndarray) -> np.ndarray:
    """RGB as full-range luma and chroma of BT.601."""
    red, green, blue = image.astype(float).transpose(2, 0, 1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    parts = luma, 128 + (blue - luma) / 1.772, 128 + (red - luma) / 1.402
    return np.clip(np.rint(np.stack(parts, axis=2)), 0, 255).astype(np.uint8)


# -- levels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, BIG, RLE, JPEG_LS, JPEG_2000])
@pytest.mark.parametrize("kind", ["grey", "negative", "deep", "signed", "twelve", "rgb"])
def test_every_lossless_syntax_keeps_every_value(tmp_path: Path, syntax: str, kind: str) -> None:
    values, colours, more, expected = {
        "grey": (GREY, "MONOCHROME2", {}, GREY),
        "negative": (GREY, "MONOCHROME1", {}, 255 - GREY),
        "deep": (DEEP, "MONOCHROME2", {}, scaled(DEEP, 0, 65535)),
        "signed": (SIGNED, "MONOCHROME2", {}, scaled(DEEP, 0, 65535)),
        "twelve": (TWELVE, "MONOCHROME2", {"BitsStored": 12}, scaled(TWELVE, 0, 4095)),
        "rgb": (COLOUR, "RGB", {}, COLOUR),
    }[kind]  # fmt: skip
    encoded = None
    if syntax == JPEG_2000:
        if kind in ("signed", "twelve"):
            pytest.skip("Pillow encodes neither")
        encoded, colours = [jpeg_2000(values)] * 2, "YBR_RCT" if kind == "rgb" else colours
    path = write_dicom(tmp_path / "a.dcm", [values] * 2, colours, syntax, encoded, **more)
    channels = 3 if kind == "rgb" else 1
    assert [apart(image, expected).max() for image in levels(path, channels)] == [0, 0]
    facts = open_source(path, channels=channels).facts
    assert (facts.bits, facts.frames) == (more.get("BitsStored", values.itemsize * 8), 2)
    assert facts.colour == (kind == "rgb") and facts.notes == []


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["planar", "ybr", "ybr planar", "422", "422 full", "rle planar"])
def test_every_order_of_colours(tmp_path: Path, kind: str, channels: int) -> None:
    image = COLOUR.repeat(2, 1)  # pairs of pixels have one colour
    planar = {"PlanarConfiguration": int("planar" in kind)}
    if kind.startswith("422"):
        colours, values = "YBR_FULL_422", ybr(image)
    else:
        colours, values = ("YBR_FULL", ybr(image)) if "ybr" in kind else ("RGB", image)
    path = tmp_path / "a.dcm"
    if kind == "422 full":  # what some makers write
        write_dicom(path, [values], "YBR_FULL")
        path.write_bytes(path.read_bytes().replace(b"CS\x08\0YBR_FULL", b"CS\x0c\0YBR_FULL_422"))
    else:
        write_dicom(path, [values], colours, RLE if "rle" in kind else EXPLICIT, **planar)
    (read,) = levels(path, channels)
    exact = colours == "RGB"
    expected = image if channels == 3 else values[..., 0]
    if channels == 1 and exact:
        expected = np.rint(image @ [0.299, 0.587, 0.114])
    assert apart(read, expected).max() <= (channels == 1 if exact else 2 * (channels == 3))
    assert ("YBR_FULL_422" in notes(path)) == (kind == "422 full")


@pytest.mark.parametrize(
    ("colours", "encode"),
    [
        ("MONOCHROME2", jpeg),
        ("YBR_FULL_422", lambda image: jpeg(image, subsampling=1)),  # JFIF says YBR too
        ("RGB", lambda image: jpeg(image, keep_rgb=True)),
        ("RGB", lambda image: raw_jpeg(image, b"")),  # only the header says: do not convert it
        ("YBR_FULL", lambda image: raw_jpeg(ybr(image), b"")),
        ("YBR_FULL", lambda image: raw_jpeg(ybr(image), ADOBE + b"\0")),
        ("YBR_FULL", lambda image: raw_jpeg(ybr(image), ADOBE + b"\1")),
    ],
)
def test_jpeg_has_the_colours_that_header_and_markers_say(
    tmp_path: Path, colours: str, encode: Callable[[np.ndarray], bytes]
) -> None:
    image = GREY if colours == "MONOCHROME2" else COLOUR
    path = write_dicom(tmp_path / "a.dcm", [image] * 2, colours, JPEG, [encode(image)] * 2)
    grey = image if image.ndim == 2 else ybr(image)[..., 0]
    for channels, expected in ((1, grey), (3, image if image.ndim == 3 else np.dstack([grey] * 3))):
        assert all(np.median(apart(read, expected)) < 6 for read in levels(path, channels))


@pytest.mark.parametrize(("bits", "values"), [(8, GREY), (12, TWELVE), (16, DEEP), (8, COLOUR)])
def test_jpeg_lossless_is_exact(tmp_path: Path, bits: int, values: np.ndarray) -> None:
    colours, channels = ("RGB", 3) if values.ndim == 3 else ("MONOCHROME2", 1)
    encoded = [lossless_jpeg(values, bits)]
    path = tmp_path / "a.dcm"
    write_dicom(path, [values], colours, JPEG_LOSSLESS, encoded, BitsStored=bits)
    (read,) = levels(path, channels)
    assert np.array_equal(read, scaled(values, 0, (1 << bits) - 1))


def test_a_palette_gives_colours(tmp_path: Path) -> None:
    table = noise(256, 3, seed=4)
    header: dict[str, Any] = {}
    for number, colour in enumerate(("Red", "Green", "Blue")):
        name = f"{colour}PaletteColorLookupTable"
        header |= {f"{name}Descriptor": [256, 0, 16]}
        header |= {f"{name}Data": (table[:, number].astype("<u2") << 8).tobytes()}
    path = write_dicom(tmp_path / "a.dcm", [GREY], "PALETTE COLOR", **header)
    assert np.array_equal(levels(path, 3)[0], table[GREY])
    del header["GreenPaletteColorLookupTableData"]
    with pytest.raises(InputError, match=r"a\.dcm.*palette"):
        open_source(write_dicom(tmp_path / "a.dcm", [GREY], "PALETTE COLOR", **header))


@pytest.mark.parametrize(
    ("header", "low", "high", "noted"),
    [
        ({"WindowCenter": 2048, "WindowWidth": 1024}, 1536, 2559, ""),
        ({"WindowCenter": [2048, 9], "WindowWidth": [1024, 9]}, 1536, 2559, ""),
        ({"WindowCenter": 0, "WindowWidth": 201, "RescaleSlope": 2, "RescaleIntercept": -100},
         -0.25, 99.75, ""),
        ({"WindowCenter": 9, "WindowWidth": 4, "VOILUTFunction": "LINEAR_EXACT"}, 7, 11, ""),
        ({"WindowCenter": 9, "WindowWidth": 5, "VOILUTFunction": "SIGMOID"}, 6.5, 10.5, "SIGMOID"),
        ({"WindowCenter": 9, "WindowWidth": 0}, 0, 4095, "window"),
        ({"WindowCenter": NONSENSE, "WindowWidth": 5}, 0, 4095, "window"),
        ({"RescaleSlope": -1, "RescaleIntercept": 4095}, 4095, 0, ""),
        ({"RescaleSlope": 0}, 0, 4095, "slope"),
    ],
)  # fmt: skip
def test_windows_and_rescaling_decide_what_is_black_and_white(
    tmp_path: Path, header: dict[str, Any], low: float, high: float, noted: str
) -> None:
    with pydicom.config.disable_value_validation():
        path = write_dicom(tmp_path / "a.dcm", [TWELVE], BitsStored=12, **header)
    assert apart(levels(path)[0], scaled(TWELVE, low, high)).max() == 0
    assert noted in notes(path) and bool(noted) == bool(notes(path))


# -- times -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected", "rate", "noted"),
    [
        ({}, [0, 0.04, 0.08], "FrameTime", ""),
        ({"FrameTime": "12.5", "FrameIncrementPointer": None}, [0, 0.0125, 0.025], "Time", ""),
        ({"FrameTimeVector": [0, 10, 25], "FrameIncrementPointer": 0x00181065},
         [0, 0.01, 0.035], "FrameTimeVector", ""),
        ({"FrameTimeVector": [0, 10, 25], "FrameTime": None}, [0, 0.01, 0.035], "Vector", ""),
        ({"FrameTimeVector": [0, 10], "FrameIncrementPointer": 0x00181065},
         [0, 0.04, 0.08], "FrameTime", "FrameTimeVector"),
        ({"FrameTime": 0, "CineRate": 20}, [0, 0.05, 0.1], "CineRate", "FrameTime"),
        ({"FrameTime": NONSENSE, "RecommendedDisplayFrameRate": 50},
         [0, 0.02, 0.04], "Rate", "Time"),
        ({"FrameTime": None}, [0, 1 / 30, 1 / 15], "assumed", "--fps"),
        ({"FrameTime": -40, "CineRate": 0}, [0, 1 / 30, 1 / 15], "assumed", "CineRate"),
    ],
)  # fmt: skip
def test_times_are_those_of_the_header(
    tmp_path: Path, header: dict[str, Any], expected: list[float], rate: str, noted: str
) -> None:
    with pydicom.config.disable_value_validation():
        path = write_dicom(tmp_path / "a.dcm", [GREY] * 3, **header)
    assert np.allclose(times(path), expected, atol=1e-9)
    assert rate in open_source(path).facts.rate
    assert noted in notes(path) and bool(noted) == bool(notes(path))


# -- regions ---------------------------------------------------------------------------------------

WIDE, TALL = region(8, 4, 55, 39), region(2, 10, 21, 59)
FLOW, SPECTRUM = region(10, 10, 19, 19, kind=2), region(0, 0, 63, 63, space=3, kind=3)


@pytest.mark.parametrize(
    ("regions", "asked", "crop", "noted"),
    [
        ([WIDE], None, Crop(8, 4, 48, 36), ""),
        ([FLOW, TALL, WIDE, SPECTRUM], None, Crop(8, 4, 48, 36), "3 other"),
        ([FLOW, TALL, WIDE], 1, Crop(2, 10, 20, 50), ""),
        ([SPECTRUM, FLOW], None, Crop(10, 10, 10, 10), "1 other"),
        ([SPECTRUM], None, None, "B-mode"),
        ([SPECTRUM], 0, Crop(0, 0, 64, 64), ""),
        ([region(8, 4, 64, 39)], None, Crop(8, 4, 56, 36), "outside"),
        ([region(8, 4, 95, 39)], None, None, "fit"),  # of another picture
        ([region(8, 4, 7, 39)], None, None, "fit"),
        ([], None, None, ""),
    ],
)
def test_the_largest_b_mode_region_is_read_or_the_one_that_is_asked_for(
    tmp_path: Path, regions: list[Any], asked: int | None, crop: Crop | None, noted: str
) -> None:
    path = write_dicom(tmp_path / "a.dcm", [GREY], SequenceOfUltrasoundRegions=regions)
    source = open_source(path, Reading(region=asked))
    x, y, w, h = crop or (0, 0, 64, 64)
    assert source.crop == crop and source.facts.regions == len(regions)
    assert np.array_equal(next(iter(source)).image, GREY[y : y + h, x : x + w])
    assert source.facts.spacing == (None if crop is None else pytest.approx((0.2, 0.2)))
    assert noted in notes(path, region=asked) and bool(noted) == bool(source.facts.notes)
    for wrong in (-1, len(regions)):
        with pytest.raises(InputError, match=r"a\.dcm"):
            open_source(path, Reading(region=wrong))


def test_spacing_and_aspect_come_from_what_there_is(tmp_path: Path) -> None:
    oblong = region(0, 0, 63, 31, PhysicalDeltaX=0.02, PhysicalDeltaY=-0.01)
    seconds = region(0, 0, 63, 31, PhysicalUnitsXDirection=4)
    for header, spacing, size in (
        ({"SequenceOfUltrasoundRegions": [oblong]}, (0.1, 0.1), (128, 32)),
        ({"SequenceOfUltrasoundRegions": [seconds]}, None, (64, 32)),
        ({"PixelSpacing": [0.5, 0.25]}, (0.25, 0.25), (64, 128)),
        ({"PixelAspectRatio": [1, 2]}, None, (128, 64)),
    ):
        source = open_source(write_dicom(tmp_path / "a.dcm", [GREY], **header))
        assert source.size == size
        assert source.facts.spacing == (spacing and pytest.approx(spacing))


# -- what is refused, noted, damaged ---------------------------------------------------------------


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
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
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
    assert source.damage is not None and source.damage[:2] == (2, pytest.approx(0.08))
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
    pieces[-1] += bytes(len(pieces[-1]) % 2)
    header = {} if timed else {"FrameTime": None, "FrameIncrementPointer": None}
    header |= {"SequenceOfUltrasoundRegions": [WIDE]}
    if timed:
        header |= {"FrameTime": "20"}
    path = write_dicom(tmp_path / "a.dcm", pictures, "YBR_PARTIAL_420", MPEG4, pieces, **header)
    source = open_source(path)
    assert np.allclose(times(path), np.arange(6) * (0.02 if timed else 0.04))
    assert source.crop == Crop(8, 4, 48, 36) and source.facts.frames == 6
    for read, picture in zip(levels(path), pictures, strict=True):
        assert apart(read, picture[4:40, 8:56]).mean() < 4
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(InputError):
        list(open_source(path, Reading(on_damage="stop")))


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
    assert 5 < np.mean([frame.image.mean() for frame in frames]) < 20, "dark, as it is"


# -- what we write ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(33, 65), (33, 65, 3)])
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([0, 0.04, 0.0801, 0.12], [0, 0.04, 0.08, 0.12]),  # even but for rounding
        ([5, 5.01, 5.03, 5.5], [0, 0.01, 0.03, 0.5]),
        ([None], [0]),
    ],
)
def test_written_dicom_is_read_the_same(
    tmp_path: Path, shape: tuple[int, ...], given: list[float | None], kept: list[float]
) -> None:
    path, channels = tmp_path / "a.dcm", 3 if len(shape) == 3 else 1
    frames = [noise(*shape, seed=seed) for seed in range(len(given))]
    texts = {"title": "Grüße", "comment": "made up"}
    with open_sink(path, shape[1::-1], channels, 25, texts, spacing=(0.3, 0.3)) as sink:
        for frame, time in zip(frames, given, strict=True):
            sink.write(frame, time)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.dcm"]
    source = open_source(path, channels=channels)
    read = list(source)
    assert all(np.array_equal(r.image, f) for r, f in zip(read, frames, strict=True))
    assert np.allclose([frame.timestamp for frame in read], kept, atol=1e-4)
    assert source.facts.spacing == pytest.approx((0.3, 0.3)) and source.facts.notes == []
    assert source.facts.burned_in is False
    header = pydicom.dcmread(path)
    assert header[0x0008001C].value == "YES" and header.ImageType == ["DERIVED", "SECONDARY"]
    assert (header.PatientName, header.SeriesDescription) == ("SYNTHETIC", "Grüße")
    assert header.ContributingEquipmentSequence[0].Manufacturer == "sonomime"
    if not shutil.which("dciodvfy"):
        pytest.skip("dciodvfy is not installed")
    checked = subprocess.run(["dciodvfy", path], capture_output=True, text=True, check=False)
    lines = [line for line in checked.stderr.splitlines() if line.startswith("Error")]
    assert checked.stderr and [line for line in lines if "(0x0008,0x001c)" not in line] == []


def test_times_of_thousands_of_frames_are_kept(tmp_path: Path) -> None:
    given = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.05, 10_000))
    with open_sink(tmp_path / "a.dcm", (8, 8)) as sink:
        for time in given:
            sink.write(GREY[:8, :8], float(time))
    assert np.allclose(times(tmp_path / "a.dcm"), given - given[0], atol=1e-5)


def test_what_shows_somebody_is_written_only_if_allowed_and_says_so(tmp_path: Path) -> None:
    facts = Facts("DICOM", burned_in=True)
    with pytest.raises(InputError, match="BurnedIn"):
        may_show_somebody(facts, allowed=False)
    assert may_show_somebody(facts, allowed=True)
    assert not may_show_somebody(Facts("DICOM"), allowed=False)
    with open_sink(tmp_path / "a.dcm", (64, 64), burned_in=True) as sink:
        sink.write(GREY)
    assert open_source(tmp_path / "a.dcm").facts.burned_in is True


def test_a_file_that_would_be_too_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_sink, "_MOST_BYTES", 2 * GREY.nbytes)
    path = tmp_path / "a.dcm"
    with pytest.raises(OutputError, match="2 frames") as caught, open_sink(path, (64, 64)) as sink:
        for _ in range(3):
            sink.write(GREY)
    assert ".mkv" in caught.value.hint and list(tmp_path.iterdir()) == []
