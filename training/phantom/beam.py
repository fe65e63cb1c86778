"""From scatterers to a picture, by the convolution model: what the probe hears on a polar grid, its
envelope, grey curve and scan conversion.

Every scatterer adds its amplitude with the phase of its exact range; the sum is blurred by the
point-spread function (axial pulse, lateral beam), attenuated, given noise, amplified with depth,
and only then is the envelope taken. Sources: Meunier and Bertrand 1995; COLE, Gao et al. 2009.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .probe import SIZE, Display, FloatArray, Probe, Raster

DENSITY = 17.0
"""Scatterers per mm^2 for the finest probes: ten in a resolution cell of 0.5 mm x 1.2 mm."""
_SIGMA = 1 / (2 * np.sqrt(2 * np.log(2)))  # standard deviation of a Gaussian of FWHM 1
_MARGIN = 3.0  # beam widths beyond the sector, which the flank of the beam still hears


def density(probe: Probe) -> float:
    """Scatterers per mm^2; for resolution cells above 1 mm^2 the same number per cell, because more
    do not improve the speckle, and each takes time in every frame."""
    return DENSITY / max(1.0, probe.axial * probe.lateral)


class Beam:
    """The polar grid of a probe and its point-spread function.

    Convention: arrays are (rows, lines): range away from the face, angle from left to right. The
    grid is finer than a quarter of the PSF's FWHM everywhere.
    """

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.step = probe.axial / 4.2
        self.rows = int(np.ceil(probe.depth / self.step)) + 1
        self.depth = np.arange(self.rows, dtype=np.float64) * self.step
        length = probe.radius + self.depth
        widest = probe.beam_width(self.depth) / length
        self.pitch = float(np.min(widest)) / 4.2  # radians between lines
        edge = probe.half_angle + _MARGIN * float(np.max(widest))
        self.lines = cv2.getOptimalDFTSize(int(np.ceil(2 * edge / self.pitch)) + 1)
        self.angle = (np.arange(self.lines) - (self.lines - 1) / 2) * self.pitch
        sigma = _SIGMA * probe.beam_width(self.depth) / (length * self.pitch)  # in lines
        frequency = np.fft.fftfreq(self.lines)
        self._lateral = np.exp(-2 * (np.pi * sigma[:, None] * frequency) ** 2).astype(np.float32)
        self._axial_sigma = _SIGMA * probe.axial / self.step  # in rows
        # The mean square that tissue of 0 dB gives, so that brightness does not depend on the grid.
        per_cell = density(probe) * self.step * length * self.pitch
        energy = per_cell / (4 * np.pi * sigma * self._axial_sigma)
        self._level = (1 / np.sqrt(energy)).astype(np.float32)[:, None]

    def hear(self, points: FloatArray, amplitude: Raster) -> NDArray[np.complex64]:
        """The baseband sum of the scatterers after the lateral beam, (rows, lines).

        Args:
            points: (N, 2), mm.
            amplitude: (N,), of mean square 1 in tissue of 0 dB.
        """
        probe, count = self.probe, self.rows * self.lines
        depth, angle = probe.to_polar(points)
        row, line = depth / self.step, angle / self.pitch + (self.lines - 1) / 2
        seen = (row >= 0) & (row < self.rows - 1) & (line >= 0) & (line < self.lines - 1)
        row, line, depth = (v[seen] for v in (row, line, depth))
        amplitude = amplitude[seen]
        phase = (((-4 * np.pi / probe.wavelength) * depth) % (2 * np.pi)).astype(np.float32)
        parts = amplitude * np.cos(phase), amplitude * np.sin(phase)
        i, j = row.astype(np.int32), line.astype(np.int32)
        down, right = (row - i).astype(np.float32), (line - j).astype(np.float32)
        first = i * self.lines + j
        at = np.concatenate([first, first + 1, first + self.lines, first + self.lines + 1])
        # Shared among the four nearest samples: whole samples would make the speckle flicker.
        share = [(1 - down) * (1 - right), (1 - down) * right, down * (1 - right), down * right]
        real, imaginary = (
            np.bincount(at, np.concatenate([part * s for s in share]), count) for part in parts
        )
        field = np.empty((self.rows, self.lines), np.complex64)
        field.real, field.imag = (v.reshape(field.shape) for v in (real, imaginary))
        heard = np.fft.ifft(np.fft.fft(field, axis=1) * self._lateral, axis=1)
        return np.asarray(heard, np.complex64)

    def envelope(
        self,
        heard: NDArray[np.complex64],
        loss: Raster,
        gain: Raster,
        noise: NDArray[np.complex64] | None,
    ) -> Raster:
        """The envelope, float32 (rows, lines), of mean square 1 in unshadowed tissue of 0 dB.

        Args:
            heard: from :meth:`hear`.
            loss: factor of the transmission to each sample and back, (rows, lines).
            gain: depth gain, (rows, 1).
            noise: complex, of mean square 1 where it is to be as strong as tissue at the face;
                None for none.
        """
        field = heard * (loss * self._level)
        if noise is not None:
            # Noise passes the receiver's filter as the echoes do.
            field += noise * np.sqrt(2 * np.sqrt(np.pi) * self._axial_sigma, dtype=np.float32)
        pair = field.view(np.float32).reshape(self.rows, self.lines, 2)
        taps = 2 * int(np.ceil(4 * self._axial_sigma)) + 1
        blurred = cv2.GaussianBlur(pair, (1, taps), 1e-6, None, self._axial_sigma)
        # The last bit of cv2.magnitude depends on where in memory its arrays lie.
        real, imaginary = blurred[..., 0], blurred[..., 1]
        return np.sqrt(real * real + imaginary * imaginary) * gain


def grey(envelope: Raster, display: Display) -> Raster:
    """Envelope -> grey in [0, 1]."""
    level = 20 * np.log10(np.maximum(envelope, 1e-6))
    shown = np.clip(1 + (level - display.white) / display.dynamic_range, 0, 1)
    return np.asarray(shown**display.gamma, np.float32)


class ScanConverter:
    """Grey in [0, 1] (rows, lines) to a picture, uint8 (SIZE, SIZE): Cartesian at twice that size,
    then averaged."""

    def __init__(self, beam: Beam) -> None:
        probe, line = beam.probe, (np.arange(2 * SIZE) - 0.5) / 2
        mm = probe.to_mm(np.stack(np.meshgrid(line, line), axis=-1))
        depth, angle = probe.to_polar(mm)
        self._line = (angle / beam.pitch + (beam.lines - 1) / 2).astype(np.float32)
        self._row = (depth / beam.step).astype(np.float32)
        self._seen = probe.inside(mm)

    def __call__(self, grey: Raster) -> NDArray[np.uint8]:
        fine = cv2.remap(grey, self._line, self._row, cv2.INTER_LINEAR)
        picture = cv2.resize(fine * self._seen, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        return np.asarray(np.clip(np.rint(picture * 255), 0, 255), np.uint8)
