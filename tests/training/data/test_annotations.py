"""Keypoint labels: the strict table, and where a labelled pixel lands in the model's frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sonomime.runtime.media.frames import Crop, Letterbox, crop_image, letterbox
from sonomime.runtime.support.errors import InputError
from sonomime.training.coordinates import points_to_pixels
from sonomime.training.data.annotations import KeypointTable, place_keypoints, read_keypoints

HEADER = "video,frame,keypoint,x,y,visible\n"
VIDEOS = {"a": None, "b": {"x.png": 0, "y.png": 1}}


def table(folder: Path, text: str) -> KeypointTable:
    (folder / "keypoints.csv").write_text(text, encoding="utf-8")
    return read_keypoints(folder / "keypoints.csv", VIDEOS)


def test_table_is_read(tmp_path: Path) -> None:
    rows = "a,7,neck,1.5,2,1\na,07,edge,3,4,1\n\nb,y.png,neck,5,6,1\n"
    names, videos = table(tmp_path, HEADER + rows)
    assert names == ("edge", "neck")
    assert videos["a"] == {7: {"neck": (1.5, 2.0), "edge": (3.0, 4.0)}}
    assert videos["b"] == {1: {"neck": (5.0, 6.0)}}
    shuffled = "\ufeffframe,video,x,y,keypoint,visible\n0,a,1,2,neck,1\n"  # a byte order mark
    assert table(tmp_path, shuffled).videos == {"a": {0: {"neck": (1.0, 2.0)}}}


def test_invisible_rows_may_lack_a_place_and_have_none(tmp_path: Path) -> None:
    names, videos = table(tmp_path, HEADER + "a,0,neck,,,0\na,0,edge,1,1,1\na,1,neck,3,4,0\n")
    labels = videos["a"]
    assert labels[0]["edge"] == (1.0, 1.0)
    assert np.isnan([labels[0]["neck"], labels[1]["neck"]]).all()
    points, visible = place_keypoints(labels[0], names, None, Letterbox.fit(50, 50, 64))
    assert visible.tolist() == [True, False] and (points[1] == 0).all()


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        ("", None, "keypoints.csv"),
        ("video,frame,keypoint,x,y\n", 1, "'visible'"),
        ("video,frame,keypont,x,y,visible\n", 1, "'keypoint'"),
        (HEADER + "a,0,neck,1,2\n", 2, "5 cells"),
        (HEADER + "a,0,neck,one,2,1\n", 2, "x is 'one'"),
        (HEADER + "a,0,neck,1,nan,1\n", 2, "y is 'nan'"),
        (HEADER + "a,0,neck,1,x,0\n", 2, "y is 'x'"),
        (HEADER + "a,0,neck,1,,1\n", 2, "y is ''"),
        (HEADER + "a,0,neck,1,2,yes\n", 2, "visible is 'yes'"),
        (HEADER + "a,0,ne\x07ck,1,2,1\n", 2, r"'ne\x07ck'"),
        (HEADER + "a,0,neck,1,2,1\na,1,neck,1,2,1\na,00,neck,1,2,1\n", 4, "'neck'"),
        (HEADER + 'a,0,"neck,1,2,1\n', None, "keypoints.csv"),
        (HEADER + ",0,neck,1,2,1\n", 2, "''"),
        (HEADER + "ab,0,neck,1,2,1\n", 2, "'ab'"),
        (HEADER + "b,z.png,neck,1,2,1\n", 2, "'z.png'"),
        *(
            (HEADER + f"a,{frame},neck,1,2,1\n", 2, "frame")
            for frame in ("", "img7.png", "-1", "1.0", "²", "9" * 5000)
        ),
    ],
)
def test_malformed_tables_name_file_and_line(
    tmp_path: Path, text: str, line: int | None, named: str
) -> None:
    with pytest.raises(InputError) as caught:
        table(tmp_path, text)
    assert "keypoints.csv" + (f":{line}:" if line else "") in caught.value.message
    assert named in caught.value.message and caught.value.hint


@given(
    width=st.integers(64, 400),
    height=st.integers(64, 400),
    place=st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)),
    data=st.data(),
)
def test_a_label_lands_where_its_pixel_lands(
    width: int, height: int, place: tuple[float, float], data: st.DataObject
) -> None:
    """A blob drawn at the label is found at the point, through crop and letterbox."""
    left, top = data.draw(st.integers(0, width // 3)), data.draw(st.integers(0, height // 3))
    crop = Crop(left, top, width - left, height - top)
    at = (left + place[0] * crop.w, top + place[1] * crop.h)
    rows, columns = np.mgrid[0:height, 0:width]
    spread = min(crop.w, crop.h) / 20
    blob = 255 * np.exp(-((columns - at[0]) ** 2 + (rows - at[1]) ** 2) / (2 * spread**2))
    frame, box = letterbox(crop_image(np.round(blob).astype(np.uint8), crop), 96)
    points, visible = place_keypoints({"neck": at}, ("neck",), crop, box)
    assert visible.all()
    weights = frame / frame.sum()
    found = [(weights * axis).sum() for axis in np.mgrid[0:96, 0:96][::-1]]
    np.testing.assert_allclose(points_to_pixels(points[0], 96), found, atol=0.15)


def test_unlabelled_and_cropped_away_keypoints_are_not_visible() -> None:
    box = Letterbox.fit(50, 50, 64)
    labels = {"in": (20.0, 20.0), "out": (9.0, 20.0), "edge": (9.5, 59.5)}
    names = ("edge", "in", "missing", "out")
    points, visible = place_keypoints(labels, names, Crop(10, 10, 50, 50), box)
    assert visible.tolist() == [True, True, False, False] and points.dtype == np.float32
    assert (points[~visible] == 0).all()
    np.testing.assert_allclose(points[0], [-1, 1], atol=1e-6)  # the half_pixel rule
