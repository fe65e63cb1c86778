"""Files of each tool become the same rows; what cannot be right is refused, and nothing is lost."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_files import CLIP, POINTS, SIZE, coco, cvat, onuvs, pair, slicer
from dicom_files import region, write_dicom

from sonomime.cli import main
from sonomime.runtime.support.errors import ConfigError, InputError
from sonomime.training.annotations.commands import FORMATS
from sonomime.training.annotations.formats import READERS, read_annotations
from sonomime.training.annotations.importing import Imported, Wish, import_annotations
from sonomime.training.data.clip_frames import load_clip
from sonomime.training.data.dataset import find_clips

Labels = dict[int, dict[str, tuple[float, float]]]


def bring(data: Path, text: str, name: str = "file", **wish: Any) -> Imported:
    file = data.parent / name
    file.write_text(text)
    return import_annotations([file], data, Wish(**wish))


def labels(data: Path, clip: str = CLIP) -> Labels:
    """As training reads them."""
    return next(c for c in find_clips([data]).clips if c.name == clip).keypoints


def rows(data: Path) -> list[dict[str, str]]:
    with (data / "keypoints.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def refused(use: Callable[[], object], *said: str) -> None:
    with pytest.raises(InputError) as caught:
        use()
    assert caught.value.hint
    assert [word for word in said if word not in caught.value.message + caught.value.hint] == []


IN_B = ("b/0.png", "b/2.png")
ENDS = {"pleura_1_start": "neck", "pleura_1_end": "apex"}
SAME: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    # name: (text, format, clip, wish)
    "pair": (pair(), "pair", CLIP, {}),
    "pair of an older version": (pair(older=True), "pair", CLIP, {}),
    "cvat": (cvat(), "cvat", CLIP, {}),
    "coco": (coco(IN_B), "coco", "b", {}),
    "coco, the folder told": (coco(("0.png", "2.png")), "coco", "b", {"video": "b"}),
    "coco, frames by number": (coco(("a/img_0000.jpg", "a/img_0002.jpg")), "coco", CLIP, {}),
    "onuvs": (onuvs(), "onuvs", CLIP, {"video": "a"}),
    "onuvs by name": (onuvs({f"{t}.png": p for t, p in POINTS.items()}), "onuvs", "b", {}),
    "onuvs by stem": (onuvs({f"c{t}": p for t, p in POINTS.items()}), "onuvs", "c",
                      {"video": "c"}),
    "slicer": (slicer(), "slicer", CLIP, {"spacing": (0.5, 0.25), "rename": ENDS}),
    "slicer, RAS": (slicer(space="RAS"), "slicer", CLIP, {"spacing": (0.5, 0.25), "rename": ENDS}),
    "slicer, older": (slicer(space=""), "slicer", CLIP, {"spacing": (0.5, 0.25), "rename": ENDS}),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME)
def test_every_format_gives_the_same_points(case: str, data: Path) -> None:
    text, kind, clip, wish = SAME[case]
    done = bring(data, text, "a.tom.json", **wish)
    (one,) = done.files
    found = {t: places for t, places in labels(data, clip).items() if t in POINTS}
    assert found.keys() == POINTS.keys()
    for frame, places in POINTS.items():
        assert found[frame].keys() == places.keys()
        for name, at in places.items():
            assert found[frame][name] == pytest.approx(at, abs=1e-3)
    assert one.format == kind and one.clips.keys() == {clip}
    assert (done.replaced, done.same, done.kept) == (0, 0, 0)
    if kind != "cvat":  # that interpolates
        assert done.added == 4 and one.points == {"apex": 2, "neck": 2}
    for frames in find_clips([data]).clips:
        load_clip(frames, 32, 1)


def test_formats_are_named_alike() -> None:
    assert tuple(READERS) == FORMATS


@pytest.mark.parametrize("kind", ["pair", "coco", "onuvs", "cvat"])
def test_the_origin_can_be_told(kind: str, data: Path) -> None:
    text, _, clip, wish = SAME[kind]
    corner = kind != "cvat"
    bring(data, text, corner=corner, **wish)
    x, y = POINTS[0]["apex"]
    by = -0.5 if corner else 0.5
    assert labels(data, clip)[0]["apex"] == pytest.approx((x + by, y + by))


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
        ('{"a":' * 90 + "1" + "}" * 90, "deeply"),
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


def test_millimetres_are_those_of_the_clip(data: Path) -> None:
    """A DICOM says how large a pixel is: its region's, in centimetres."""
    pytest.importorskip("pydicom")
    spacing = {"PhysicalDeltaX": 0.05, "PhysicalDeltaY": 0.05}
    spacing |= {"PhysicalUnitsXDirection": 3, "PhysicalUnitsYDirection": 3}
    where = region(0, 0, SIZE[0] - 1, SIZE[1] - 1, **spacing)
    images = np.random.default_rng(0).integers(0, 256, (4, SIZE[1], SIZE[0]), dtype=np.uint8)
    write_dicom(data / "1.2.40.dcm", images, SequenceOfUltrasoundRegions=[where])
    for name in ("1.2.40.json", "1.2.40.tom.json"):
        done = bring(data, slicer((0.5, 0.5)), name)
        assert done.files[0].clips == {"1.2.40.dcm": 2}
    places = labels(data, "1.2.40.dcm")[2]
    assert places["pleura_1_start"] == pytest.approx(POINTS[2]["neck"], abs=1e-3)
    assert places["pleura_1_end"] == pytest.approx(POINTS[2]["apex"], abs=1e-3)


def test_pixels_that_are_not_square_are_said(data: Path) -> None:
    header = f"NDims = 3\nDimSize = 20 {SIZE[1]} 2\nElementSpacing = 0.2 0.1 1\n"
    (data / "m.mhd").write_text(f"{header}ElementType = MET_UCHAR\nElementDataFile = m.raw\n")
    (data / "m.raw").write_bytes(np.arange(2 * 20 * SIZE[1], dtype=np.uint8).tobytes())
    (one,) = bring(data, onuvs({0: {"neck": (39, 1)}}), video="m").files
    assert any("not square" in note for note in one.notes)
    refused(lambda: bring(data, coco(("m/0.png", "m/1.png")).replace("40", "20")), "40 x 32")


def test_lines_of_slicer_by_their_place(data: Path) -> None:
    line = {"rater": "tom", "line": {"points": [[1, 2, 0], [2, 2, 0], [3, 2, 0]]}}
    text = slicer(b_lines=[line, line], angles=[1])
    (one,) = bring(data, text, "a.tom.json", spacing=(1, 1)).files
    kinds = ("pleura_1", "b_line_1", "b_line_2")
    assert one.points == {f"{kind}_{end}": 2 for kind in kinds for end in ("start", "end")}
    assert sorted(one.left_out.values()) == [2, 4]


# -- the table -------------------------------------------------------------------------------------

HEADER = "video,frame,keypoint,x,y,visible\n"


def test_rows_are_merged_and_replaced_only_when_that_is_asked(data: Path) -> None:
    old = f"{HEADER}b,0.png,neck,1,1,1\na.mkv,0,neck,9,9,1\na.mkv,00,apex,10.001,12,1\n"
    (data / "keypoints.csv").write_text(old)
    refused(lambda: bring(data, pair()), "1 rows", "--replace", "line 3")
    assert (data / "keypoints.csv").read_text() == old
    done = bring(data, pair(), replace=True)
    assert (done.added, done.replaced, done.same, done.kept) == (2, 1, 1, 1)
    assert labels(data)[0] == {"neck": (3.25, 4.5), "apex": (10.001, 12)}
    assert labels(data, "b") == {0: {"neck": (1, 1)}}
    done = bring(data, pair())
    assert (done.added, done.replaced, done.same, done.kept) == (0, 0, 4, 1)


def test_several_files_of_one_clip(data: Path) -> None:
    one, other = data.parent / "one.json", data.parent / "other.json"
    one.write_text(onuvs({0: {"neck": (1, 2)}}))
    other.write_text(onuvs({0: {"neck": (1, 2), "apex": (5, 5)}}))
    wish = Wish(video=CLIP)
    assert import_annotations([one, other], data, wish).added == 2
    other.write_text(onuvs({0: {"neck": (4, 2)}}))
    refused(lambda: import_annotations([one, other], data, wish), "other.json: 0.neck", "one.json")


def test_names_are_changed(data: Path) -> None:
    assert bring(data, pair(), rename={"neck": "bladder neck"}).files[0].points == {
        "apex": 2, "bladder neck": 2,
    }  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        bring(data, pair(), rename={"nekc": "neck"})
    assert "'neck'" in caught.value.hint


@pytest.mark.parametrize("video", ["z", "b/z", "../a.mkv.x"])
def test_a_clip_that_there_is_not(video: str, data: Path) -> None:
    refused(lambda: bring(data, onuvs(), video=video), "--video")


def test_a_clip_is_found_by_its_path_name_or_stem(data: Path) -> None:
    (data / "deep").mkdir()
    (data / "a.mkv").rename(data / "deep" / "a.mkv")
    for video in ("deep/a.mkv", r"C:\lab\a.mkv", "a", "a.avi"):
        (one,) = bring(data, onuvs(), video=video).files
        assert one.clips == {"deep/a.mkv": 2}
    (data / "other").mkdir()
    (data / "other" / "a.mkv").write_bytes((data / "deep" / "a.mkv").read_bytes())
    refused(lambda: bring(data, onuvs(), video="a.mkv"), "deep/a.mkv, other/a.mkv")
    refused(lambda: bring(data, onuvs()), "--video")


def test_files_that_cannot_be_read(data: Path, tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        refused(lambda: read_annotations(path), str(path))  # noqa: B023
    refused(lambda: import_annotations([tmp_path], data / "a.mkv", Wish()), "a.mkv")


def test_the_command(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = data.parent / "file.json"
    file.write_text(onuvs())
    words = ["annotations", "import", str(file), "--data", str(data), "--video", "a"]
    assert main([*words, "--rename", "neck=n", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["added"] == 4 and record["files"][0]["points"] == {"apex": 2, "n": 2}
    assert main(words) == 0
    assert "a.mkv: labelled frames: 2" in capsys.readouterr().out
    for more, code in (
        (["--rename", "neck"], 2), (["--spacing", "1"], 2), (["--spacing", "0,1"], 2),
        (["--format", "cvat"], 6), (["--origin", "corner"], 6),
    ):  # fmt: skip
        assert main([*words, *more]) == code
    assert main([*words, "--origin", "corner", "--replace"]) == 0


def test_it_needs_no_torch(data: Path) -> None:
    (data.parent / "f.json").write_text(pair())
    words = ["annotations", "import", str(data.parent / "f.json"), "--data", str(data)]
    code = "import sys; sys.modules['torch'] = None; from sonomime.cli import main; "
    code += f"sys.exit(main({words!r}) or main(['annotations', 'check', {str(data)!r}]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=sys.prefix)
    assert done.returncode == 0, done.stderr
