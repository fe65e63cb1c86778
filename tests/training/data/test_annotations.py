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
from sonomime.training.data.annotations import (
    check_videos,
    labels_for,
    place_keypoints,
    read_keypoints,
)

HEADER = "video,frame,keypoint,x,y,visible\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "keypoints.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_table_is_read(tmp_path: Path) -> None:
    table = read_keypoints(
        write(tmp_path, HEADER + "a.mp4,7,neck,1.5,2,1\na.mp4,7,edge,3,4,1\n\nb,x.png,neck,5,6,1\n")
    )
    assert table.names == ("edge", "neck")
    video = labels_for(table, "a.mp4", None)
    assert video.frames == {7: {"neck": (1.5, 2.0), "edge": (3.0, 4.0)}}
    assert video.lines == {7: 2}
    folder = labels_for(table, "b", {"x.png", "y.png"})
    assert folder.frames == {"x.png": {"neck": (5.0, 6.0)}}
    assert labels_for(table, "unlabelled.mp4", None).frames == {}


def test_columns_may_come_in_any_order_and_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "keypoints.csv"
    path.write_text("frame,video,x,y,keypoint,visible\n0,a,1,2,neck,1\n", encoding="utf-8-sig")
    assert labels_for(read_keypoints(path), "a", None).frames == {0: {"neck": (1.0, 2.0)}}


def test_invisible_rows_may_lack_a_place_and_have_none(tmp_path: Path) -> None:
    table = read_keypoints(
        write(tmp_path, HEADER + "a,0,neck,,,0\na,0,edge,1,1,1\na,1,neck,3,4,0\n")
    )
    assert table.names == ("edge", "neck")
    frames = labels_for(table, "a", None).frames
    assert frames[0]["edge"] == (1.0, 1.0)
    assert np.isnan([frames[0]["neck"], frames[1]["neck"]]).all()
    points, visible = place_keypoints(frames[0], table.names, None, Letterbox.fit(50, 50, 64))
    assert visible.tolist() == [True, False] and (points[1] == 0).all()


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("", None, "empty"),
        ("video,frame,keypoint,x,y\n", 1, "'visible' is missing"),
        ("video,frame,keypont,x,y,visible\n", 1, "did you mean 'keypoint'"),
        ("video,frame,keypoint,x,y,visible,x\n", 1, "twice"),
        (HEADER + "a,0,neck,1,2\n", 2, "5 cells"),
        (HEADER + "a,0,neck,one,2,1\n", 2, "x is 'one'"),
        (HEADER + "a,0,neck,1,nan,1\n", 2, "y is 'nan'"),
        (HEADER + "a,0,neck,1,,1\n", 2, "y is ''"),
        (HEADER + "a,0,neck,1,2,yes\n", 2, "visible is 'yes'"),
        (HEADER + "a,0,,1,2,1\n", 2, "keypoint is empty"),
        (HEADER + "a,0,ne\x07ck,1,2,1\n", 2, r"keypoint is 'ne\x07ck'"),
        (HEADER + "a,0,neck,1,2,1\na,1,neck,1,2,1\na,0,neck,1,2,1\n", 4, "first on line 2"),
        (HEADER + 'a,0,"neck,1,2,1\n', None, "not a CSV file"),
    ],
)
def test_malformed_tables_name_file_and_line(
    tmp_path: Path, text: str, line: int | None, says: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_keypoints(path)
    assert str(path) + (f":{line}:" if line else "") in caught.value.message
    assert says in caught.value.message
    assert caught.value.hint


def test_text_that_is_not_utf8_and_a_missing_file_are_input_errors(tmp_path: Path) -> None:
    path = tmp_path / "keypoints.csv"
    with pytest.raises(InputError, match="cannot be read"):
        read_keypoints(path)
    path.write_bytes(b"video,frame\xff\xfe\n")
    with pytest.raises(InputError, match="UTF-8"):
        read_keypoints(path)


def test_unknown_video_is_an_error_with_the_nearest_name(tmp_path: Path) -> None:
    table = read_keypoints(write(tmp_path, HEADER + "clips/a.mp4,0,neck,1,2,1\n"))
    check_videos(table, {"clips/a.mp4"})
    with pytest.raises(InputError) as caught:
        check_videos(table, {"clips/b.mp4", "other"})
    assert ":2:" in caught.value.message
    assert "'clips/b.mp4'" in caught.value.hint


@pytest.mark.parametrize("frame", ["img7.png", "-1", "1.0", "²", ""])
def test_frames_of_a_video_are_indices(tmp_path: Path, frame: str) -> None:
    with pytest.raises(InputError, match=":2:"):
        labels_for(read_keypoints(write(tmp_path, HEADER + f"a,{frame},neck,1,2,1\n")), "a", None)


def test_one_frame_written_in_two_ways_is_an_error(tmp_path: Path) -> None:
    table = read_keypoints(write(tmp_path, HEADER + "a,7,neck,1,2,1\na,07,neck,1,2,1\n"))
    with pytest.raises(InputError, match=":3:"):
        labels_for(table, "a", None)


def test_frames_of_a_folder_are_its_file_names(tmp_path: Path) -> None:
    table = read_keypoints(write(tmp_path, HEADER + "a,img2.png,neck,1,2,1\n"))
    with pytest.raises(InputError, match="no frame 'img2") as caught:
        labels_for(table, "a", {"img1.png"})
    assert "img1.png" in caught.value.hint


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


def test_pixel_centres_follow_the_half_pixel_rule() -> None:
    box = Letterbox.fit(256, 256, 256)
    points, _ = place_keypoints({"a": (0, 0), "b": (255, 128)}, ("a", "b"), None, box)
    np.testing.assert_allclose(points, [[1 / 256 - 1, 1 / 256 - 1], [511 / 256 - 1, 1 / 256]])


def test_unlabelled_and_cropped_away_keypoints_are_not_visible() -> None:
    box = Letterbox.fit(50, 50, 64)
    labels = {"in": (20.0, 20.0), "out": (9.0, 20.0), "edge": (9.5, 59.5)}
    points, visible = place_keypoints(
        labels, ("edge", "in", "missing", "out"), Crop(10, 10, 50, 50), box
    )
    assert visible.tolist() == [True, True, False, False]
    assert (points[~visible] == 0).all()
    np.testing.assert_allclose(points[0], [-1, 1], atol=1e-6)
