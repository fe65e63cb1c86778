"""Work spread over processes: what is lost is tried again, and nothing stays behind."""

from __future__ import annotations

import logging
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import spread_work

from sonomime.runtime.support.errors import BackendError, BundleError, ConfigError, SonomimeError
from sonomime.runtime.support.on_ray import OnRay
from sonomime.runtime.support.processes import Processes
from sonomime.runtime.support.spread import TRIES, Lost, Make, spread


def results(items: list[Any], make: Make = spread_work.opened, workers: int = 2) -> dict[int, Any]:
    with Processes(make) as crew:
        found = list(spread(crew, workers, items))
    assert len(dict(found)) == len(found) == len(items), "each once"
    return dict(found)


def test_each_worker_is_used_again() -> None:
    found = results(list(range(12)))
    assert [found[i][0] for i in range(12)] == [i * i for i in range(12)]
    processes = {found[i][1] for i in range(12)}
    assert len(processes) <= 2 and os.getpid() not in processes
    assert not any(Path(f"/proc/{process}").exists() for process in processes), "none is left"
    assert len({process for _, process in results([1, 2, 3], workers=1).values()}) == 1


def test_linear_algebra_has_one_thread_in_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    assert set(results([spread_work.THREADS])[0]) == {"1"}
    assert os.environ["OMP_NUM_THREADS"] == "3" and "MKL_NUM_THREADS" not in os.environ
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_what_a_lost_worker_worked_on_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = results([1, tmp_path / "dead", 2, 3])
    said, process = found[1]
    assert said == "again" and str(process) != (tmp_path / "dead").read_text()
    assert [found[i][0] for i in (0, 2, 3)] == [1, 4, 9]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING and "signal 9" in record.getMessage()


def test_what_kills_every_worker_is_given_up_and_the_rest_is_done() -> None:
    found = results([1, None, 2], workers=1)
    assert isinstance(found[1], Lost) and "signal 9" in found[1].reason
    assert (found[0][0], found[2][0]) == (1, 4)


@pytest.mark.parametrize(
    ("make", "item", "kind", "said"),
    [
        (spread_work.refused, 1, BundleError, "no model"),
        (spread_work.opened, "text", SonomimeError, "TypeError: text"),
        (spread_work.crashed, 1, BackendError, "no worker can start"),
    ],
)
def test_an_error_of_a_worker_ends_all(make: Make, item: Any, kind: Any, said: str) -> None:
    with pytest.raises(kind, match=said) as caught:
        results([item] * TRIES, make)
    assert caught.value.hint


def test_one_that_cannot_open_leaves_its_work_to_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = results(list(range(6)), partial(spread_work.opened_once, tmp_path / "there"))
    assert [found[i][0] for i in range(6)] == [i * i for i in range(6)]
    assert [each.getMessage() for each in caplog.records] == ["one worker less: no memory"]


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("ray://head:10001", ConfigError), ("head", ConfigError), ("head:99999", ConfigError),
        ("a..b:6379", ConfigError), ("127.0.0.1:1", BackendError),
    ],
)  # fmt: skip
def test_an_address_where_no_cluster_is(address: str, kind: type[SonomimeError]) -> None:
    with pytest.raises(kind, match=address) as caught:
        OnRay(spread_work.opened, address, 1, 0)
    assert "local" in caught.value.hint
