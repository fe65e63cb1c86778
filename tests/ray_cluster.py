"""A Ray cluster of two nodes on this machine, one of which is lost while it works.

Usage: python ray_cluster.py FOLDER N WORDS...: run `sonomime WORDS... --ray ADDRESS`, kill the
second node as soon as N files in FOLDER are half written and one is finished, print the inodes of
those that are finished, and leave with the command's exit code.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.support.on_ray import NO_REPORTS

#: Of tests that start a cluster.
MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason='needs Ray: pip install ".[ray]"'
    ),
]


def main(folder: Path, half_written: int, *words: str) -> int:
    os.environ |= NO_REPORTS
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        command = [sys.executable, "-m", "sonomime.cli", *words, "--ray", cluster.address]
        with subprocess.Popen(command) as process:
            while process.poll() is None:
                names = os.listdir(folder) if folder.exists() else []
                finished = [name for name in names if not name.startswith(".")]
                if finished and len(names) - len(finished) == half_written:
                    cluster.remove_node(second, allow_graceful=False)
                    inodes = {name: (folder / name).stat().st_ino for name in finished}
                    print(f"the second node is killed {json.dumps(inodes)}", file=sys.stderr)
                    break
                time.sleep(0.01)
            else:
                print("nothing was killed", file=sys.stderr)
            return process.wait()
    finally:
        cluster.shutdown()


def losing_a_node(folder: Path, half_written: int, words: list[Any]) -> tuple[str, str]:
    """Run a command that succeeds though it loses a node.

    Returns:
        what it printed on standard output and standard error. What was finished when the node was
        lost is found to be there still, and not made again.
    """
    code, output, errors = run([sys.executable, __file__, folder, half_written, *words])
    assert code == 0, errors
    (line,) = [line for line in errors.splitlines() if line.startswith("the second node is killed")]
    inodes = json.loads(line.partition("killed ")[2])
    assert inodes and {name: (folder / name).stat().st_ino for name in inodes} == inodes
    assert "its work is tried again" in errors, errors
    return output, errors


def run(command: list[Any], **environment: str) -> tuple[int, str, str]:
    """(exit code, output, errors) of a process of its own, which leaves no other behind."""
    mark = f"SONOMIME_TEST={time.monotonic_ns()}"
    done = subprocess.run(
        list(map(str, command)), cwd=sys.prefix, capture_output=True, text=True, timeout=300,
        env={**os.environ, **environment, "SONOMIME_TEST": mark.partition("=")[2]}, check=False,
    )  # fmt: skip
    give_up = time.monotonic() + 20
    while left := [name for name in os.listdir("/proc") if name.isdigit() and _has(name, mark)]:
        assert time.monotonic() < give_up, left
        time.sleep(0.1)
    return done.returncode, done.stdout, done.stderr


def same(one: Path, other: Path) -> bool:
    """Whether two files hold the same; .mkv files have a random name in their header."""
    if one.suffix == ".mkv":
        clips = [np.stack([frame.copy() for _, _, frame in open_source(f)]) for f in (one, other)]
        return np.array_equal(*clips)
    return one.read_bytes() == other.read_bytes()


def _has(process: str, mark: str) -> bool:
    """Whether a process runs that was started with this in its environment."""
    try:
        return mark.encode() in Path(f"/proc/{process}/environ").read_bytes()
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
