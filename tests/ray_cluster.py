"""A Ray cluster of two nodes on this machine, one of which is lost while it works.

Usage: python ray_cluster.py FOLDER WORDS...: run `sonomime WORDS... --ray ADDRESS`, kill the second
node as soon as two files in FOLDER are half written and one is finished, and leave with the
command's exit code.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from sonomime.runtime.support.on_ray import NO_REPORTS


def main(folder: Path, *words: str) -> int:
    os.environ |= NO_REPORTS
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        command = [sys.executable, "-m", "sonomime.cli", *words, "--ray", cluster.address]
        with subprocess.Popen(command) as process:
            while process.poll() is None:
                names = os.listdir(folder) if folder.exists() else []
                hidden = sum(name.startswith(".") for name in names)
                if hidden == 2 and len(names) > hidden:
                    print("the second node is killed", file=sys.stderr)
                    cluster.remove_node(second, allow_graceful=False)
                    break
                time.sleep(0.01)
            else:
                print("nothing was killed", file=sys.stderr)
            return process.wait()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
