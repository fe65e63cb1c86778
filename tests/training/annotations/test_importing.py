"""Files of each tool become the same rows; what cannot be right is refused, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from annotation_files import CLIP, POINTS, SIZE, coco, cvat, onuvs, pair, slicer
from dicom_files import region, write_dicom

from sonomime.cli import main
from sonomime.runtime.support.errors import ConfigError
from sonomime.training.annotations.commands import FORMATS
from sonomime.training.annotations.formats import READERS, read_annotations
from sonomime.training.annotations.importing import Wish, import_annotations
from sonomime.training.data.clip_frames import load_clip
from sonomime.training.data.dataset import find_clips

from .bringing import IN_B, bring, labels, refused

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
