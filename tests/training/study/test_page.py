"""The raters' page in a real browser."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Page, browser, program

from sonomime.training.study.serve import Server

from .test_serve import rows, running

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(program() is None, reason="no Chromium is installed"),
]


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with browser(tmp_path / "profile") as page:
        yield page


def ready(page: Page, server: Server, place: str) -> None:
    """Open the page, and wait until a clip of these words in the heading plays."""
    page.open(server.url)
    shown = f"document.querySelector('#place')?.textContent.startsWith('{place}')"
    page.until(f"{shown} && !rating.disabled && !clip.paused && clip.currentTime > 0")


def test_a_rater_rates_all_clips_by_keys_and_goes_on_after_a_reload(
    study: Path, page: Page
) -> None:
    with running(study) as server:
        ready(page, server, "Clip 1 of 15")
        size = page.value("[clip.videoWidth, clip.videoHeight, clip.loop, next.disabled]")
        assert size == [96, 64, True, True]
        room = page.value("[document.documentElement.scrollHeight, document.body.scrollWidth]")
        assert room == [768, 1024], "all of it is seen without scrolling"
        page.press("Enter")
        page.press("4", "4")
        assert page.value("place.textContent + next.disabled") == "Clip 1 of 15true"
        page.press("r", "r")
        page.until("saved.textContent == 'saved'")
        assert (rows(study)[0]["rating"], rows(study)[0]["real"]) == ("4", "real")
        page.press("Enter")
        page.until("place.textContent == 'Clip 2 of 15' && !rating.disabled")
        assert page.value("document.querySelectorAll('input:checked').length") == 0
        page.value("comment.focus()")
        page.send("Input.insertText", text="5 of <b>5</b>")
        page.until("saved.textContent == 'saved' && waiting === 0 && typing === null")
        assert (rows(study)[1]["comment"], rows(study)[1]["rating"]) == ("5 of <b>5</b>", "")
        ready(page, server, "Clip 2 of 15")
        assert page.value("comment.value") == "5 of <b>5</b>"
        for number in range(2, 16):
            page.until(f"place.textContent == 'Clip {number} of 15' && !rating.disabled")
            for key in ("3", "s"):
                page.press(key, key)
            page.press("Enter")
        page.until("!done.hidden && waiting === 0")
        assert [row["rating"] for row in rows(study)] == ["4"] + ["3"] * 14
        assert all(0 <= float(row["seconds"]) < 600 for row in rows(study))
        assert page.complaints() == []


def test_the_page_shows_the_grey_levels_of_the_clip(study: Path, page: Page) -> None:
    with running(study) as server:
        ready(page, server, "Clip 1")
        code = """(async () => {
            clip.pause(); clip.currentTime = 0;
            await new Promise((seen) => clip.addEventListener("seeked", seen, {once: true}));
            const canvas = new OffscreenCanvas(96, 64).getContext("2d");
            canvas.drawImage(clip, 0, 0);
            return JSON.stringify([[80, 50], [36, 24]].map(([x, y]) =>
                Array.from(canvas.getImageData(x, y, 1, 1).data)));
        })()"""
        (dark, bright) = json.loads(page.value(code))
        assert all(abs(level - 40) <= 3 for level in dark[:3])
        assert all(abs(level - 200) <= 3 for level in bright[:3])


def test_an_answer_waits_for_a_server_that_has_gone(study: Path, page: Page) -> None:
    with running(study) as server:
        ready(page, server, "Clip 1")
        port = server.server_port
    page.press("5", "5")
    page.until("!$('fault').hidden && saved.textContent == 'not saved'")
    assert rows(study)[0]["rating"] == ""
    with running(study, port=port):
        page.until("$('fault').hidden && saved.textContent == 'saved'")
        assert rows(study)[0]["rating"] == "5"


def test_beyond_this_computer_the_token_leaves_the_address(study: Path, page: Page) -> None:
    with running(study, bind="0.0.0.0") as server:
        page.open(f"http://127.0.0.1:{server.server_port}/?token={server.token}")
        page.until("document.querySelector('#clip')?.readyState >= 2")
        assert "token" not in page.value("location.href")
