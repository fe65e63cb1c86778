"""The page of `sonomime serve` in a real browser, clicked through."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from chromium import Page, browser, program
from live_feeds import until

from sonomime.runtime import Animator, Bundle
from sonomime.runtime.live.studio import Studio
from sonomime.runtime.readers.open_source import open_source

pytest.importorskip("aiohttp")
from sonomime.runtime.live.web.server import Web

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(program() is None, reason="no Chromium is installed"),
]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    """The default model with the samples."""
    bundle = Bundle.open()
    opens = partial(Animator.open, bundle, "cpu", threads=1)
    studio = Studio(bundle, opens, None, None, tmp_path / "recorded")
    with Web(studio, "127.0.0.1", 0) as opened:
        studio.outlets.add(opened)
        yield opened
    studio.close()


@pytest.fixture
def page(tmp_path: Path, web: Web) -> Iterator[Page]:
    with browser(tmp_path / "profile") as opened:
        opened.open(web.url, 1280, 900)
        opened.until("document.querySelector('#source option') && !start.disabled")
        yield opened
        # Refusals, which the page shows, and advice about how this test looks at canvases.
        known = "the server responded with a status of 409", "willReadFrequently"
        assert [c for c in opened.complaints() if not any(each in c for each in known)] == []


def choose(page: Page, name: str, value: str) -> None:
    page.value(
        f"{name}.value = {json.dumps(value)}; {name}.dispatchEvent(new Event('input'));"
        f"{name}.dispatchEvent(new Event('change')); {name}.value"
    )


def click(page: Page, name: str, x: float = 0.5, y: float = 0.5) -> None:
    """At a place of an element, as shares of its sides."""
    box = page.value(
        f"(e => {{ e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();"
        f"return [b.x, b.y, b.width, b.height] }})(document.querySelector({json.dumps(name)}))"
    )
    at = {"x": box[0] + x * box[2], "y": box[1] + y * box[3], "button": "left", "clickCount": 1}
    for kind in ("mousePressed", "mouseReleased"):
        page.send("Input.dispatchMouseEvent", type=kind, **at)


def text_of(name: str) -> str:
    """The text of an element, as an expression."""
    return f"document.getElementById('{name}').textContent"


def is_state(name: str) -> str:
    return f"document.querySelector('#state').textContent.trim() == '{name}'"


def shows(canvas: str) -> str:
    """Whether a canvas has something bright."""
    return (
        f"(c => c.width > 0 && c.getContext('2d').getImageData(0, 0, c.width, c.height).data"
        f".some((v, i) => i % 4 < 3 && v > 60))(document.querySelector('{canvas}'))"
    )


def until_state(page: Page, true: Callable[[Any], object]) -> None:
    until(lambda: true(state_of(page)))


def state_of(page: Page) -> Any:
    return json.loads(page.value("fetch('/api/state').then(r => r.text())"))


def test_a_user_starts_watches_switches_records_and_stops(
    page: Page, web: Web, tmp_path: Path
) -> None:
    assert page.value("source.value + driving.value") == "still.pngdriving.mp4"
    assert "SYNTHETIC" in page.value("document.body.innerText")
    click(page, "#start")
    page.until(is_state("live"))
    for canvas in ("#canvas-source", "#canvas-driving", "#canvas-synthesized"):
        page.until(shows(canvas))
    page.until(f"Number({text_of('fps')}) > 0 && parseInt({text_of('frames')}) > 0")
    page.until(f"{text_of('latency')}.includes('p50')")
    click(page, "#pause")
    page.until(is_state("held"))
    page.until("!resume.disabled")
    click(page, "#resume")
    page.until(is_state("live"))
    page.value("document.getElementById('record-name').value = 'lesson.mkv'")
    click(page, "#record")
    until_state(page, lambda state: state["recording"] == "lesson.mkv")
    choose(page, "source", "lung_still.png")
    until_state(page, lambda state: state["settings"]["source"] == "lung_still.png")
    choose(page, "scale", "0.5")
    until_state(page, lambda state: state["settings"]["scale"] == 0.5)
    click(page, "#reference")
    page.press("r", "r")
    click(page, "#record")
    until_state(page, lambda state: state["recording"] is None)
    assert sum(1 for _ in open_source(tmp_path / "recorded" / "lesson.mkv")) > 5
    click(page, "#stop")
    until_state(page, lambda state: not state["running"])
    page.until(is_state("stopped"))


def test_landmarks_are_clicked_and_the_alignment_shown(page: Page) -> None:
    click(page, "#start")
    page.until(is_state("live"))
    click(page, "#landmarks summary")
    page.until("document.getElementById('landmark-reference').getBoundingClientRect().height > 50")
    for x, y in ((0.3, 0.3), (0.7, 0.5)):
        click(page, "#landmark-source", x, y)
        click(page, "#landmark-reference", x, y)
    page.until("!document.getElementById('landmarks-use').disabled")
    click(page, "#landmarks-use")
    until_state(page, lambda state: state["alignment"].startswith("aligned by 1, 2"))
    page.until("document.getElementById('alignment').naturalWidth > 100")
    click(page, "#landmarks-auto")
    by_itself = "aligned by what both pictures show"
    until_state(page, lambda state: state["alignment"] == by_itself)


def test_a_template_drives_and_errors_are_shown(page: Page) -> None:
    choose(page, "driving", "valsalva")
    click(page, "#start")
    page.until(is_state("live"))
    state = state_of(page)
    assert state["template_landmarks"] == ["bladder_neck", "symphysis"]
    assert page.value("reference.disabled")
    page.value("document.getElementById('record-name').value = '../up.mp4'")
    click(page, "#record")
    page.until(f"{text_of('message')}.includes('up.mp4')")
    click(page, "#message-close")
    page.until("message.hidden")


def test_a_page_without_its_server_does_not_look_live(page: Page, web: Web) -> None:
    click(page, "#start")
    page.until(is_state("live"))
    web.close()
    page.until(is_state("no connection"))
    page.events.clear()  # what the browser says about requests that fail
