"""How to read the tables of each task: the last part of table.md."""

from ...runtime.compose import MOST_SIDE
from .intervals import DRAWS, LEVEL
from .metrics import FLOW_PRESET, MOVING_PIXELS
from .reconstruction import LEAK_LEVEL, MOST_FRAMES

RECONSTRUCTION = f"""\
Every frame of a clip drives the clip's middle frame (n // 2, left out): absolute motion, or
relative to the middle frame itself where the model has no absolute motion (`own_motion` above).
Repeated frames are dropped. Sums run over frames and over the pixels where the clip's mean exceeds
0.03; means run over the clips for which a measure is defined. `hold`: the source as it is. `best
blur`: the source, Gaussian-blurred by the sigma that fits the clip best. `dense flow`: the source
warped by OpenCV's DIS flow ({FLOW_PRESET}). These two see the real frame. `oracle`: the source
warped by the exact field, on the clips that have one (displacement/ of a phantom).

- L1 ratio: sum |y - x| / sum |S - x|, y the model's frame, x the real one, S the source; low-pass:
  the same after a Gaussian blur of 4 px. Lower is better, hold is 1.
- sharpness: std(y - G2 y) / std(x - G2 x), G2 a Gaussian blur of 2 px; 1 is as sharp as
  real frames.
- motion agreement: 1 - sum |F(y->S) - F(x->S)| / sum |F(x->S)|, F the optical flow, over
  forward-backward-consistent pixels, in clips with a mean flow above {MOVING_PIXELS:g} px. 1 is the
  same motion, hold is 0. By DIS, which is circular for a model that learned from DIS; and by
  Farneback's flow (OpenCV), from which no model learned. Believe both only beside the error of
  labelled points: --task tracking.
- temporal: ratio of the standard deviations and correlation of the frame differences of y and x,
  after a Gaussian blur of 3 px. With --max-frames the frames are not neighbours.
- L1, PSNR, SSIM: all pixels, [0, 1], per frame, then per clip.
- leakage: another subject's clip drives, relative motion. Correlation (NCC) of the high-passed
  result with the high-passed warped source (should be high) and with the high-passed driving frame
  (should be no more than the floor, which is the warped source's own correlation with it). A clip
  leaks from {LEAK_LEVEL:g} above the floor.
- own size: clips larger than the model's frame (up to {MOST_SIDE} pixels a side): the middle frame
  at its own size is driven by at most {MOST_FRAMES} others. `composed`: the frame composed over the
  source at that size (models with layers). `enlarged`: the model's frame, enlarged (bicubic). L1
  ratio and sharpness as above, against the real frames at their own size and in their pixels.
- exact field: skill is (L1 of hold - L1) / (L1 of hold - L1 of the oracle) inside of the sector;
  endpoint error is that of the model's deformation; landmarks are followed from the middle frame in
  both directions by a tracker that does not know the model, whose own error is that on true frames.
"""

PREDICTION = f"""\
Frame 0 of A's clip is animated by B's clip, relative to B's frame 0, scale 1, no smoothing. Every
frame, the first too, is compared with the true prediction: A moved as B moves, without noise. A
model that can align reads the motion of a place where the other anatomy has that place; `aligned
by` says how it knows: by landmarks of both first frames, the true ones (--alignment given,
landmarks) or those of its own detector (auto), and by matching these two pictures.
`hold`: the source as it is. `best blur`: the source, Gaussian-blurred by the sigma that fits the
truth best: a skill no higher than its skill says nothing of motion. `oracle`: the source warped by
the exact field, which no model can know. `another seed`: the truth rendered with other scatterers:
as far from the truth as an honest rendering of the same anatomy that guesses the speckle. Pixels
are those of the model's frame.

- skill: (L1 of hold - L1) / (L1 of hold - L1 of the oracle), L1 summed over frames inside of the
  sector, per pair, then the mean over pairs. hold is 0, the oracle 1.
- landmark error: the source's known landmarks are followed through the frames by a tracker that
  does not know the model (pyramidal Lucas-Kanade, forward-backward); the error is the distance from
  the true ones. Hold's is exact; the tracker's own error is that on the true prediction. The ratio
  is the model's mean error over hold's.
- endpoint error: mean distance of the model's deformation from the exact field inside of the
  sector; that of hold is the mean length of the field.
- motion agreement: 1 - sum |F(y->S) - F(x->S)| / sum |F(x->S)| with F(y->S) measured (by
  OpenCV's DIS, and by Farneback's flow) and F(x->S) EXACT, over the pixels whose tissue the
  source's sector shows, pairs with a mean field above {MOVING_PIXELS:g} px. It is stricter than
  that of a reconstruction, where both are measured; the oracle shows what can be reached.
- L1 ratio, low-pass, sharpness, temporal: as for a reconstruction, over the sector. L1, PSNR, SSIM:
  all pixels.
- intervals: {LEVEL:.0%}, percentiles of {DRAWS} draws of the subjects with replacement; a pair
  weighs the product of how often its source and its driving subject were drawn.
"""

TRACKING = f"""\
Source and reference are the middle one of a clip's labelled frames (n // 2 of them). Each of the
other labelled frames drives, with the motion that `own_motion` above names. The model's deformation
says where a frame reads in the source: a labelled point p of the source is found at z with
deformation(z) = p (Newton's method on the bilinear interpolant). No picture is looked at: sharp
pictures, right shading or learning from a dense flow do not improve this measure.

- error: distance of what was found from the frame's own label, in pixels of the model's frame; the
  mean over a frame's points, then over frames, then over clips.
- `hold`: every point stays. `dense flow`: OpenCV's DIS ({FLOW_PRESET}) from the source to the
  frame, read at the point; it sees both frames whole.
- share: mean error over hold's mean error; 1 is no better than no motion at all.
- lost: share of the points that the deformation reads nowhere in the frame; the pixel that reads
  nearest to the point stands for it.
- intervals: {LEVEL:.0%}, percentiles of {DRAWS} draws of the subjects with replacement; none below
  3 subjects.
"""
