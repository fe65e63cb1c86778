"""From files to a file: what is said of the inputs, and what of them the output keeps."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from media_files import noise
from toy_bundle import blob, make_toy_bundle

from sonomime.cli import main
from sonomime.runtime import Animator
from sonomime.runtime.media.frames import Crop
from sonomime.runtime.pipeline import Done, Job, animate_files
from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.readers.reading import Reading
from sonomime.runtime.support.errors import ConfigError, InputError

MakeVideo = Callable[..., Path]


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toy_bundle(tmp_path_factory.mktemp("bundles") / "layered", layers=True)


@pytest.fixture
def files(tmp_path: Path, make_video: MakeVideo) -> Path:
    """still.png, colour.png, and clip.mkv of 12 frames."""
    cv2.imwrite(str(tmp_path / "still.png"), noise(64, 64))
    cv2.imwrite(str(tmp_path / "colour.png"), np.dstack([noise(64, 64), *[noise(64, 64) // 4] * 2]))
    images = [blob(64, x / 20, 0) for x in range(-6, 6)]
    make_video(tmp_path / "clip.mkv", images, "ffv1", "gray")
    return tmp_path


def make(bundle: Path, folder: Path, output: str, **options: Any) -> Done:
    job = {"source": folder / "still.png", "driving": folder / "clip.mkv", **options}
    with Animator.open(bundle, threads=1) as animator:
        return animate_files(animator, Job(output=folder / output, **job))


def test_what_was_read_is_said_before_work_and_is_in_the_result(
    layered: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [files / "still.png", files / "clip.mkv", "-o", files / "out.mkv", "--bundle", layered]
    code = main(["animate", *map(str, words), "--json", "--crop", "0,0,64,48"])
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert code == 0 and not said["damaged"]
    assert (said["read_source"]["kind"], said["read_source"]["size"]) == ("PNG", [64, 64])
    assert (said["read_driving"]["frames"], said["read_driving"]["region"]) == (12, [0, 0, 64, 48])
    lines = err.splitlines()
    source, driving, done = (
        next(i for i, line in enumerate(lines) if line.startswith(begin))
        for begin in ("source ", "driving ", "12 frames")
    )
    assert source < driving < done


def test_a_damaged_clip_is_animated_as_far_as_it_is_good(
    layered: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = files / "clip.mkv"
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 2 // 3])
    words = [files / "still.png", clip, "--bundle", layered, "-o"]
    for more, code in (([], 8), (["--on-damage", "stop"], 6), (["--strict"], 6)):
        output = files / f"out{len(more)}.mkv"
        assert main(["animate", *map(str, words), str(output), *more]) == code
        assert output.exists() == (code == 8)
    assert 0 < len(list(open_source(files / "out0.mkv"))) < 12
    capsys.readouterr()
    assert main(["inspect", str(clip), "--json"]) == 8
    found = json.loads(capsys.readouterr().out)
    assert found["frames"] == found["damage"]["frame"] < 12


def test_the_sources_colours_are_kept_or_it_is_an_error(
    layered: Path, toy_bundle: Path, files: Path
) -> None:
    colour = {"source": files / "colour.png", "mark": False}
    assert make(layered, files, "a.mkv", keep_colour=True, **colour).frames == 12
    frame = next(iter(open_source(files / "a.mkv", channels=3))).image
    assert np.ptp(frame.astype(int), axis=2).mean() > 50
    assert len(make(toy_bundle, files, "b.mkv", **colour).read_source.notes) == 1
    with pytest.raises(ConfigError):
        make(toy_bundle, files, "c.mkv", keep_colour=True, **colour)
    assert make(toy_bundle, files, "d.mkv", keep_colour=True).frames == 12, "a grey source"


def test_dicom_keeps_the_sources_region_and_millimetres_and_nobodys_name(
    layered: Path, files: Path
) -> None:
    pydicom = pytest.importorskip("pydicom")
    from dicom_files import region, write_dicom

    images = [noise(80, 100, seed=i) for i in range(2)]
    parts = [region(10, 20, 73, 67), region(80, 0, 99, 40, space=3)]
    named = {"SequenceOfUltrasoundRegions": parts, "PatientName": "Doe^Jane"}
    source = write_dicom(files / "a.dcm", images, BurnedInAnnotation="NO", **named)
    done = make(layered, files, "out.dcm", source=source, size=(32, 24), mark=False)
    assert done.read_source.region == Crop(10, 20, 64, 48) and done.read_source.regions == 2
    made = pydicom.dcmread(files / "out.dcm")
    assert (made.Columns, made.Rows, made.NumberOfFrames) == (32, 24, 12)
    assert made.SyntheticData == "YES" and made.BurnedInAnnotation == "NO"
    assert "Doe" not in str(made)
    read = open_source(files / "out.dcm").facts
    assert read.spacing == pytest.approx((0.4, 0.4)) and read.fps == pytest.approx(25)
    write_dicom(files / "b.dcm", images, BurnedInAnnotation="YES", **named)
    burned = {"source": files / "b.dcm", "mark": False}
    with pytest.raises(InputError):
        make(layered, files, "out2.dcm", **burned)
    make(layered, files, "out2.dcm", allow_burned_in=True, **burned)
    assert pydicom.dcmread(files / "out2.dcm").BurnedInAnnotation == "YES"
    with pytest.raises(ConfigError):
        make(layered, files, "out3.dcm", side_by_side=True)


def test_metaimage_keeps_times_and_millimetres(layered: Path, files: Path) -> None:
    (files / "a.mha").write_bytes(
        b"ObjectType = Image\nNDims = 2\nDimSize = 64 64\nElementSpacing = 0.3 0.3\n"
        b"ElementType = MET_UCHAR\nElementDataFile = LOCAL\n" + noise(64, 64).tobytes()
    )
    rate = Reading(fps=Fraction(10))
    make(layered, files, "out.mha", source=files / "a.mha", read_driving=rate)
    read = open_source(files / "out.mha")
    assert read.facts.spacing == pytest.approx((0.3, 0.3))
    assert [frame.timestamp for frame in read] == pytest.approx(np.arange(12) / 10)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mha", "a.dcm", "a"])
def test_what_was_made_here_is_known_again(layered: Path, files: Path, name: str) -> None:
    if name == "a.dcm":
        pytest.importorskip("pydicom")
    made = make(layered, files, name).output
    notes = open_source(made).facts.notes
    assert [note for note in notes if "synthetic" in note], notes
    assert not any("synthetic" in note for note in open_source(files / "clip.mkv").facts.notes)
