"""What we write as DICOM is read the same, and says what it is."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from dicom_files import (
    GREY,
    times,
)
from media_files import noise

from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.readers.reading import Facts
from sonomime.runtime.sinks import dicom as dicom_sink
from sonomime.runtime.sinks.dicom import may_show_somebody
from sonomime.runtime.sinks.open_sink import open_sink
from sonomime.runtime.support.errors import InputError, OutputError

pydicom = pytest.importorskip("pydicom")


@pytest.mark.parametrize("shape", [(33, 65), (33, 65, 3)])
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([0, 0.04, 0.0803, 0.12], [0, 0.04, 0.08, 0.12]),  # even but for rounding
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
    assert np.allclose([frame.timestamp for frame in read], kept, atol=1e-5)
    assert source.facts.spacing == pytest.approx((0.3, 0.3)) and len(source.facts.notes) == 1, (
        "synthetic"
    )
    assert source.facts.burned_in is None
    header = pydicom.dcmread(path)
    assert header[0x0008001C].value == "YES" and header.ImageType == ["DERIVED", "SECONDARY"]
    assert (header.PatientName, header.SeriesDescription) == ("SYNTHETIC^ULTRASOUND", "Grüße")
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
