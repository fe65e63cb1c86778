"""Keypoint labels: the strict table, and where a labelled pixel lands in the model's frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sonomime.runtime.media.frames import Crop, Letterbox
from sonomime.runtime.support.errors import InputError
from sonomime.training.data.annotations import Labels, place_keypoints, read_keypoints

HEADER = "video,frame,keypoint,x,y,visible\n"


def table(folder: Path, text: str) -> tuple[tuple[str, ...], dict[str, Labels]]:
    (folder / "keypoints.csv").write_text(text, encoding="utf-8")
    return read_keypoints(folder / "keypoints.csv", {"a": None, "b": ["x.png", "y.png"]})


def test_table_is_read(tmp_path: Path) -> None:
    rows = "a,7,neck,1.5,2,1\na,07,edge,3,4,1\n\nb,y.png,neck,5,6,1\n"
    names, videos = table(tmp_path, HEADER + rows)
    assert names == ("edge", "neck")
    assert videos["a"] == {7: {"neck": (1.5, 2.0), "edge": (3.0, 4.0)}}
    assert videos["b"] == {1: {"neck": (5.0, 6.0)}}
    shuffled = "\ufeffframe,video,x,y,keypoint,visible\n0,a,1,2,neck,1\n"  # a byte order mark
    assert table(tmp_path, shuffled)[1] == {"a": {0: {"neck": (1.0, 2.0)}}}
    hidden = table(tmp_path, HEADER + "a,0,neck,,,0\na,1,neck,3,4,0\n")[1]["a"]
    assert np.isnan([hidden[0]["neck"], hidden[1]["neck"]]).all()


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


def test_unlabelled_and_cropped_away_keypoints_are_not_visible() -> None:
    box = Letterbox.fit(50, 50, 64)
    nan = float("nan")
    labels = {"in": (20.0, 20.0), "out": (9.0, 20.0), "edge": (9.5, 59.5), "hidden": (nan, nan)}
    names = ("edge", "hidden", "in", "missing", "out")
    points, visible = place_keypoints(labels, names, Crop(10, 10, 50, 50), box)
    assert visible.tolist() == [True, False, True, False, False] and points.dtype == np.float32
    assert (points[~visible] == 0).all()
    np.testing.assert_allclose(points[0], [-1, 1], atol=1e-6)  # the half_pixel rule
