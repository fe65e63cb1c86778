"""Types of arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Raster = NDArray[np.float32]
"""(rows, columns), of echogenicity, attenuation or an envelope."""
