"""Clocks, power and throttling are read from nvidia-smi, here a script that says what it says."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from fake_nvidia_smi import LINE, put

from sonomime.benchmarks.gpu.state import (
    Watch,
    parse_line,
    read_state,
    state_line,
    summarise_readings,
)


@pytest.mark.parametrize("refused", ["unheard.of", "clocks_event_reasons.active"])
def test_a_reading_by_new_and_old_drivers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    put(tmp_path, monkeypatch, refused, LINE)
    state = read_state()
    assert state["name"] == "NVIDIA L4" and state["driver_version"] == "580.65"
    assert state["clocks.sm"] == 1590 and state["power.draw"] == 61.5
    assert state["slowed_by"] == ["power cap"]


def test_what_a_gpu_does_not_support_is_none() -> None:
    state = parse_line("Orin, 1, [N/A], [N/A], 1, 2, [Not Supported], [N/A], 4, 5, 6, [N/A]")
    assert state["clocks.sm"] is None and state["power.draw"] is None
    assert state["slowed_by"] is None and state["clocks.mem"] == 1


def test_a_watch_sums_up_what_comes_after_its_first_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, monkeypatch, "unheard.of", LINE)
    with Watch() as watch:
        assert watch._lines()
        time.sleep(0.3)
    found = watch.summary
    assert found["readings"] >= 1 and found["throttled"] is True
    assert found["clocks.sm"] == {"min": 1590, "median": 1590, "max": 1590}
    assert state_line(found) == "clock 1590 to 1590 MHz, power 62 to 62 W, slowed by: power cap"


def watched(device: int) -> dict[str, Any]:
    with Watch(device) as watch:
        pass
    return watch.summary


def test_the_gpu_is_the_one_that_cuda_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = put(tmp_path, monkeypatch, "x", LINE)
    tool.write_text('#!/bin/sh\necho "$*" >&2; exit 9\n')
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "--id=0 " in read_state()["absent"] and "--id=2 " in watched(2)["absent"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert "--id=3 " in read_state()["absent"] and "--id=1 " in watched(1)["absent"]
    assert "clocks and power: " in state_line(watched(1))


def test_an_idle_gpu_is_not_throttled() -> None:
    readings = [parse_line(LINE.replace("0004", "0001")), parse_line(LINE.replace("1590", "900"))]
    assert not summarise_readings(readings[:1])["throttled"]
    both = summarise_readings(readings)
    assert both["slowed_by"] == ["idle", "power cap"] and both["clocks.sm"]["min"] == 900


def test_there_is_no_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "absent" in read_state() and "absent" in watched(0)
