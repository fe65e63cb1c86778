"""Every method on one clip or pair, compared with the truth in one loop.

The model and the other methods are measured alike: each frame gives sums, and a clip's measures are
made of the sums over its frames. Where the exact field is known, so are the skill
(L1_hold - L1_method) / (L1_hold - L1_oracle), L1 = sum |y - x| over the sector, the error of the
model's motion, and that of landmarks. Source: docs/method.md, "How it is judged".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ...runtime.animator import Animator
from . import metrics
from .loop import SAMPLES, Case, Frame, Picture, Points, Row, spread
from .metrics import FloatImage, Mask, Sums, blur, masked_sum, ratio, to_float, to_levels
from .tracking import by_landmark, mean_error, track
from .viewer import Viewer

BLUR_SIGMAS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
Field = tuple[FloatImage, Mask]
"""F(x->S) (H, W, 2), and where it is known (H, W)."""
FLOWS = (metrics.dis, metrics.farneback)


def compare(
    animator: Animator,
    case: Case,
    methods: Sequence[str],
    numbers: Sequence[int],
    viewer: Viewer | None = None,
) -> tuple[Row, list[Frame], Points | None]:
    """Compare the model and other methods with the truth, in the frames of these numbers.

    Args:
        animator: its source and reference are set.
        methods: `model`; `hold`, the source as it is; `blur`, the source blurred by the sigma that
            fits the truth best; `flow`, the source warped by the dense flow to the real frame;
            `oracle`, warped by the exact field; `another_seed`, the truth with other scatterers.
            Without `flow` the motion agreement is measured against the exact field, where the mask
            shows its tissue.
        viewer: networks that see every method's pictures, too.

    Returns:
        the measures; a few frames for the pictures; the landmarks as the tracker found them in the
        model's frames, (T, P, 2), where the exact field is known.
    """
    grey, held, mask = to_levels(case.source), to_float(case.source), case.mask
    sigma = best_blur(case, numbers)
    still = {"hold": grey, "blur": to_levels(blur(held, sigma))}
    nothing = np.zeros((*grey.shape, 2), np.float32)
    flows = {"hold": [nothing] * len(FLOWS), "blur": [flow(still["blur"], grey) for flow in FLOWS]}
    sums: dict[str, Sums] = {}
    gaps = np.zeros(3)  # of the model's motion from the exact field
    kept: list[dict[str, Picture]] = []  # in which landmarks are tracked
    before: dict[str, Picture] = {}  # the pictures of the frame before, and the `truth`
    last, samples, wanted = 0, [], spread(numbers, SAMPLES)

    def expect(number: int, truth: Picture) -> tuple[dict[str, Picture], list[Field], Field]:
        """Pictures by method, F(x->S) by FLOWS, the exact one."""
        images = {**still, "truth": truth}
        field, known = case.flow(number) if case.flow else (nothing, mask)
        if "flow" in methods:
            pairs = [(flow(truth, grey), flow(grey, truth)) for flow in FLOWS]
            motions = [(there, metrics.consistent_pixels(there, back)) for there, back in pairs]
            images["flow"] = to_levels(metrics.warp_by_flow(grey, motions[0][0]))
        else:
            visible = metrics.warp_by_flow(mask.astype(np.float32), field) > 0.5
            motions = [(field, visible)] * len(FLOWS)
        if case.flow:
            images["oracle"] = to_levels(metrics.warp_by_flow(grey, field))
        if case.other is not None:
            images["another_seed"] = to_levels(case.other[number])
        return images, [(motion, there & mask) for motion, there in motions], (field, known)

    def measure(name: str, images: Mapping[str, Picture], motions: Sequence[Field]) -> Sums:
        found = flows.get(name) or [flow(images[name], grey) for flow in FLOWS]
        both = zip(found, motions, strict=True)
        errors = [metrics.flow_sums(flow, *motion) for flow, motion in both]
        y, x = to_float(images[name]), to_float(images["truth"])
        changes = np.zeros(6)
        if before:
            steps = y - to_float(before[name]), x - to_float(before["truth"])
            changes = metrics.moments(*(blur(s, metrics.TEMPORAL_SIGMA)[mask] for s in steps))
        return np.concatenate([picture_sums(y, x, held, mask, case.sector), changes, *errors])

    # OpenCV, numpy and the backends release Python's lock: two threads keep two cores busy.
    with ThreadPoolExecutor(2) as pool:
        for t in numbers:
            if last < case.middle <= t:
                before = {}  # the source's own frame is left out
            last = t
            frame = Frame(t, np.array(case.driving[t]), np.array(case.truth[t]), case.points[t])
            coming = pool.submit(expect, t, to_levels(frame.truth))
            frame.drive(animator)
            images, motions, (flow, known) = coming.result()
            images["model"] = to_levels(frame.prediction)
            jobs = {name: pool.submit(measure, name, images, motions) for name in methods}
            if case.flow:
                gaps += metrics.flow_sums(frame.flow, flow, known & case.sector)
                kept.append({name: images[name] for name in ("model", "oracle", "truth")})
            if viewer:
                viewer.see({name: images[name] for name in (*methods, "truth")})
            for name, job in jobs.items():
                sums[name] = sums.get(name, 0) + job.result()
            before = images
            samples += [frame] if t in wanted else []
    exact, tracked = _exact(case, numbers, sums, gaps, kept) if case.flow else (None, None)
    row: Row = {
        "driven": len(numbers),
        "mean_flow": ratio(*sums["model"][22:24].tolist()),
        "methods": {name: fidelity(sums[name]) for name in methods},
        "blur_sigma": sigma,
        "exact": exact,
    }
    for name, distances in (viewer.end() if viewer else {}).items():
        row["methods"][name]["perceptual"] = distances
    return row, samples, tracked


def picture_sums(
    y: FloatImage, x: FloatImage, held: FloatImage, mask: Mask, sector: Mask | None
) -> Sums:
    """What one frame adds to the measures that need no other frame and no flow."""
    errors = [y - x, held - x]
    errors += [blur(error, metrics.LOW_PASS_SIGMA) for error in errors]
    miss = np.abs(y - x)
    seen = 0 if sector is None else miss[sector].mean(dtype=np.float64)
    plain = miss.mean(dtype=np.float64), metrics.psnr(y, x), metrics.ssim(y, x), seen, 1
    high = metrics.moments(metrics.high_pass(y)[mask], metrics.high_pass(x)[mask])
    return np.array([*plain, *(masked_sum(error, mask) for error in errors), *high])


def fidelity(sums: Sums) -> dict[str, float]:
    """The measures over all frames; nan where one is not defined.

    l1, psnr and ssim are means over frames, of ALL pixels in [0, 1].
    """
    plain, errors, sharp, changes, *motions = np.split(sums, [5, 9, 15, 21, 24])
    l1, peak, similarity = (plain[:3] / plain[4]).tolist()
    error, held, low, held_low = errors.tolist()
    temporal_ratio, temporal_correlation = metrics.spread_ratio(changes)
    by_dis, by_farneback = map(metrics.agreement, motions)
    return {
        "l1_ratio": ratio(error, held),
        "low_pass_ratio": ratio(low, held_low),
        "sharpness": metrics.spread_ratio(sharp)[0],
        "motion_agreement": by_dis,
        "farneback_agreement": by_farneback,
        "temporal_ratio": temporal_ratio,
        "temporal_correlation": temporal_correlation,
        "l1": l1,
        "psnr": peak,
        "ssim": similarity,
    }


def best_blur(case: Case, numbers: Sequence[int]) -> float:
    """The sigma in BLUR_SIGMAS whose blur of the source has the least L1 to these frames."""
    held, mask = to_float(case.source), case.mask
    blurred = np.stack([blur(held, sigma)[mask] for sigma in BLUR_SIGMAS])
    total = np.zeros(len(BLUR_SIGMAS))
    for t in numbers:
        total += np.abs(blurred - to_float(case.truth[t])[mask]).sum(1, dtype=np.float64)
    return BLUR_SIGMAS[int(np.argmin(total))]


def _exact(
    case: Case,
    numbers: Sequence[int],
    sums: Mapping[str, Sums],
    gaps: Sums,
    kept: Sequence[Mapping[str, Picture]],
) -> tuple[Row, Points]:
    """What is known where the exact field is, and the landmarks in the model's frames (T, P, 2).

    Returns:
        l1, skill: by method, l1 the mean over frames and pixels of the sector, in [0, 1];
        endpoint_error: mean |F_model - F| inside of the sector, in pixels; endpoint_hold: mean |F|;
        landmarks: errors by name and method, in pixels; landmark: their mean, None without any;
        landmark_ratio: the model's over hold's.
    """
    l1 = {name: float(total[3]) for name, total in sums.items()}
    hold, oracle = l1["hold"], l1["oracle"]
    error, length, pixels = gaps.tolist()
    # The landmarks are tracked from the source to both ends of the clip.
    after = [k for k, number in enumerate(numbers) if number >= case.middle]
    before = [k for k, number in enumerate(numbers) if number < case.middle][::-1]
    true = case.points[list(numbers)]
    paths = {name: np.full_like(true, np.nan) for name in kept[0]}
    for name, path in paths.items():
        for way in (before, after):
            path[way] = track(case.source, [kept[k][name] for k in way], case.start)
    errors = by_landmark(case.names, paths | {"hold": case.start}, true)
    landmark = mean_error(errors.values())
    return {
        "l1": {name: total / len(numbers) for name, total in l1.items()},
        "skill": {name: ratio(hold - total, hold - oracle) for name, total in l1.items()},
        "endpoint_error": ratio(error, pixels),
        "endpoint_hold": ratio(length, pixels),
        "landmarks": errors,
        "landmark": landmark,
        "landmark_ratio": ratio(landmark["model"], landmark["hold"]) if landmark else math.nan,
    }, paths["model"]
