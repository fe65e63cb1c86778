"""Distances between two sets of features, and how far they would change with other subjects.

Rows of real and of fake features are float (N, D) and (M, D). All is computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from .means import LEAST_SUBJECTS, LEVEL
from .viewer import Rows, Sample

Distance = Callable[[Rows, Rows], float]

HALVES = 100
"""How many random halves of the subjects an interval is made of."""
BLOCK, BLOCKS, SMALLEST = 1000, 10, 100
"""Rows of a block of the kernel distance at most; blocks wanted; rows of one at least."""


def frechet(real: Rows, fake: Rows) -> float:
    """|mu_1 - mu_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2)) of two Gaussians (Heusel et al. 2017).

    With C_1 = A'A and C_2 = B'B, the square roots of the eigenvalues of C_1 C_2 are the singular
    values of A B', so no matrix root is taken and nothing becomes complex. This holds with fewer
    rows than features too; but such covariances are of low rank, and the distance is too large.
    nan with fewer than two rows.
    """
    if min(len(real), len(fake)) < 2:
        return math.nan
    gap = real.mean(0, dtype=np.float64) - fake.mean(0, dtype=np.float64)
    a, b = _root(real), _root(fake)
    common = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return max(float(gap @ gap + np.square(a).sum() + np.square(b).sum() - 2 * common), 0.0)


def _root(rows: Rows) -> NDArray[np.float64]:
    """A, (at most D, D), of the covariance A'A of rows (N, D)."""
    centred = (rows - rows.mean(0, dtype=np.float64)) / math.sqrt(len(rows) - 1)
    return np.linalg.qr(centred, "r") if len(rows) > rows.shape[1] else centred


def squared_mmd(real: Rows, fake: Rows) -> float:
    """Unbiased squared MMD with the kernel (x'y / D + 1)^3 (Binkowski et al. 2018, arXiv
    1801.01401); nan with fewer than two rows."""
    n, m, size = len(real), len(fake), real.shape[1]
    if min(n, m) < 2:
        return math.nan
    x, y = real.astype(np.float64), fake.astype(np.float64)
    xx, yy, xy = ((a @ b.T / size + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    own = (xx.sum() - xx.trace()) / (n * (n - 1)) + (yy.sum() - yy.trace()) / (m * (m - 1))
    return float(own - 2 * xy.mean())


def kernel_blocks(real: Rows, fake: Rows, seed: int = 0) -> list[float]:
    """`squared_mmd` of disjoint random blocks of rows, whose mean is KID.

    At least BLOCKS of them, of at most BLOCK rows each; fewer where one had less than SMALLEST.
    """
    count = min(len(real), len(fake))
    blocks = max(-(-count // BLOCK), min(BLOCKS, count // SMALLEST), 1)
    draw = np.random.default_rng(seed)
    parts = [np.array_split(rows[draw.permutation(len(rows))], blocks) for rows in (real, fake)]
    return [squared_mmd(*both) for both in zip(*parts, strict=True)]


def kernel(real: Rows, fake: Rows) -> float:
    """The mean of `kernel_blocks`."""
    return float(np.mean(kernel_blocks(real, fake)))


def standard_error(blocks: Sequence[float]) -> float:
    """Of the mean of blocks; nan with one."""
    return float(np.std(blocks, ddof=1) / math.sqrt(len(blocks))) if len(blocks) > 1 else math.nan


def with_interval(
    distance: Distance, real: Sample, fake: Sample, subjects: Sequence[str], seed: int
) -> dict[str, float]:
    """A distance, and its interval by subsampling over subjects (Politis and Romano 1994).

    A resample with replacement holds rows twice and so has a smaller spread, which biases these
    distances. So random halves of the subjects are drawn without replacement, m = n // 2 of n. A
    half's distance is biased too, for it has fewer rows. So only the deviations from the halves'
    mean are used, times sqrt(m / (n - m)), as subsampling of a finite set asks; for an even n that
    is 1.

    Args:
        subjects: of each unit.

    Returns:
        value; low and high, nan with fewer than 2 LEAST_SUBJECTS subjects; half: the mean distance
        of the halves, which shows how much the distance hangs on the number of rows.
    """
    names = sorted(set(subjects))
    n, m = len(names), len(names) // 2
    value = distance(real.rows, fake.rows)
    low = high = half = math.nan
    if m >= LEAST_SUBJECTS:
        draw, found = np.random.default_rng(seed), []
        for _ in range(HALVES):
            chosen = {names[i] for i in draw.permutation(n)[:m]}
            units = np.array([i for i, name in enumerate(subjects) if name in chosen])
            found.append(distance(real.of(units), fake.of(units)))
        values = np.array(found)[np.isfinite(found)]
        if len(values) > HALVES // 2:  # not all have rows, where clips without a window are many
            half = float(values.mean())
            tail = 100 * (1 - LEVEL) / 2
            ends = np.percentile(values - half, [tail, 100 - tail]) * math.sqrt(m / (n - m))
            low, high = (value + ends).tolist()
            low = max(low, 0.0) if distance is frechet else low  # it is never below 0
    return {"value": value, "low": low, "high": high, "half": half}
