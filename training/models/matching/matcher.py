"""The matcher: where a cell of the driving frame was in the reference frame.

It knows no anatomy, it compares descriptors: first all cells with all, coarsely; then twice, by the
same weights, near cells, to correct the match and to fill in where nothing is seen.

Convention: images (B, C, S, S) in [0, 1]; displacements (B, 2, n, n) in cells of their own grid, to
be added to a cell's place in the driving frame.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...config import MatcherConfig
from ..geometry import in_float32, make_grid, resize_by_matrices, sample_within

RADIUS = 3  # of the windows, in cells of S/4
ROUNDS = 2  # of corrections
MOST = 80.0  # that likeness is multiplied by, and what its exp can be taken of
TILE = 4  # cells a side that are compared at once


class Seen(NamedTuple):
    """Of a frame: descriptors (B, fine, S/4, S/4) and (B, coarse, S/8, S/8), and how bright it is,
    (B, 1, S/4, S/4)."""

    fine: Tensor
    coarse: Tensor
    light: Tensor

    def unit(self) -> Seen:
        """All descriptors of length 1, as they are compared."""
        return self._replace(fine=unit(self.fine), coarse=unit(self.coarse))


class Match(NamedTuple):
    """Displacements, all at S/8: by the global search, corrected once, and twice; the log of the
    last one's expected error in pixels of 256, (B, 1, S/8, S/8)."""

    coarse: Tensor
    corrected: Tensor
    fine: Tensor
    log_error: Tensor


class Residual(nn.Module):
    """x + conv3(ReLU(conv3(ReLU(x)))), no norm; zero at the start."""

    def __init__(self, channels: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        start_at_zero(self.conv2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


def start_at_zero(conv: nn.Conv2d) -> nn.Conv2d:
    """The convolution, with zero weights."""
    for parameter in conv.parameters():
        nn.init.zeros_(parameter)
    return conv


def leaky(x: Tensor) -> Tensor:
    """A plain ReLU would die: while the search is still wrong, no correction costs least."""
    return F.leaky_relu(x, 0.1)


def start_loud(network: nn.Module) -> None:
    """Start with larger weights than torch's, which halve the signal in every layer."""
    for conv in network.modules():
        if isinstance(conv, nn.Conv2d) and (conv.weight.is_meta or conv.weight.any()):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")


@in_float32
def locally_normalised(image: Tensor) -> Tensor:
    """An image less its mean over some 40 px, divided by its deviation there: gain and contrast do
    not matter. The boxes work at an eighth of the size, where they are cheap."""
    image = image.float()

    def smooth(x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 8)
        for side in (5, 3):
            x = F.avg_pool2d(x, side, 1, side // 2, count_include_pad=False)
        return resize_by_matrices(x, *image.shape[-2:])

    difference = image - smooth(image)
    # Where all is black the root's slope would be infinite.
    return difference / ((smooth(difference.square()) + 1e-8).sqrt() + 0.03)


def brightness(image: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, 1, h, w): the mean over channels, which takes time even of one."""
    return image if image.shape[1] == 1 else image.mean(dim=1, keepdim=True)


class Encoder(nn.Module):
    """An image to its descriptors."""

    def __init__(self, channels: int, fine: int, coarse: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(16 * channels, fine, 3, padding=1)
        self.near = Residual(fine)
        self.down = nn.Conv2d(fine, coarse, 3, stride=2, padding=1)
        self.far = nn.Sequential(*(Residual(coarse, dilation) for dilation in (1, 2, 4)))
        self.fine, self.coarse = nn.Conv2d(fine, fine, 1), nn.Conv2d(coarse, coarse, 1)

    def forward(self, image: Tensor) -> Seen:
        x = F.pixel_unshuffle(locally_normalised(image), 4)
        x = self.near(self.first(x.to(self.first.weight.dtype)))
        light = F.avg_pool2d(brightness(image.float()), 4)
        return Seen(self.fine(x), self.coarse(self.far(self.down(F.relu(x)))), light)


class Head(nn.Module):
    """From the comparison at S/4 to a correction at S/8 and the log of its expected error; zero at
    the start. One branch works at S/16, to fill in hidden parts from far around."""

    def __init__(self, inputs: int, width: int = 64) -> None:
        super().__init__()
        self.mix = nn.Conv2d(inputs, width, 1)
        self.near = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.down = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.far = nn.Sequential(*(Residual(width, dilation) for dilation in (1, 2, 2)))
        self.out = start_at_zero(nn.Conv2d(width, 3, 3, padding=1))
        start_loud(self)

    def forward(self, compared: Tensor) -> Tensor:
        x = leaky(self.near(leaky(self.mix(compared.to(self.mix.weight.dtype)))))
        x = x + enlarge(self.far(self.down(x)))
        return self.out(leaky(x)).float()


class LocalCorrelation(nn.Module):
    """(B, C, n, n) twice -> (B, (2 r + 1)^2, n, n): the scalar products of a cell of the first with
    the cells of the second around the same place, row by row; zero outside. n is at most TILE or a
    multiple of it.

    One matrix product compares the cells of a tile with all cells around it, and one gather picks
    each cell's own window. On a CPU this is over ten times quicker than a hundred shifted products,
    which wait for memory. Larger tiles compare more cells in vain, smaller ones gather more.
    """

    order: Tensor
    back: Tensor
    around: Tensor
    window: Tensor

    def __init__(self, size: int, radius: int) -> None:
        super().__init__()
        self.size, self.radius = size, radius
        self.tile = min(TILE, size)
        reach, padded = self.tile + 2 * radius, size + 2 * radius
        corners = _places(torch.arange(0, size, self.tile))  # (tiles, 2)
        # Of the first map, the cells of each tile; and where in that order each cell is.
        inside = _places(torch.arange(self.tile))
        order = ((corners[:, None] + inside) * torch.tensor([size, 1])).sum(-1).flatten()
        self.register_buffer("order", order.int(), persistent=False)
        self.register_buffer("back", order.argsort().int(), persistent=False)
        # Of the padded second map, the cells around each tile.
        near = corners[:, None] + _places(torch.arange(reach))
        around = (near * torch.tensor([padded, 1])).sum(-1).flatten()
        self.register_buffer("around", around.int(), persistent=False)
        # Of those, each cell's own window, the same for all tiles.
        window = inside[:, None] + _places(torch.arange(2 * radius + 1))
        window = (window * torch.tensor([reach, 1])).sum(-1)
        window = window.view(1, 1, *window.shape).expand(1, len(corners), -1, -1)
        self.register_buffer("window", window, persistent=False)

    @in_float32
    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        batch, channels = first.shape[:2]
        # Channels last, so that rows are gathered and not single numbers.
        queries = first.permute(0, 2, 3, 1).flatten(1, 2).index_select(1, self.order)
        queries = queries.view(batch, -1, self.tile**2, channels)
        padded = F.pad(second, (self.radius,) * 4).permute(0, 2, 3, 1).flatten(1, 2)
        keys = padded.index_select(1, self.around).view(batch, queries.shape[1], -1, channels)
        likeness = queries @ keys.transpose(2, 3)
        near = likeness.gather(3, self.window.expand(batch, -1, -1, -1)).flatten(1, 2)
        near = near.index_select(1, self.back)
        return near.transpose(1, 2).reshape(batch, -1, self.size, self.size)


def _places(line: Tensor) -> Tensor:
    """(n,) -> (n^2, 2): all pairs, row by row."""
    return torch.cartesian_prod(line, line)


class Matcher(nn.Module):
    """Descriptors of two frames to the displacement between them."""

    grid: Tensor

    def __init__(self, config: MatcherConfig, channels: int, size: int) -> None:
        super().__init__()
        fine, coarse = config.fine, config.coarse
        self.side = size // 8
        self.encoder = Encoder(channels, fine, coarse)
        self.sharpness = nn.Parameter(torch.tensor(2.6))  # log of the softmax's factor
        # Makes near cells likelier; without this the network does not begin to learn.
        self.nearness = nn.Parameter(torch.tensor(30.0))
        self.compare = LocalCorrelation(2 * self.side, RADIUS)
        self.correct = Head((2 * RADIUS + 1) ** 2 + 2 + fine)
        grid = make_grid(self.side, self.side, "half_pixel").view(-1, 2)
        self.register_buffer("grid", grid, persistent=False)

    def forward(self, driving: Seen, reference: Seen) -> Match:
        """Descriptors are of length 1."""
        ours, theirs = driving.fine, reference.fine
        found = [self.search(driving.coarse, reference.coarse)]
        for _ in range(ROUNDS):
            enlarged = 2 * enlarge(found[-1])
            seen = self.compare(ours, moved(theirs, enlarged))
            levelled = float(ours.shape[1] ** 0.5) * ours  # each channel about 1, as a head needs
            said = self.correct(torch.cat([seen, enlarged, levelled], dim=1))
            found.append(found[-1] + said[:, :2])
        return Match(*found, said[:, 2:])

    @in_float32
    def search(self, driving: Tensor, reference: Tensor) -> Tensor:
        """All cells with all: the expected displacement.

        The log of a cell's share is likeness less distance^2, |a - b|^2 = |a|^2 - 2 ab + |b|^2: one
        product has both.
        """
        batch, _, side, _ = driving.shape
        grid, near = self.grid.T.expand(batch, 2, -1), self.nearness
        square = grid.square().sum(1, keepdim=True)
        factor = self.sharpness.clamp(max=math.log(MOST)).exp()
        ours = [driving.flatten(2) * factor, 2 * near * grid]
        one = torch.ones_like(square)
        theirs = torch.cat([reference.flatten(2), grid, square, one], dim=1)
        queries = torch.cat([*ours, -near * one, -near * square], dim=1)
        # A softmax without its passes over all pairs for the maximum and the sum. The lower bound
        # keeps the shares of far cells from becoming denormal numbers, with which a processor may
        # take ten times as long; the upper one keeps the sum finite.
        share = (theirs.transpose(1, 2) @ queries).clamp(-60.0, MOST).exp()
        found = torch.cat([grid[:1], one[:1]], dim=1) @ share
        cells = (found[:, :2] / found[:, 2:] - grid) * (side / 2)
        return cells.view(batch, 2, side, side)


@in_float32
def unit(descriptors: Tensor) -> Tensor:
    """All of length 1. Squares are added up by a convolution: a sum over channels takes ONNX
    Runtime ten times as long."""
    x = descriptors.float()
    squares = F.conv2d(x * x, x.new_ones(1, x.shape[1], 1, 1))
    return x * (squares + 1e-12).rsqrt()


def moved(feature: Tensor, displacement: Tensor) -> Tensor:
    """Read (B, C, n, n) at a displacement (B, 2, n, n) in cells; outside, as at the border."""
    side = feature.shape[-1]
    grid = make_grid(side, side, "half_pixel", feature.device)
    where = grid + displacement.permute(0, 2, 3, 1) * (2 / side)
    return sample_within(feature, where)


def enlarge(x: Tensor) -> Tensor:
    """Twice the size, bilinear."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
