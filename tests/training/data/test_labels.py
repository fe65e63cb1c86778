"""Labels that are kept, counted, suspected and refused, and one that follows a bright dot."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from sonomime.runtime.media.frames import Crop
from sonomime.training.config import DataConfig
from sonomime.training.coordinates import points_to_pixels
from sonomime.training.data.clip_frames import ClipFrames, load_clip
from sonomime.training.data.dataset import find_clips
from sonomime.training.data.keypoints import LabelError, count_names, outside, slips
from sonomime.training.data.label_share import keep_labels, labelled_frames
from sonomime.training.data.pairs import PairSampler

from .clips import PLAIN, draw, flat, frames, refused, write_table, write_video

# -- a share ---------------------------------------------------------------------------------------


def clips(*counts: int) -> list[ClipFrames]:
    """Clips of thirty frames, of which so many are labelled."""
    made = []
    for number, count in enumerate(counts):
        visible = np.zeros((30, 2), np.bool_)
        visible[np.random.default_rng(number).permutation(30)[:count], number % 2] = True
        made.append(flat(range(30), name=f"c{number}", points=np.zeros((30, 2, 2)),
                         visible=visible))  # fmt: skip
    return made


def kept(made: list[ClipFrames], share: float, seed: int = 0) -> set[tuple[str, int]]:
    return {
        (clip.clip.name, int(t))
        for clip in keep_labels(made, share, seed)
        for t in np.flatnonzero((clip.visible | clip.absent).any(axis=1))
    }


def test_a_share_of_the_labels_is_the_beginning_of_a_larger_one() -> None:
    made = clips(12, 20, 8)
    shares = [0, 0.01, 0.05, 0.2, 0.5, 0.99, 1]
    sets = [kept(made, share) for share in shares]
    assert [len(each) for each in sets] == [0, 1, 2, 8, 20, 40, 40]
    assert all(one <= other for one, other in pairwise(sets))
    assert {name for name, _ in kept(made, 3 / 40)} == {"c0", "c1", "c2"}  # spread
    assert kept(made[::-1], 0.2) == sets[3]
    assert kept(made, 0.2, seed=1) != sets[3]
    whole = keep_labels(made, 1, 0)
    assert all(one is other for one, other in zip(whole, made, strict=True))


def test_labels_that_say_absent_are_kept_and_forgotten_alike() -> None:
    (made,) = clips(4)
    made = replace(made, visible=made.visible & False, absent=made.visible)
    assert labelled_frames([made]) == 4 == len(kept([made], 1)) and len(kept([made], 0.5)) == 2


def test_a_label_that_is_not_used_is_unknown_not_absent() -> None:
    made = clips(12, 0)
    made = [replace(clip, clip=replace(clip.clip, group="g")) for clip in made]
    batch = draw(made, replace(PLAIN, label_share=0.0), 60)
    assert not batch.driving_visible.any()
    assert not batch.driving_absent[:, 0].any()
    assert batch.driving_absent[:, 1].all()  # nobody has this one
    data = replace(PLAIN, label_share=0.25, labelled_fraction=1.0)
    sampler = PairSampler(made, data, 0, batch_size=60)
    assert sampler.labelled == (3, 12)
    levels = {round(float(x) * 255) for x in sampler.batch(0).driving.mean((1, 2, 3))}
    assert len(levels) == 3


# -- names and places ------------------------------------------------------------------------------


def test_names_that_are_perhaps_misspelt() -> None:
    counts = count_names([{0: {"neck": (1, 1), "apex": (1, 1)}, 1: {"neck": (1, 1)}}])
    assert list(counts.items()) == [("neck", 2), ("apex", 1)]
    assert slips({"neck": 40, "nekc": 1, "apex": 1}) == [("nekc", "neck")]
    assert slips({"tip1": 40, "tip2": 40}) == []
    assert slips({"Bladder neck": 40, "bladder_neck": 39}) == [("bladder_neck", "Bladder neck")]
    assert slips({"nack": 40}, ["neck", "apex"]) == [("nack", "neck")]
    assert slips({"neck": 40, "other": 9}, ["neck", "apex"]) == []


def test_what_lies_beside_a_part() -> None:
    labels = {3: {"a": (9.5, 4.0), "b": (9.6, 4.0)}, 1: {"c": (float("nan"),) * 2, "d": (-1, 0)}}
    assert outside(Crop(0, 0, 10, 5), labels) == [(1, "d"), (3, "b")]


def test_a_label_beside_the_picture_is_refused_and_one_beside_the_crop_is_absent(
    tmp_path: Path,
) -> None:
    write_video(tmp_path / "a.mkv", frames(2))  # 40 x 32

    def loaded(row: str) -> ClipFrames:
        write_table(tmp_path / "keypoints.csv", row)
        (clip,) = find_clips([tmp_path], crop=Crop(4, 4, 20, 20)).clips
        return load_clip(clip, 32, 1)

    for _ in range(2):  # decoded, and from the cache
        with pytest.raises(LabelError) as caught:
            loaded("a.mkv,1,neck,40,8,1")
        assert "40,8" in caught.value.message and "40 x 32" in caught.value.message
    assert loaded("a.mkv,1,neck,39.5,31.5,1").absent.tolist() == [[False], [True]]
    assert loaded("a.mkv,1,neck,99,8,0").absent.tolist() == [[False], [True]]


def test_a_subject_in_two_splits_is_refused_where_splits_matter(dataset: Path) -> None:
    write_table(dataset / "clips.csv", "clips/a.mkv,s1,g,train,", "clips/b,s1,g,test,")
    for split in ("train", "test"):
        refused(lambda: find_clips([dataset], split=split), "'s1'", "--split all")  # noqa: B023
    assert len(find_clips([dataset]).warnings) == 1


# -- a dot -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("synthetic", [0.0, 1.0], ids=["placed", "bent"])
def test_a_label_of_the_table_lies_on_its_dot_after_crop_scale_and_augmentation(
    synthetic: float, tmp_path: Path
) -> None:
    """A bright dot of a wide picture, labelled in its pixels: mirrored, turned, scaled, shifted and
    bent, the label stays on it."""
    wide, high, crop = 200, 120, Crop(17, 9, 150, 90)
    at = np.random.default_rng(2).uniform((75, 40), (110, 70), (6, 2))
    grid = np.stack(np.meshgrid(np.arange(wide), np.arange(high)), -1)
    away = ((grid - at[:, None, None]) ** 2).sum(-1)
    write_video(tmp_path / "a.mkv", np.round(255 * np.exp(-away / 18)).astype(np.uint8))
    rows = [f"a.mkv,{t},dot,{x:.4f},{y:.4f},1" for t, (x, y) in enumerate(at)]
    write_table(tmp_path / "keypoints.csv", *rows)
    (clip,) = find_clips([tmp_path], crop=crop).clips
    data = DataConfig(gain=(1, 1), gamma=(1, 1), rotation=30, scale=(0.8, 1.3),
                      synthetic=synthetic, bend=0.3)  # fmt: skip
    batch = draw(load_clip(clip, 128, 1), data, 60)
    mirrored = 0
    for images, points in (
        (batch.source, batch.source_points), (batch.driving, batch.driving_points),
    ):  # fmt: skip
        for (image,), (point,) in zip(images.double().numpy(), points.numpy(), strict=True):
            peak = np.unravel_index(image.argmax(), image.shape)
            near = np.hypot(*(np.mgrid[:128, :128] - np.reshape(peak, (2, 1, 1)))) < 9
            centre = (image * near * np.mgrid[:128, :128][::-1]).sum((1, 2)) / (image * near).sum()
            assert np.abs(centre - points_to_pixels(point, 128)).max() < 0.5
            mirrored += point[0] > 0
    assert 0 < mirrored < 120
