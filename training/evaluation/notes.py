"""How to read the tables of each task: the last part of table.md."""

from ...runtime.compose import MOST_SIDE
from .means import DRAWS, LEAST_SUBJECTS, LEVEL
from .metrics import FLOW_PRESET, MOVING_PIXELS
from .reconstruction import LEAK_LEVEL, MOST_FRAMES

_METHODS = """\
`hold`: the source as it is. `best blur`: the source, Gaussian-blurred by the sigma that fits the
real frames best. `oracle`: the source warped by the exact field."""
_FIDELITY = f"""\
- L1 ratio: sum |y - x| / sum |S - x|, y the model's frame, x the real one, S the source; low-pass:
  the same after a Gaussian blur of 4 px. Lower is better, hold is 1.
- sharpness: std(y - G2 y) / std(x - G2 x), G2 a Gaussian blur of 2 px; 1 is as sharp as the real
  frames.
- motion agreement: 1 - sum |F(y->S) - F(x->S)| / sum |F(x->S)|, F the optical flow, over pixels
  whose flow agrees forward and backward, for clips whose mean flow is above {MOVING_PIXELS:g} px.
  1 is the same motion, hold is 0. By OpenCV's DIS, which flatters a model that learned from DIS;
  and by Farneback's flow, from which no model learned.
- temporal: ratio of the standard deviations and correlation of the frame differences of y and x,
  after a Gaussian blur of 3 px. With --max-frames the frames are not neighbours.
- L1, PSNR, SSIM: all pixels, [0, 1], means over frames."""
_EXACT = """\
- skill: (L1 of hold - L1) / (L1 of hold - L1 of the oracle), L1 summed over frames inside of the
  sector, per clip or pair. hold is 0, the oracle 1.
- endpoint error: mean distance of the model's deformation from the exact field inside of the
  sector; that of hold is the mean length of the field.
- landmark error: the source's landmarks are followed through the frames by a tracker that does not
  know the model; the error is their distance from the true ones. Hold's is exact; the tracker's own
  error is that on true frames. The ratio is the model's mean error over hold's."""
_INTERVALS = f"""\
- intervals: {LEVEL:.0%}, percentiles of {DRAWS} draws of the subjects with replacement; a pair
  weighs the product of how often each of its subjects was drawn. None below {LEAST_SUBJECTS}
  subjects."""

RECONSTRUCTION = f"""\
Every frame of a clip drives the clip's middle frame (n // 2, left out): absolute motion, or
relative to the middle frame where the model has no absolute motion (`own_motion` above). Repeated
frames are left out. Sums run over frames and over the pixels where the clip's mean exceeds 0.03;
means over the clips for which a measure is defined. {_METHODS} `dense flow`: the source warped by
OpenCV's DIS flow ({FLOW_PRESET}).

{_FIDELITY}
- leakage: another subject's clip drives, relative motion. Correlation (NCC) of the high-passed
  result with the high-passed warped source (should be high) and with the high-passed driving frame
  (should not exceed the floor, the warped source's own correlation with it). A clip leaks from
  {LEAK_LEVEL:g} above the floor.
- own size: clips larger than the model's frame (up to {MOST_SIDE} pixels a side), driven by at most
  {MOST_FRAMES} frames and compared with the real frames at their own size. `composed`: the frame
  composed over the source (models with layers). `enlarged`: the model's frame, enlarged (bicubic).
{_EXACT}
{_INTERVALS}
"""

PREDICTION = f"""\
Frame 0 of A's clip is animated by B's clip, relative to B's frame 0, scale 1, no smoothing. Every
frame is compared with the true prediction: A moved as B moves, without noise. `aligned by`: the
landmarks that both first frames show, and whether their pictures were matched. {_METHODS}
`another seed`: the truth rendered with other scatterers, as an honest rendering of the same anatomy
that guesses the speckle. L1 ratio, low-pass, sharpness and temporal are taken inside of the sector.
F(x->S) of the motion agreement is the exact field, over pixels whose tissue the source's sector
shows, so it is stricter than that of a reconstruction. Pixels are those of the model's frame.

{_EXACT}
{_FIDELITY}
{_INTERVALS}
"""

TRACKING = f"""\
Source and reference are the middle one of a clip's labelled frames (n // 2 of them). Each of the
other labelled frames drives, with the motion that `own_motion` above names. A labelled point p of
the source is found at z with deformation(z) = p. No picture is looked at.

- error: distance of what was found from the frame's own label, in pixels of the model's frame; the
  mean over a frame's points, then over frames, then over clips.
- `hold`: every point stays. `dense flow`: OpenCV's DIS ({FLOW_PRESET}) from the source to the
  frame, read at the point; it sees both frames whole.
- share: mean error over hold's mean error; 1 is no better than no motion at all.
- lost: share of the points that the deformation reads nowhere in the frame; the pixel that reads
  nearest to the point stands for it.
{_INTERVALS}
"""
