"""What each tool's file means, and where its faults are said to be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from annotation_files import coco, cvat, onuvs, pair, slicer

from .bringing import IN_B, bring, labels, refused, rows

# -- CVAT ------------------------------------------------------------------------------------------


def track(*frames: str, label: str = "neck") -> str:
    """A track of points; each frame as "FRAME x,y FLAGS", flags o: outside, c: occluded, k: no
    keyframe."""
    made = []
    for text in frames:
        frame, points, flags = (*text.split(), "")[:3]
        states = {"outside": "o", "occluded": "c", "keyframe": ""}
        given = "".join(f' {key}="{int(flag in flags and flag != "")}"'
                        for key, flag in states.items() if flag)  # fmt: skip
        made.append(f'<points frame="{frame}" keyframe="{int("k" not in flags)}"{given} '
                    f'points="{points}"/>\n')  # fmt: skip
    return f'<track id="0" label="{label}">\n{"".join(made)}</track>\n'


def test_keyframes_are_interpolated_and_an_end_is_honoured(data: Path) -> None:
    done = bring(data, cvat(track("0 1,2", "2 5,3", "3 5,3 o")))
    assert labels(data) == {0: {"neck": (0.5, 1.5)}, 1: {"neck": (2.5, 2.0)},
                            2: {"neck": (4.5, 2.5)}}  # fmt: skip
    (one,) = done.files
    assert one.points == {"neck": 3} and sum(one.left_out.values()) == 1
    assert any(note.startswith("1 points lie between") for note in one.notes)


def test_nothing_is_known_between_an_end_and_the_next_beginning(data: Path) -> None:
    bring(data, cvat(track("0 1,2", "1 1,2 o", "3 5,3 c")))
    assert [(row["frame"], row["x"], row["visible"]) for row in rows(data)] == [
        ("0", "0.5", "1"), ("3", "4.5", "0"),
    ]  # fmt: skip


def test_a_point_of_a_skeleton_may_be_out_of_the_picture(data: Path) -> None:
    """Only while others of its skeleton are shown; else the skeleton has ended."""

    def skeleton(frame: int, neck: int, apex: int) -> str:
        points = "".join(
            f'<points label="{name}" outside="{gone}" occluded="0" points="-3,2"/>'
            if gone else f'<points label="{name}" outside="0" occluded="0" points="4,2"/>'
            for name, gone in (("neck", neck), ("apex", apex))
        )  # fmt: skip
        return f'<skeleton frame="{frame}" keyframe="1">{points}</skeleton>'

    body = skeleton(0, 0, 1) + skeleton(1, 1, 1)
    bring(data, cvat(f'<track id="0" label="heart">{body}</track>'))
    assert {(row["frame"], row["keypoint"], row["visible"]) for row in rows(data)} == {
        ("0", "neck", "1"), ("0", "apex", "0"),
    }  # fmt: skip


def test_what_is_no_point_is_left_out_and_said(data: Path) -> None:
    boxes = '<box frame="0" xtl="1" ytl="1" xbr="2" ybr="2" outside="0"/>' * 2
    body = track("0 1,2", "9 1,2") + f'<track id="1" label="cyst">{boxes}</track>'
    body += track("0 1,2;3,4", label="two") + "<other/>"
    (one,) = bring(data, cvat(body)).files
    kinds = sorted(one.left_out.items())
    assert [count for _, count in kinds] == [1, 6, 1, 1]  # <other>, frames, of two points, boxes
    assert [word in what for word, (what, _) in zip(("other", "a.mkv", "2 points", "box"), kinds,
            strict=True)] == [True] * 4  # fmt: skip
    points = [{"Label": 5, "Position": [1, 2, 0]}, {"Label": 3, "Position": None}]
    text = json.loads(pair(BoundingBoxLabelModel=[{}, {}]))
    text["Models"]["LandMarkListModel"]["Points"][0]["LabelList"] += points
    text["Polys"] = [{"Shapes": [{"labelType": 1, "Points": [{}]}, {"Points": None}]}]
    (one,) = bring(data, json.dumps(text), replace=True).files
    assert sorted(one.left_out.values()) == [1, 1, 1, 2]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (cvat("<!-- -->").replace("<annotations>", "<!DOCTYPE a [<!ENTITY b 'c'>]><annotations>"),
         "file:2: "),
        (cvat(track("0 1,2", "1 1")), "file:7: "),
        (cvat(track("0 1,2", "x 1,2")), "file:7: "),
        (cvat(track("0 nan,2")), "file:6: "),
        (cvat(track("0 1,2") + track("0 3,2")), "file:9: "),
        (cvat('<image id="0" name="x.png" width="4" height="3"></image>'), "file:5: "),
        (cvat(track("0 1,2"), meta="<flipped>True</flipped>"), "upside down"),
        (cvat().replace("</annotations>", ""), "file:12: "),
        (cvat(track("0 1,2")).replace("<mode>", "<task>").replace("</mode>", "</task>"), "file:4:"),
        (cvat(track("0 41,2")), "beside the picture"),
        (cvat(track("0 1,2"), size=(64, 48)), "64 x 48"),
        (cvat(track("0 1,2")).replace("a.mkv", "z.mkv").replace("my task", "z"), "--video"),
        (cvat("<other/>"), "1 <other>"),
        ("<html></html>", "<html>"),
        ("<" * 3, "file:1: "),
        (cvat().replace('"utf-8"', '"zip"'), "file"),
    ],
)  # fmt: skip
def test_a_fault_of_cvat_names_its_line(text: str, named: str, data: Path) -> None:
    refused(lambda: bring(data, text), named)
    assert not (data / "keypoints.csv").exists()


# -- JSON ------------------------------------------------------------------------------------------


def changed(text: str, path: str, value: Any) -> str:
    """JSON with another value at a path of keys and numbers."""
    root = json.loads(text)
    *above, last = [int(key) if key.isdigit() else key for key in path.split("/")]
    node = root
    for key in above:
        node = node[key]
    node[last] = value
    return json.dumps(root)


LIST = "Models/LandMarkListModel/Points/0/LabelList"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "neither"),
        ("{", "file:1: "),
        ('{"0": {"a": [1, 2, 0], "a": [3, 4, 0]}}', "'a'"),
        ('{"0": {"a": [1, NaN, 0]}}', "NaN"),
        ('{"0": {"a": [1]}}', "0.a "),
        ('{"0": {"a": [1, "2"]}}', "0.a[1] "),
        ('{"0": {"a": [1, 1e999]}}', "0.a[1] "),
        ("[" * 100_000, "deeply"),
        ('{"shapes": []}', "shapes"),
        ("PK\x03\x04", "ZIP"),
        (changed(pair(), f"{LIST}/0/Position", [1]), "Points[0].LabelList[0].Position "),
        (changed(pair(), f"{LIST}/0/Label", -1), "LabelList[0].Label "),
        (changed(pair(), "FileInfo/Width", 41), "41 x 32"),
        (changed(pair(), "Models/ColorLabelTableModel/1/Desc", "neck"), "LabelList[1]"),
        (changed(pair(), "Models/ColorLabelTableModel/1/Desc", "a\x07"), "LabelList[1]"),
        (changed(coco(IN_B), "annotations/0/keypoints", [1, 2, 2]), "annotations[0] "),
        (changed(coco(IN_B), "annotations/0/keypoints/2", 3), "keypoints[2] "),
        (changed(coco(IN_B), "annotations/0/image_id", 1), "annotations[0] "),
        (coco(("0.png", "x/7.png")), "'x'"),
        (coco(("b/0.png", "b/9.png")), "'9.png'"),
        (slicer(), "--spacing"),
        (changed(slicer(), "frame_annotations/0/coordinate_space", "IJK"), "IJK"),
        (changed(slicer(), "frame_annotations/0/pleura_lines/0/rater", "eve"), "eve, tom"),
        (onuvs({0: {"neck": (-0.6, 1)}}), "-0.6"),
        (onuvs({"x": {"neck": (0, 1)}}), "'x'"),
    ],
)  # fmt: skip
def test_a_fault_of_json_names_its_path(text: str, named: str, data: Path) -> None:
    wish = {} if '"images"' in text or "rater" in text else {"video": "a"}
    refused(lambda: bring(data, text, "a.json" if "rater" in text else "file", **wish), named)
    assert not (data / "keypoints.csv").exists()


def test_what_coco_says_of_visibility(data: Path) -> None:
    (one,) = bring(data, coco(IN_B, states=(1, 0))).files
    assert [(row["frame"], row["keypoint"], row["x"], row["visible"]) for row in rows(data)] == [
        ("0.png", "apex", "10", "0"),
        ("2.png", "apex", "11.5", "1"),
        ("2.png", "neck", "5.25", "1"),
    ]
    assert one.hidden == 1 and list(one.left_out.values()) == [1]


def test_lines_of_slicer_by_their_place(data: Path) -> None:
    line = {"rater": "tom", "line": {"points": [[1, 2, 0], [2, 2, 0], [3, 2, 0]]}}
    text = slicer(b_lines=[line, line], angles=[1])
    (one,) = bring(data, text, "a.tom.json", spacing=(1, 1)).files
    kinds = ("pleura_1", "b_line_1", "b_line_2")
    assert one.points == {f"{kind}_{end}": 2 for kind in kinds for end in ("start", "end")}
    assert sorted(one.left_out.values()) == [2, 4]
