"""Motion templates: a replayed frame is the live one, files come back, loops have no jump."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from toy_bundle import blob, centre
from toy_displacement import make_displacement_toy

from sonomime.cli import main
from sonomime.runtime import Animator, recording
from sonomime.runtime.media.pixels import psnr
from sonomime.runtime.player import Player
from sonomime.runtime.readers.open_source import open_source
from sonomime.runtime.recording import make_template
from sonomime.runtime.reference import nth_frame
from sonomime.runtime.still import SAMPLES
from sonomime.runtime.support.errors import ConfigError, InputError
from sonomime.runtime.template import SHIPPED, Loop, Template, find_loop, shipped

PLACES = [(-0.2 + 0.05 * i, 0.02 * i) for i in range(9)]  # of the driving blob, at 30 a second
STILL = blob(64, 0.1, -0.1)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips") / "blob"
    folder.mkdir()
    for i, place in enumerate(PLACES):
        cv2.imwrite(str(folder / f"{i}.png"), blob(64, *place))
    return folder


@pytest.fixture(params=["toy_bundle", "displacement_toy"])
def bundle(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(request.param))


def made(bundle: Path, clip: Path, **more: Any) -> Template:
    with Animator.open(bundle) as animator:
        template, damaged = make_template(animator, clip, **more)
    assert not damaged
    return template


def live(bundle: Path, scale: float = 1.0, reference: int = 0) -> list[Any]:
    with Animator.open(bundle, scale=scale) as animator:
        animator.set_source(STILL)
        animator.set_reference(blob(64, *PLACES[reference]))
        return [animator.animate(blob(64, *place)) for place in PLACES]


@pytest.mark.parametrize(("scale", "reference"), [(1.0, 0), (1.5, 3)])
def test_a_replayed_frame_is_the_live_one(
    bundle: Path, clip: Path, tmp_path: Path, scale: float, reference: int
) -> None:
    if "displacement" in bundle.name:
        scale = 1.0  # the toy's own scale does not move the place where motion is read
    path = tmp_path / "motion.npz"
    made(bundle, clip, reference=reference).save(path)
    template = Template.load(path)
    with Animator.open(bundle, scale=scale) as animator:
        animator.set_source(STILL)
        player = Player(animator, template)
        frames = [player.frame(seconds) for seconds in template.times.tolist()]
        for found, wanted in zip(frames, live(bundle, scale, reference), strict=True):
            assert np.abs(found.astype(int) - wanted).max() <= 3
        # At any time, forward and backward; beyond the ends as there.
        between, first = player.frame((template.times[4] + template.times[5]) / 2), frames[0]
        x = (centre(frames[4])[0] + centre(frames[5])[0]) / 2
        assert centre(between)[0] == pytest.approx(x, abs=0.01)
        assert np.array_equal(player.frame(-5.0), first)
        assert np.array_equal(player.frame(99.0), frames[-1])
        with pytest.raises(InputError):
            player.frame(float("nan"))
        # Driving frames go on as before.
        animator.set_reference(blob(64, *PLACES[reference]))
        again = [animator.animate(blob(64, *place)) for place in PLACES]
        assert np.array_equal(again, live(bundle, scale, reference))


def test_the_default_model_is_aligned_scaled_and_shaded_as_live(tmp_path: Path) -> None:
    frames = [frame.image for frame in islice(open_source(SAMPLES / "driving.mp4"), 0, 40, 13)]
    (folder := tmp_path / "clip").mkdir()
    for i, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{i}.png"), frame)
    (table := tmp_path / "places.csv").write_text(
        "image,keypoint,x,y\nreference,a,60,80\nreference,b,150,90\nreference,c,100,150\n"
    )
    places = {"a": (140.0, 180.0), "b": (300.0, 170.0), "nose": (1.0, 1.0)}
    with Animator.open(scale=1.5, shading="low") as animator:
        template, _ = make_template(animator, folder, landmarks=table)
        assert template.landmarks.keys() == {"a", "b", "c"}
        animator.set_source(nth_frame(open_source(SAMPLES / "still.png"), 0))
        animator.set_reference(frames[0])
        pairs = [places["a"], places["b"]], [(60, 80), (150, 90)]
        animator.align(*pairs, pictures=False)
        names = "displacement", "confidence", "shading", "frame"
        for frame in frames:
            animator.animate(frame)
        live = [animator.read(name) for name in names]
        composed = animator.compose()
        animator.reset()
        player = Player(animator, template, places)
        assert player.aligned_by == ("a", "b")
        found = player.frame(template.seconds, size="source")
        for name, wanted in zip(names, live, strict=True):
            assert np.abs(animator.read(name).astype(float) - wanted).max() < 2e-3 or (
                name == "frame" and psnr(animator.read(name), wanted) > 50
            )
        assert psnr(found, composed) > 50
        unaligned = Player(animator, template).frame(template.seconds, size="source")
        assert psnr(unaligned, composed) < 40
        for wrong in ({"nose": (1.0, 1.0)}, {"a": (999.0, 1.0)}):
            with pytest.raises(InputError):
                Player(animator, template, wrong)
    with Animator.open(smooth=True) as animator:
        animator.set_source(frames[0])
        with pytest.raises(ConfigError):
            Player(animator, template)


def test_a_template_of_another_control_is_refused(
    toy_bundle: Path, displacement_toy: Path, clip: Path, tmp_path: Path
) -> None:
    ours, theirs = made(displacement_toy, clip), made(toy_bundle, clip)
    other = theirs.control | {"training": "f" * 64}
    sure = make_displacement_toy(tmp_path / "sure", sure=True)  # with a confidence
    for bundle, wrong in (
        (toy_bundle, ours), (displacement_toy, theirs), (sure, ours),
        (toy_bundle, replace(theirs, control=other)),
    ):  # fmt: skip
        with Animator.open(bundle) as animator:
            animator.set_source(STILL)
            with pytest.raises(ConfigError):
                Player(animator, wrong)
    with Animator.open(toy_bundle) as animator:
        with pytest.raises(InputError):
            Player(animator, theirs)  # no source
        animator.set_source(STILL)
        with pytest.raises(ConfigError):
            Player(animator, theirs, {"a": (1.0, 1.0)})  # it cannot align


def test_what_templates_of_keypoints_cannot_have(
    toy_bundle: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "places.csv"
    table.write_text("image,keypoint,x,y\nreference,left,20,30\n")
    for more in ({"reference": "best"}, {"landmarks": table}):
        with pytest.raises(ConfigError):
            made(toy_bundle, clip, **more)
    monkeypatch.setattr(recording, "MOST_FRAMES", 8)
    with pytest.raises(InputError):
        made(toy_bundle, clip)


def test_two_players_of_keypoints_keep_their_own_references(toy_bundle: Path, clip: Path) -> None:
    templates = [made(toy_bundle, clip, reference=reference) for reference in (0, 8)]
    with Animator.open(toy_bundle) as animator:
        animator.set_source(STILL)
        first, second = (Player(animator, template) for template in templates)
        for player, i in ((first, 4), (second, 4), (first, 4), (second, 0), (first, 8)):
            reference = PLACES[0 if player is first else 8]
            moved = [0.1 + PLACES[i][0] - reference[0], -0.1 + PLACES[i][1] - reference[1]]
            assert centre(player.frame(i / 30)) == pytest.approx(moved, abs=0.02)


def waves(times: Any, turns: float) -> dict[str, Any]:
    angle = 2 * np.pi * turns * times[:, None] / times[-1]
    planes = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    return {"displacement": planes.astype(np.float32).reshape(-1, 1, 1, 1, 2)}


def looped(times: Any, frames: dict[str, Any]) -> Template:
    loop = find_loop(times, frames)
    return Template(times, frames, {}, {"grid": [1, 1], "shading": [0, 0]}, loop)


def jump(template: Template) -> float:
    """The largest step between 60ths of a second, over three rounds."""
    at = np.arange(0, 3 * (template.loop.end - template.loop.begin), 1 / 60)
    path = np.array([template.looped(t)["displacement"].ravel() for t in at])
    return float(np.linalg.norm(np.diff(path, axis=0), axis=1).max())


def test_loops_have_no_jump() -> None:
    times = np.arange(90) / 30
    round_and_round = looped(times, waves(times, 2.25))
    loop = round_and_round.loop
    turns = (loop.end - loop.begin) / (times[-1] / 2.25)
    assert turns == pytest.approx(round(turns), abs=0.03) and not loop.back
    assert loop.gap < 0.1
    assert jump(round_and_round) < 2 * 2 * np.pi * 2.25 / times[-1] / 60

    away = {"displacement": (times[:, None] * [1, 0]).astype(np.float32).reshape(-1, 1, 1, 1, 2)}
    there_and_back = looped(times, away)
    assert there_and_back.loop.back and jump(there_and_back) < 1.1 / 60
    ends = [there_and_back.looped(t)["displacement"].flat[0] for t in (0, times[-1])]
    assert ends == pytest.approx([0, times[-1]], abs=1e-6)
    two = looped(times[:2], waves(times[:2], 0.1))
    assert two.loop.back and np.isfinite(two.looped(0.02)["displacement"]).all()


@pytest.mark.parametrize(
    "change",
    [
        {"times": np.zeros(9)}, {"times": np.arange(8.0)}, {"times": np.arange(1, 10.0)},
        {"times": np.array([*range(8), np.nan])},
        {"frames": {}}, {"frames": {"displacement": np.full((9, 1, 8, 8, 2), np.inf, np.float32)}},
        {"loop": Loop(0.0, 99.0, 0.0, 0.0, back=True)}, {"loop": Loop(0.0, 0.05, 0.1, 0.0)},
        {"loop": Loop(0.0, 0.2, 0.1, float("nan"))}, {"control": {"grid": [{}] * 2**19}},
        {"landmarks": {"a": (float("nan"), 0.0)}}, {"landmarks": {"a": (0.0, 1e300)}},
        {"frames": {"displacement": np.full((9, 1, 8, 8, 2), 9, np.float32)}},
        {"times": np.zeros(1), "frames": {"displacement": np.zeros((1, 1, 8, 8, 2), np.float32)}},
    ],
)  # fmt: skip
def test_files_that_are_no_template(
    displacement_toy: Path, clip: Path, tmp_path: Path, change: Any
) -> None:
    path = tmp_path / "motion.npz"
    template = made(displacement_toy, clip, about={"title": "blob \u00fc"})
    template.save(path)
    again = Template.load(path)
    assert again.about == template.about and again.loop == template.loop
    assert again.landmarks == template.landmarks and again.control == template.control
    replace(template, **change).save(path)
    with pytest.raises(InputError) as error:
        Template.load(path)
    assert str(path) in error.value.message
    for content in (b"", b"PK\3\4", b"\x93NUMPY", cv2.imencode(".png", STILL)[1].tobytes()):
        path.write_bytes(content)
        with pytest.raises(InputError):
            Template.load(path)
    np.savez(path, header=np.array([{}], object), times=np.zeros(1))  # a pickle
    with pytest.raises(InputError):
        Template.load(path)
    with pytest.raises(InputError):
        Template.load(tmp_path / "none.npz")


def frames_of(folder: Path) -> list[Any]:
    names = sorted(folder.glob("*.png"))
    return [cv2.imread(str(name), cv2.IMREAD_UNCHANGED) for name in names]


def test_from_the_command_line(
    displacement_toy: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: str) -> int:
        return main([*words, "--bundle", str(displacement_toy)])

    still, motion, out = tmp_path / "still.png", str(tmp_path / "motion.npz"), tmp_path / "out"
    cv2.imwrite(str(still), STILL)
    assert run("template", str(clip), "-o", motion, "--title", "blob", "--json") == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["output"], row["title"], row["frames"]) == (motion, "blob", len(PLACES))
    animate = ("animate", str(still), motion, "-o", str(out))
    assert run(*animate, "--landmarks", "none", "--no-mark") == 0
    other = ("animate", str(still), str(clip), "-o", str(tmp_path / "live"))
    assert run(*other, "--landmarks", "none", "--no-mark") == 0
    pairs = zip(frames_of(out), frames_of(tmp_path / "live"), strict=True)
    assert max(np.abs(a.astype(int) - b).max() for a, b in pairs) <= 3

    table = tmp_path / "places.csv"
    table.write_text("image,keypoint,x,y\nsource,left,30,20\nreference,left,20,30\n")
    out = tmp_path / "aligned"
    animate = ("animate", str(still), motion, "-o", str(out), "--landmarks", str(table))
    assert run(*animate, "--no-mark") == 0
    pairs = zip(frames_of(out), frames_of(tmp_path / "live"), strict=True)
    assert max(np.abs(a.astype(int) - b).max() for a, b in pairs) > 30
    assert run("template", str(clip), "-o", motion, "--landmarks", str(table)) == 0
    assert Template.load(Path(motion)).landmarks.keys() == {"left"}
    capsys.readouterr()
    for code, words in (
        (2, ("template", str(clip))), (2, ("template", str(clip), "-o", str(tmp_path / "a.mp4"))),
        (2, ("template", str(clip), "-o", motion, "--reference", "frist")),
        (2, ("template", str(clip), "-o", motion, "--reference=best", f"--landmarks={table}")),
        (6, ("template", str(still), "-o", motion)), (6, ("template", "lst", "-o", motion)),
        (2, (*animate, "--reference", "2")), (2, (*animate, "--side-by-side")),
        (2, (*animate, "--crop", "1,1,32,32")), (2, (*animate, "--fps", "3")),
        (2, (*animate, "--debug-picture", str(tmp_path / "d.png"))),
    ):  # fmt: skip
        assert run(*words) == code, words
        said = capsys.readouterr().err
        assert "error: " in said and "hint: " in said


def test_templates_that_come_with_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["template", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows.keys() == shipped().keys() >= {"breathing", "contraction", "heartbeat", "valsalva"}
    credits = (SHIPPED / "CREDITS.md").read_text()
    for name, row in rows.items():
        assert row["title"] and row["licence"] and row["control"]["grid"] == [32, 32], name
        assert f"`{name}`" in credits and row["seconds"] > 1
    assert main(["template", "list"]) == 0
    assert "breathing" in capsys.readouterr().out
