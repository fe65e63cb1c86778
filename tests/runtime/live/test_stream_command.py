"""`sonomime stream` as a process: what it writes and says, signals, kills, full disks, orders."""

from __future__ import annotations

import json
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from live_feeds import until
from toy_bundle import blob

from sonomime.cli import main
from sonomime.runtime.live.errands import ENDED
from sonomime.runtime.live.feed import Feed
from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.sinks.open_sink import open_sink
from sonomime.runtime.still import SAMPLES


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    folder = tmp_path / "clip"
    folder.mkdir()
    for i in range(12):
        cv2.imwrite(str(folder / f"{i:02}.png"), blob(64, -0.2 + 0.03 * i, 0))
    return folder


@pytest.fixture
def words(toy_bundle: Path, clip: Path, tmp_path: Path) -> list[str]:
    """Without where the frames go."""
    cv2.imwrite(str(tmp_path / "still.png"), blob(64, 0, 0))
    cv2.imwrite(str(tmp_path / "other.png"), blob(64, 0.2, 0.2))
    still = ["stream", "--source", str(tmp_path / "still.png"), "--bundle", str(toy_bundle)]
    return [*still, "--driving", str(clip), "--fps", "50", "--backend", "cpu", "--threads", "1"]


@pytest.fixture
def begin(repository: Path) -> Any:
    running: list[subprocess.Popen[str]] = []

    def begin(words: list[str], **more: Any) -> subprocess.Popen[str]:
        code = "import sys; from sonomime.cli import main; sys.exit(main())"
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [sys.executable, "-c", code, *words],
            stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=repository, **more,
        )  # fmt: skip
        running.append(process)
        return process

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def test_an_unpaced_stream_is_what_animate_makes(
    words: list[str], tmp_path: Path, clip: Path, toy_bundle: Path, capsys: Any
) -> None:
    assert main([*words, "--unpaced", "--record", str(tmp_path / "a.mkv"), "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["frames"] == 12 and last["frames_by_state"] == {"live": 12}
    assert last["dropped"] == {"driving": 0, str(tmp_path / "a.mkv"): 0}
    wanted = tmp_path / "b.mkv"
    still = str(tmp_path / "still.png")
    bundle = ["--bundle", str(toy_bundle), "--fps", "50", "--backend", "cpu"]
    assert main(["animate", still, str(clip), "-o", str(wanted), *bundle]) == 0
    pairs = list(zip(open_source(tmp_path / "a.mkv"), open_source(wanted), strict=True))
    assert len(pairs) == 12
    for found, each in pairs:
        assert np.array_equal(found.image, each.image)
        assert found.timestamp == pytest.approx(each.timestamp, abs=1e-4)


def test_a_cut_in_an_unpaced_clip_adds_no_frame(
    words: list[str], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrived = Feed.arrived
    monkeypatch.setattr(
        Feed, "arrived", lambda feed, *frame: (time.sleep(0.05), arrived(feed, *frame))
    )  # reading takes long
    images = [blob(64, 0.02 * i, 0) for i in range(6)]
    images += [255 - image for image in images]
    with open_sink(tmp_path / "cut.mkv", (64, 64), 1, 20) as sink:
        for image in images:
            sink.write(image)
    words[words.index("--driving") + 1] = str(tmp_path / "cut.mkv")
    assert main([*words, "--unpaced", "--record", str(tmp_path / "a.mkv"), "--json"]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["frames"] == 12 and last["frames_by_state"].keys() <= {"live", "doubtful"}
    times = [frame.timestamp for frame in open_source(tmp_path / "a.mkv")]
    assert np.allclose(np.diff(times), 0.02, atol=1e-3)


def test_frames_have_somewhere_to_go_and_options_make_sense(
    words: list[str], tmp_path: Path
) -> None:
    def code(*more: str) -> int:
        return main([*words, *more])

    assert code() == 2
    there = ["--shm", "sonomime-none"]
    assert code(*there, "--seconds", "0") == 2
    assert code(*there, "--source-every", "3") == 2
    assert code(*there, "--reference", "best") == 2
    assert code("--openigtlink", "nowhere") == 2
    assert code("--openigtlink", "igtl://host") == 2
    assert code(*there, "--size", "640x64") == 2
    assert code("--record", "out.xyz") == 2
    assert code("--record", str(tmp_path / "one.png")) == 2
    full = tmp_path / "full"
    full.mkdir()
    assert code("--record", str(full / "new"), "--size", "640x64") == 2  # not for the place
    (full / "0.png").touch()
    assert code("--record", str(full)) == 7
    assert main([*words[:2], "no-such.png", *words[3:], *there]) == 6


def test_a_port_in_use_is_said_at_once(words: list[str], capsys: Any, tmp_path: Path) -> None:
    pytest.importorskip("fastcrc")
    pytest.importorskip("aiohttp")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main([*words, "--openigtlink", str(port)]) == 6
        # Not that there is nothing to record.
        taken_too = ["--record", str(tmp_path / "out.mkv"), "--openigtlink", "0", "--shm", "none"]
        assert main([*words, *taken_too, "--http", str(port)]) == 6
    assert not list(tmp_path.glob("out*"))
    assert str(port) in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_finishes_every_file(
    words: list[str], tmp_path: Path, begin: Callable[..., Any], number: int, code: int
) -> None:
    outputs = [tmp_path / "out.mkv", tmp_path / "out.mp4"]
    process = begin([*words, "--loop", "--record", str(outputs[0])])
    second = begin([*words, "--loop", "--record", str(outputs[1])])
    for output in outputs:
        part = output.with_name(output.name + ".part")
        until(lambda part=part: part.exists() and part.stat().st_size > 3000)
    for each in (process, second):
        each.send_signal(number)
        assert each.wait(60) == code, each.stderr.read()
    for output in outputs:
        assert sum(1 for _ in open_source(output)) > 3
        assert not output.with_name(output.name + ".part").exists()


def test_a_kill_leaves_a_part_that_can_be_played(
    words: list[str], tmp_path: Path, begin: Callable[..., Any]
) -> None:
    output = tmp_path / "out.mkv"
    process = begin([*words, "--loop", "--record", str(output)])
    part = tmp_path / "out.mkv.part"
    until(lambda: part.exists() and part.stat().st_size > 20_000)
    process.kill()
    process.wait(60)
    assert not output.exists()
    times = [frame.timestamp for frame in open_source(part)]
    assert len(times) > 5 and times == sorted(times)
    assert main([*words, "--unpaced", "--record", str(output)]) == 7, "the part is kept"
    assert part.exists()


def test_a_full_disk_ends_the_recording_and_is_said(
    words: list[str], tmp_path: Path, begin: Callable[..., Any]
) -> None:
    output = tmp_path / "out.mkv"

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    process = begin([*words, "--loop", "--record", str(output)], preexec_fn=small_files)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 7 and "out.mkv" in said and "Traceback" not in said
    assert not output.exists()
    assert sum(1 for _ in open_source(tmp_path / "out.mkv.part")) > 3


def test_orders_come_by_standard_input_and_lines_of_json_go_out(
    words: list[str], begin: Callable[..., Any], tmp_path: Path
) -> None:
    process = begin([*words, "--loop", "--shm", f"sonomime-{tmp_path.name}", "--json"])
    lines = iter(process.stdout.readline, "")
    until(lambda: json.loads(next(lines))["state"] == "live")
    process.stdin.write("source other.png\npause\n\nnonsense\n")
    process.stdin.flush()
    held = until(lambda: (now := json.loads(next(lines)))["state"] == "held" and now)
    assert held["why"] == "paused"
    process.stdin.write("stop\n")
    process.stdin.flush()
    assert process.wait(60) == 0
    said = process.stderr.read().splitlines()
    assert sum(line in ("ok", ENDED) for line in said) >= 3  # the source may not be ready yet
    assert any("nonsense" in line for line in said)


def test_a_damaged_clip_is_streamed_as_far_as_it_goes(
    words: list[str], tmp_path: Path, clip: Path
) -> None:
    (clip / "07.png").write_bytes((clip / "07.png").read_bytes()[:80])
    out = tmp_path / "out.mkv"
    assert main([*words, "--unpaced", "--record", str(out)]) == 8
    assert sum(1 for _ in open_source(out)) == 7
    assert main([*words, "--unpaced", "--record", str(out)]) == 7, "it is there already"
    out = tmp_path / "other.mkv"
    assert main([*words, "--unpaced", "--record", str(out), "--on-damage", "stop"]) == 6


def test_a_clip_that_is_cut_short_while_it_plays(
    words: list[str], tmp_path: Path, begin: Callable[..., Any], clip: Path
) -> None:
    """Frames come until there are no more; then the stream ends, and its file is whole."""
    playing = tmp_path / "playing.mp4"
    playing.write_bytes((SAMPLES / "driving.mp4").read_bytes())
    words[words.index(str(clip))] = str(playing)
    process = begin([*words, "--record", str(tmp_path / "out.mkv"), "--json"])
    lines = iter(process.stdout.readline, "")
    until(lambda: json.loads(next(lines))["state"] == "live")
    with playing.open("r+b") as file:
        file.truncate(5000)
    assert process.wait(60) in (0, 8)
    assert sum(1 for _ in open_source(tmp_path / "out.mkv")) > 3


def test_the_clock_of_the_wall_may_jump(
    words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real, calls = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() + (-1e6 if next(calls) % 2 else 1e6))
    assert main([*words, "--record", str(tmp_path / "out.mkv")]) == 0
    times = [frame.timestamp for frame in open_source(tmp_path / "out.mkv")]
    assert 0.1 < times[-1] < 30 and times == sorted(times)


def test_a_doubtful_picture_says_so(tmp_path: Path, capsys: Any) -> None:
    """With the default model: a muscle, and after a cut a lung."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    for name in ("driving.mp4", "lung.mp4"):
        for frame in list(open_source(SAMPLES / name))[:8]:
            image = cv2.resize(frame.image, (128, 128))
            cv2.imwrite(str(folder / f"{len(list(folder.iterdir())):02}.png"), image)
    doubtful = {}
    for cut in ("ignore", "reset"):
        out = tmp_path / f"{cut}.mkv"
        assert main(
            ["stream", "--source", str(SAMPLES / "still.png"), "--driving", str(folder),
             "--unpaced", "--on-cut", cut, "--record", str(out), "--threads", "1", "--fps", "10",
             "--json"]
        ) == 0  # fmt: skip
        states = json.loads(capsys.readouterr().out.splitlines()[-1])["frames_by_state"]
        assert sum(states.values()) == 16
        doubtful[cut] = states.get("doubtful", 0)
        last = list(open_source(out))[-1].image
        says = (last[:20, :60] > 200).mean() > 0.05 and (last[:20, :60] < 20).mean() > 0.5
        assert bool(says) is (cut == "ignore")
    assert doubtful["ignore"] >= 3 and doubtful["reset"] < doubtful["ignore"]
