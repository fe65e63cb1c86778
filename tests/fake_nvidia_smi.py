"""An nvidia-smi that is a script, for machines without one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

LINE = "NVIDIA L4, 580.65, P0, 1590, 6251, 2040, 61.5, 72.00, 58, 97, 1024, 0x0000000000000004"

SCRIPT = """#!/bin/sh
case "$*" in *{refused}*) echo 'Field "{refused}" is not a valid field to query.'; exit 2;; esac
case "$*" in
*loop-ms*) while :; do echo "{line}"; sleep 0.02; done;;
*) echo "{line}";;
esac
"""


def put(folder: Path, monkeypatch: pytest.MonkeyPatch, refused: str, line: str) -> Path:
    tool = folder / "bin" / "nvidia-smi"
    tool.parent.mkdir(exist_ok=True)
    tool.write_text(SCRIPT.format(refused=refused, line=line))
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}/usr/bin{os.pathsep}/bin")
    return tool
