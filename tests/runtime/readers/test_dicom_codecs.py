"""Every way in which DICOM keeps pixels gives the levels that were put in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import (
    BIG,
    DEFLATED,
    EXPLICIT,
    GREY,
    IMPLICIT,
    JPEG,
    JPEG_2000,
    JPEG_LOSSLESS,
    JPEG_LS,
    RLE,
    jpeg,
    jpeg_2000,
    levels,
    lossless_jpeg,
    notes,
    raw_jpeg,
    scaled,
    write_dicom,
)
from media_files import apart, noise

from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.support.errors import InputError

pydicom = pytest.importorskip("pydicom")
for _module in ("openjpeg", "jpeg_ls", "rle"):
    pytest.importorskip(_module)

COLOUR = noise(8, 12, 3).repeat(4, 0).repeat(4, 1)
DEEP = (np.arange(64 * 64).reshape(64, 64) * 16 + 5).astype(np.uint16)  # 0 to 65535
SIGNED, TWELVE = (DEEP.astype(int) - 32768).astype(np.int16), DEEP >> 4
ADOBE = b"Adobe\0\x64\0\0\0\0"


def ybr(image: np.ndarray) -> np.ndarray:
    """RGB as full-range luma and chroma of BT.601."""
    red, green, blue = image.astype(float).transpose(2, 0, 1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    parts = luma, 128 + (blue - luma) / 1.772, 128 + (red - luma) / 1.402
    return np.clip(np.rint(np.stack(parts, axis=2)), 0, 255).astype(np.uint8)


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


def test_bits_and_bytes_that_hold_something_else(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", [TWELVE | 0xA000], BitsStored=12)
    assert np.array_equal(levels(path)[0], scaled(TWELVE, 0, 4095))
    image = noise(64, 64)
    swapped = image.view(np.uint16).byteswap().view(np.uint8)  # bytes in big endian words
    data = write_dicom(path, [swapped], syntax=BIG).read_bytes()
    path.write_bytes(data.replace(b"\x7f\xe0\0\x10OB", b"\x7f\xe0\0\x10OW"))
    assert np.array_equal(levels(path)[0], image)


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
        ("YBR_FULL", lambda image: jpeg(image, keep_rgb=True).replace(ADOBE, b"other".ljust(11))),
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


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [(JPEG, jpeg), (JPEG_2000, jpeg_2000), (JPEG_LOSSLESS, lambda image: lossless_jpeg(image, 8))],
)
def test_a_frame_of_another_size_than_the_header_s_is_not_decoded(
    tmp_path: Path, syntax: str, encode: Callable[..., bytes]
) -> None:
    encoded = [encode(GREY[:16, :32])]
    path = write_dicom(tmp_path / "a.dcm", [GREY], "MONOCHROME2", syntax, encoded)
    with pytest.raises(InputError, match=r"a\.dcm.*32 x 16 pixels"):
        open_source(path)


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
