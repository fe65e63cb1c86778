"""How a stream is doing: frames, rate, latency, drops, states."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import numpy as np

from ..quality import Quality
from .screen import State

SECONDS = 5.0  # rate and latency are those of the last so many
MOST = 5000  # frames that are kept for that


class Metrics:
    """Filled by the stream; `snapshot` may be called from any thread."""

    def __init__(self, drops: Callable[[], dict[str, int]], losses: Callable[[], int]) -> None:
        """`drops`: frames that were dropped until now, by where; `losses`: renderers that were
        lost."""
        self._drops, self._losses = drops, losses
        self._lock = threading.Lock()
        self._begin = time.perf_counter()
        self._shown: deque[tuple[float, float | None]] = deque(maxlen=MOST)  # when, latency
        self._frames: Counter[State] = Counter()
        self._changes = 0
        self._state: State = "warming up"
        self._why = ""
        self._quality: Quality | None = None

    def add(self, state: State, why: str, latency: float | None, quality: Quality | None) -> None:
        """A frame was shown. latency: seconds since its driving frame came; None for a frame that
        is shown again."""
        with self._lock:
            self._shown.append((time.perf_counter(), latency))
            self._frames[state] += 1
            self._changes += state != self._state
            self._state, self._why, self._quality = state, why, quality

    def say(self, state: State, why: str) -> None:
        """A state without a frame: before the first one, and after the last."""
        with self._lock:
            self._changes += state != self._state
            self._state, self._why = state, why

    def snapshot(self) -> dict[str, Any]:
        """state and why; seconds; frames, in all and by state; state_changes; of the last SECONDS
        fps and latency_ms (p50, p95, p99, max); dropped, by where; renderers_lost; quality of the
        last frame."""
        with self._lock:
            now = time.perf_counter()
            shown = [each for each in self._shown if now - each[0] <= SECONDS]
            frames, quality = dict(self._frames), self._quality
            state, why, changes = self._state, self._why, self._changes
        waits = np.array([latency for _, latency in shown if latency is not None]) * 1000
        latency = None
        if waits.size:
            p50, p95, p99 = np.percentile(waits, [50, 95, 99]).round(2).tolist()
            latency = {"p50": p50, "p95": p95, "p99": p99, "max": round(float(waits.max()), 2)}
        span = now - shown[0][0] if shown else 0.0
        return {
            "state": state,
            "why": why,
            "seconds": round(now - self._begin, 3),
            "frames": sum(frames.values()),
            "frames_by_state": frames,
            "state_changes": changes,
            "fps": round(len(shown) / span, 2) if span > 0 else 0.0,
            "latency_ms": latency,
            "dropped": self._drops(),
            "renderers_lost": self._losses(),
            "confidence": None if quality is None else round(float(quality.confidence), 4),
        }
