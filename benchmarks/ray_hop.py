"""What it costs a frame to be made by an actor of a Ray cluster.

    python -m sonomime.benchmarks.ray_hop --frames 200

The default bundle animates the sample still with the sample clip, as `sonomime stream` does, in
this process and in an actor of a cluster on this machine: frame by frame in turns, so that whatever
else the machine does slows down both. A network between two machines adds its own time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial
from itertools import cycle, islice

import numpy as np

from ..runtime.animator import Animator
from ..runtime.landmarks import Picture
from ..runtime.live.remote import on_cluster
from ..runtime.live.renderer import AnyRenderer, Renderer, Scene
from ..runtime.readers.open_source import open_source
from ..runtime.still import SAMPLES

WARM = 20  # frames before those that are timed


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=int, default=200, help="frames to time (default: 200)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--ray", default="local", metavar="ADDRESS", help="default: local")
    args = parser.parse_args(words)
    still = next(iter(open_source(SAMPLES / "still.png")))[2].copy()
    clip = [frame.copy() for _, _, frame in open_source(SAMPLES / "driving.mp4")]
    height, width = still.shape[:2]
    scene = Scene(Picture(still), Picture(clip[0]), "auto", None, False, (width, height), True)
    opens = partial(Animator.open, None, "cpu", threads=args.threads)
    with on_cluster(args.ray, args.threads, 0) as remote:
        renderers: dict[str, AnyRenderer] = {"here": Renderer(opens()), "ray": remote(opens)}
        taken: dict[str, list[float]] = {name: [] for name in renderers}
        for renderer in renderers.values():
            renderer.prepare(scene)
        for number, frame in enumerate(islice(cycle(clip), WARM + args.frames)):
            for name, renderer in renderers.items():
                begin = time.perf_counter()
                renderer.frame(frame, 0.0, number / 25)
                taken[name].append(1000 * (time.perf_counter() - begin))
        for renderer in renderers.values():
            renderer.close()
    found = {
        name: dict(zip(("p50", "p95"), np.percentile(each[WARM:], [50, 95]).round(2), strict=True))
        for name, each in taken.items()
    }
    hop = np.median(np.subtract(taken["ray"], taken["here"])[WARM:]).round(2)
    facts = {"frames": args.frames, "size": [width, height], "driving": list(clip[0].shape)}
    print(json.dumps(facts | {"milliseconds": found, "hop_p50": hop}))


if __name__ == "__main__":
    main()
