"""Streams that share cores take turns."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from live_feeds import until

from sonomime.runtime.live.turns import Turns


def test_whose_frame_was_due_first_is_next() -> None:
    turns, order = Turns(1), list[float]()

    def make(due: float) -> None:
        with turns.take(due):
            order.append(due)

    with turns.take(0.0):
        threads = []
        for number, due in enumerate((5.0, 2.0, 9.0, 2.0, 1.0), 1):
            threads.append(threading.Thread(target=make, args=(due,), daemon=True))
            threads[-1].start()
            until(lambda number=number: len(turns._waiting) == number)
        assert not order
    for thread in threads:
        thread.join(30)
    assert order == [1.0, 2.0, 2.0, 5.0, 9.0]


@pytest.mark.parametrize("places", [0, 1, 3])
def test_so_many_are_made_at_once_and_an_error_gives_the_place_back(places: int) -> None:
    turns, running, most = Turns(places), 0, 0
    lock = threading.Lock()

    def make(number: int) -> None:
        nonlocal running, most
        with turns.take(time.perf_counter()):
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.001)
            with lock:
                running -= 1
            if number % 3 == 0:
                raise ValueError(number)

    with ThreadPoolExecutor(8) as pool:
        made = [pool.submit(make, number) for number in range(60)]
    assert sum(each.exception() is not None for each in made) == 20
    assert most == max(1, places) and not turns._waiting
