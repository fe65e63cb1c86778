"""Clocks, power and throttling are read from nvidia-smi, here a script that says what it says."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from fake_nvidia_smi import LINE, put

from sonomime.benchmarks.nvidia_smi import parse_line, state_line, summarise_readings, watch


@pytest.mark.parametrize("refused", ["unheard.of", "clocks_event_reasons.active"])
def test_a_reading_by_new_and_old_drivers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    put(tmp_path, monkeypatch, refused, LINE)
    with watch() as found:
        time.sleep(0.2)
    assert found["name"] == "NVIDIA L4" and found["driver_version"] == "580.65"
    assert found["readings"] >= 1 and found["throttled"] is True
    assert found["clocks.sm"] == {"min": 1590, "median": 1590, "max": 1590}
    assert state_line(found) == "clock 1590 to 1590 MHz, power 62 to 62 W, slowed by: power cap"


def test_readings_are_summed_up() -> None:
    """What a GPU does not support is None; one that idles is not throttled."""
    state = parse_line("Orin, 1, [N/A], [N/A], 1, 2, [Not Supported], [N/A], 4, 5, 6, [N/A]")
    assert state["clocks.sm"] is state["power.draw"] is state["slowed_by"] is None
    assert state["clocks.mem"] == 1
    readings = [parse_line(LINE.replace("0004", "0001")), parse_line(LINE.replace("1590", "900"))]
    assert not summarise_readings([*readings[:1], state])["throttled"]
    both = summarise_readings(readings)
    assert both["slowed_by"] == ["idle", "power cap"] and both["clocks.sm"]["min"] == 900


def test_the_gpu_is_the_one_that_cuda_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(device: int = 0) -> Any:
        with watch(device) as found:
            assert state_line(found).startswith("clocks and power: ")
        return found["absent"]

    tool = put(tmp_path, monkeypatch, "x", LINE)
    tool.write_text('#!/bin/sh\necho "$*" >&2; exit 9\n')
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "--id=0 " in absent() and "--id=2 " in absent(2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert "--id=3 " in absent() and "--id=1 " in absent(1)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no" in absent()
