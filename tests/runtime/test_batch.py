"""Many clips at once: rows, what is refused, what fails, and what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import pytest
from toy_bundle import blob

from sonomime.cli import main
from sonomime.runtime.support.process import Terminated


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a still, driving clips of 6 and 300 frames, and landmarks."""
    folder = tmp_path / "media"
    frames = [cv2.imencode(".png", blob(64, x / 20, 0))[1].tobytes() for x in range(-5, 5)]
    for name, count in (("short", 6), ("long", 300)):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            (folder / name / f"{i}.png").write_bytes(frames[i % 10])
    (folder / "still.png").write_bytes(frames[5])
    (folder / "marks.csv").write_text("image,keypoint,x,y\nsource,a,9,9\nreference,a,3,4\n")
    return folder


def table(folder: Path, text: str) -> str:
    path = folder / "t.csv"
    path.write_text(text)
    return str(path)


def run(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, list[Any], str]:
    """(exit code, records by line, errors) of a batch."""
    code = main(["animate", "--json", *map(str, words)])
    out, errors = capsys.readouterr()
    return code, sorted(map(json.loads, out.splitlines()), key=lambda row: row["line"]), errors


def test_each_row_has_its_own_options_and_a_failure_leaves_the_others(
    folder: Path, displacement_toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    rows = (
        "output,source,driving,reference,side-by-side,landmarks,no-mark,scale,debug-picture\n"
        "out/a.png,still.png,still.png,,,marks.csv,yes,,d.png\n"
        "out/b,still.png,short,2,yes,none,,2,\n"
        f"out/c.mp4,{folder}/still.png,missing.mp4,,,,,,\n"
        "\n"
        "out/d,still.png,short,,no,,,,\n"
        "out/e,still.png,short,,,,,99,\n"
    )
    words = ("--batch", table(folder, rows), "--bundle", displacement_toy, "--jobs", 2)
    words += ("--reference", 1)  # of the rows that do not say
    code, (a, b, c, d, e), errors = run(capsys, *words, "--on-damage", "stop")
    assert code == 8, errors
    assert [row["state"] for row in (a, b, c, d, e)] == [
        "failed",
        "made",
        "failed",
        "made",
        "failed",
    ]
    assert [row["line"] for row in (a, b, c, d, e)] == [2, 3, 4, 6, 7]
    assert a["exit_code"] == 6, "the still has no frame 1"
    assert (b["reference"], d["reference"]) == (2, 1)
    assert b["size"][0] > d["size"][0] and b["frames"] == d["frames"] == 6
    assert "not aligned" in b["alignment"] != d["alignment"]
    assert (c["exit_code"], e["exit_code"]) == (6, 2) and "scale" in e["error"]
    for line in (2, 4, 7):
        assert f"t.csv:{line}: " in errors and "hint: " in errors
    assert "missing.mp4" in errors and "2 made, 0 skipped, 3 failed" in errors

    made = {path: path.read_bytes() for path in (folder / "out").rglob("*.png")}
    assert len(made) == 12
    table(folder, rows.replace(",still.png,,,marks.csv", ",still.png,0,,marks.csv"))
    code, (a, b, c, d, e), errors = run(capsys, *words)
    assert [row["state"] for row in (a, b, d)] == ["made", "skipped", "skipped"]
    assert "aligned by a" in a["alignment"] and (folder / "d.png").is_file()
    assert any("mark is left out" in text for text in a["warnings"])
    assert "t.csv:3: " in errors and "is there already, skipped" in errors
    assert all(path.read_bytes() == data for path, data in made.items())
    main(["animate", str(folder / "still.png"), str(folder / "short"), "-o", "plain", "--bundle",
          str(displacement_toy), "--reference", "1"])  # fmt: skip
    plain = {path.name: path.read_bytes() for path in Path("plain").iterdir()}
    assert plain == {path.name: path.read_bytes() for path in (folder / "out/d").iterdir()}


def test_paths_are_printed_and_templates_are_named(
    folder: Path, toy_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "source,driving,output\nstill.png,breathing,a.mp4\nstill.png,short,b\n"
    words = ["animate", "--batch", table(folder, rows), "--bundle", str(toy_bundle)]
    assert main(words) == 8
    out, errors = capsys.readouterr()
    assert out == f"{folder / 'b'}\n"
    assert "t.csv:2: " in errors and "breathing does not exist" not in errors
    assert main([*words, "--jobs", "3"]) == 8


@pytest.mark.parametrize(
    ("rows", "said", "hint"),
    [
        (
            "source,driving\na,b\n",
            "t.csv:1: column 'output' is missing",
            "source,driving,output",
        ),
        ("source,driving,output,refrence\n", "t.csv:1: unknown column 'refrence'", ""),
        ("source,driving,output,bundle\n", "t.csv:1: unknown column 'bundle'", ""),
        ("source,driving,output\n", "t.csv: no row", "row"),
        ("source,driving,output\na,b,c\n\na,,d\n", "t.csv:4: the cell of 'driving'", "path"),
        ("source,driving,output,size\na,b,c,64\n", "t.csv:2: ", "800x600"),
        ("source,driving,output,motion\na,b,c,up\n", "t.csv:2: argument --motion", "columns"),
        ("source,driving,output,smooth\na,b,c,maybe\n", "t.csv:2: smooth is 'maybe'", "yes"),
        ("source,driving,output,landmarks\na,b,c,l.csv\n", "media/l.csv", "image,keypoint"),
        ("source,driving,output,motion,scale\na,b,c,absolute,2\n", "t.csv:2: --scale", "leave"),
        ("source,driving,output\na,b,c\na,b,./c\n", "line 2", "own"),
        ("source,driving,output\na,b,c\nc,b,d\n", "t.csv:3: ", "two tables"),
        (None, "none.csv: cannot be read", "path"),
    ],
)
def test_a_faulty_table_is_refused_before_anything_is_made(
    folder: Path, capsys: pytest.CaptureFixture[str], rows: str | None, said: str, hint: str
) -> None:  # fmt: skip
    before = set(folder.rglob("*"))
    path = str(folder / "none.csv") if rows is None else table(folder, rows)
    assert main(["animate", "--batch", path]) == 6
    out, errors = capsys.readouterr()
    message, advice = errors.splitlines()
    assert out == "" and said in message and advice.startswith("hint: ") and hint in advice
    assert set(folder.rglob("*")) - before <= {folder / "t.csv"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--batch t.csv a b", "source"), ("--batch t.csv -o c", "output"),
        ("a b -o c --jobs 2", "--jobs"), ("a b -o c --ray auto", "--ray"),
        ("--batch t.csv --jobs 0", "--jobs"), ("--batch t.csv --debug-picture d.png", "column"),
        ("--batch t.csv --ray local --device 0", "--device"),
        ("--batch t.csv --ray local --threads 0", "threads"), ("a -o c", "DRIVING"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together(
    folder: Path, capsys: pytest.CaptureFixture[str], words: str, said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    table(folder, "source,driving,output\nstill.png,short,x\n")
    assert main(["animate", *words.split()]) == 2
    assert said in capsys.readouterr().err
    assert not (folder / "x").exists()


def test_a_model_that_cannot_be_opened_is_no_failure_of_rows(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = table(folder, "source,driving,output\nstill.png,short,x\n")
    assert main(["animate", "--batch", path, "--bundle", "nowhere"]) == 3
    assert str(Path.cwd() / "nowhere") in capsys.readouterr().err


def test_without_ray_the_extra_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    path = table(folder, "source,driving,output\nstill.png,short,x\n")
    assert main(["animate", "--batch", path, "--ray", "local"]) == 4
    assert 'pip install "sonomime[ray]"' in capsys.readouterr().err


# -- a kill ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_kill_leaves_whole_files_alone_and_the_next_run_makes_the_rest(
    folder: Path, toy_bundle: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    rows = "source,driving,output\nstill.png,short,out/0.mp4\n"
    rows += "".join(f"still.png,long,out/{i}.mp4\n" for i in range(1, 4))
    words = ["--batch", table(folder, rows), "--bundle", str(toy_bundle), "--jobs", "2"]
    command = [sys.executable, "-m", "sonomime.cli", "animate", *words]
    out = folder / "out"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=sys.prefix) as process:
        give_up = time.monotonic() + 120
        while not (finished(out) and half_written(out)):
            assert process.poll() is None and time.monotonic() < give_up
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        while half_written(out):  # its workers notice, and clean up
            assert time.monotonic() < give_up
            time.sleep(0.01)
        assert process.returncode == -number
    else:
        assert process.returncode == (130 if number == signal.SIGINT else Terminated(15).exit_code)
        assert "Traceback" not in errors and errors.splitlines()[-1].startswith("error: "), errors
    assert half_written(out) == []
    before = {name: (out / name).stat().st_mtime_ns for name in finished(out)}
    assert 0 < len(before) < 4
    code, records, errors = run(capsys, *words)
    assert code == 0, errors
    states = {Path(record["output"]).name: record["state"] for record in records}
    assert states == {f"{i}.mp4": "skipped" if f"{i}.mp4" in before else "made" for i in range(4)}
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert sorted(os.listdir(out)) == sorted(states)


def finished(out: Path) -> list[str]:
    return [name for name in os.listdir(out) if name[0] != "."] if out.exists() else []


def half_written(out: Path) -> list[str]:
    return [name for name in os.listdir(out) if name[0] == "."] if out.exists() else []
