"""A live stream whose frames are made on a Ray cluster, by a node that is lost.

Usage: python stream_on_ray.py BUNDLE REPORT.json: the cluster's head has no processor, so the first
node makes the frames until it is killed, and then the second one does.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from live_feeds import HandFeed, until
from toy_bundle import blob

from sonomime.runtime import Animator, Bundle
from sonomime.runtime.landmarks import Given, Picture
from sonomime.runtime.live.how import How
from sonomime.runtime.live.pairs import Still
from sonomime.runtime.live.remote import on_cluster
from sonomime.runtime.live.renderer import Renderer, Scene
from sonomime.runtime.live.showing import Shown
from sonomime.runtime.live.stream import Stream
from sonomime.runtime.support.on_ray import NO_REPORTS

GIVEN = Given({"1": (30.0, 30.0)}, {"1": (20.0, 30.0)})
SCALE = 0.5


def main(folder: str, report: str) -> None:
    os.environ |= NO_REPORTS
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        first = cluster.add_node(num_cpus=1)
        opens = partial(Animator.open, Path(folder), "cpu", threads=1)
        with on_cluster(cluster.address, 1, 0) as remote:
            Path(report).write_text(json.dumps(watched(cluster, first, opens, remote, folder)))
    finally:
        cluster.shutdown()


def watched(cluster: Any, first: Any, opens: Any, remote: Any, folder: str) -> dict[str, Any]:
    """What was seen: see the test."""
    other = Still(Picture(blob(64, 0.2, 0.2)), "other")
    feed, shown = HandFeed(), list[Shown]()
    how = How(mark=False, on_cut="ignore")
    still = Still(Picture(blob(64, 0, 0)), "middle")
    chain = Bundle.open(folder).manifest
    with Stream(chain, lambda: remote(opens), still, feed, how=how) as stream:
        stream.start(shown.append)
        stop = threading.Event()

        def drive() -> None:
            place = 0
            while not stop.wait(0.02):
                feed.give(blob(64, place / 100, place / 200))
                place = (place + 1) % 30

        threading.Thread(target=drive, daemon=True).start()

        def seen(true: Callable[[Shown], object]) -> Shown:
            begin = len(shown)
            return until(lambda: next((each for each in shown[begin:] if true(each)), None))

        seen(is_live)
        stream.take_source(other)
        seen(lambda each: each.source == "other")
        stream.take_landmarks(GIVEN)
        until(lambda: stream.pair.alignment.said.startswith("aligned by 1"))
        stream.order(f"scale {SCALE}")
        until(lambda: stream.settings)
        number = shown[-1].number
        cluster.remove_node(first, allow_graceful=False)
        held = seen(lambda each: each.state == "held")
        lost = stream.metrics.snapshot()["renderers_lost"]
        cluster.add_node(num_cpus=1)
        back = seen(is_live)
        time.sleep(1)
        stop.set()
        pair, after = stream.pair, [each for each in shown if each.number >= back.number]
    scene = Scene(pair.still.picture, pair.reference, GIVEN, None, False, pair.size, True)
    with opens() as animator:
        local = Renderer(animator)
        local.prepare(scene)
        local.adjust(scale=SCALE)
        moved = [each for each in after if is_live(each) and each.latency is not None]
        same = [
            np.array_equal(each.image, local.frame(each.driving, 0.0, 1.0 + i).image)
            for i, each in enumerate(moved)
        ]
    return {
        "frames_before": number, "held": held.why, "held_source": held.source, "lost": lost,
        "back_source": back.source, "numbers": [each.number for each in shown], "same": same,
        "seconds_held": round(back.made_at - held.made_at, 2),
        "alignment": pair.alignment.said, "by_state": stream.metrics.snapshot()["frames_by_state"],
    }  # fmt: skip


def is_live(shown: Shown) -> bool:
    return shown.state in ("live", "doubtful")


if __name__ == "__main__":
    main(*sys.argv[1:])
