"""Each task's report as data: tables, and the columns of the summary."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...runtime.compose import MOST_SIDE
from . import means
from .distances import HALVES
from .loop import Row
from .means import DRAWS, LEAST_SUBJECTS, LEVEL
from .metrics import FARNEBACK, FLOW_PRESET, MOVING_PIXELS
from .tasks import LEAK_LEVEL, MOST_FRAMES
from .viewer import WINDOW

# How to read the tables of each task: the last part of table.md.
_METHODS = """\
`hold`: the source as it is. `best blur`: the source, Gaussian-blurred by the sigma that fits the
real frames best. `oracle`: the source warped by the exact field."""
_MEASURES = f"""\
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
_FIELD_MEASURES = """\
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

_RECONSTRUCTION_NOTES = f"""\
Every frame of a clip drives the clip's middle frame (n // 2, left out): absolute motion, or
relative to the middle frame where the model has no absolute motion (`own_motion` above). Repeated
frames are left out. Sums run over frames and over the pixels where the clip's mean exceeds 0.03;
means over the clips for which a measure is defined. {_METHODS} `dense flow`: the source warped by
OpenCV's DIS flow ({FLOW_PRESET}).

{_MEASURES}
- leakage: another subject's clip drives, relative motion. Correlation (NCC) of the high-passed
  result with the high-passed warped source (should be high) and with the high-passed driving frame
  (should not exceed the floor, the warped source's own correlation with it). A clip leaks from
  {LEAK_LEVEL:g} above the floor.
- own size: clips larger than the model's frame (up to {MOST_SIDE} pixels a side), driven by at most
  {MOST_FRAMES} frames and compared with the real frames at their own size. `composed`: the frame
  composed over the source (models with layers). `enlarged`: the model's frame, enlarged (bicubic).
{_FIELD_MEASURES}
{_INTERVALS}
"""

_PREDICTION_NOTES = f"""\
Frame 0 of A's clip is animated by B's clip, relative to B's frame 0, scale 1, no smoothing. Every
frame is compared with the true prediction: A moved as B moves, without noise. `aligned by`: the
landmarks that both first frames show, and whether their pictures were matched. {_METHODS}
`another seed`: the truth rendered with other scatterers, as an honest rendering of the same anatomy
that guesses the speckle. L1 ratio, low-pass, sharpness and temporal are taken inside of the sector.
F(x->S) of the motion agreement is the exact field, over pixels whose tissue the source's sector
shows, so it is stricter than that of a reconstruction. Pixels are those of the model's frame.

{_FIELD_MEASURES}
{_MEASURES}
{_INTERVALS}
"""

_TRANSFER_NOTES = f"""\
The middle frame of each clip (n // 2) is animated by a clip of another subject (drawn from the
seed; of the same group where there is one). The truth is not known. `model`: relative motion, from
the driving clip's first frame, scale 1, no smoothing; `absolute`: absolute motion, where the model
has it. `aligned by`: what aligned the two subjects, for relative motion.

- leakage: correlation (NCC) of the high-passed result with the high-passed warped source (should be
  high) and with the high-passed driving frame (should not exceed the floor, the warped source's own
  correlation with it). A pair leaks from {LEAK_LEVEL:g} above the floor; in means, the share that
  does.
- networks (`--network`) compare all synthesized frames, and all frames of a source that does not
  move (`hold`), with the frames of the sources' own clips, the sources left out.
"""

_TRACKING_NOTES = f"""\
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

DISTANCE_NOTES = f"""\
Networks saw the frames as grey, repeated to three channels; `resolution` is that of the model's
frame, `seen at` that of the network.

- lpips, and distances of other names between two frames: of each frame from its real one; means
  over a clip's frames, then over clips. LPIPS alone agrees with experts on ultrasound little better
  than chance (arXiv 2604.19512).
- FID, fd_squeeze: Frechet distance between all synthesized and all real frames; FVD, fvd_squeeze:
  between their windows of {WINDOW} frames, which do not overlap; what is left at a clip's end is
  not used, nor are shorter clips (`clips too short`). With --max-frames the frames of a window are
  not neighbours. fvd_squeeze sees the mean of a window's SqueezeNet features and the root mean
  square of their steps. These distances grow as frames get fewer: **compare only values of the same
  number of frames**.
- KID, kd_squeeze: squared MMD with a cubic kernel. It does not grow by the number of frames, and
  may be below 0 by chance.
- intervals: for distances of two frames by bootstrap over subjects, {LEVEL:.0%}, {DRAWS} draws.
  Between sets by subsampling, {LEVEL:.0%}: {HALVES} random halves of the subjects (`subjects
  drawn`; of pairs, the sources'), deviations from their mean; none below {2 * LEAST_SUBJECTS}.
"""
DISTANCES = [
    ("Distances from the real frames, by networks", "measure methods.{METHODS}"),
    (
        "What the distances are made of",
        "measure network clips clips_too_short frames real_frames windows window_frames resolution "
        "seen_at features subjects subjects_drawn",
    ),
]
"""Headings and columns."""

_DETECTION_NOTES = f"""\
The landmarks that the model learned from labels are looked for in every labelled frame by itself:
the supervised keypoints of a keypoint model, the landmark network of lite. No motion is looked at.

- error: distance from the frame's own label, in pixels of the model's frame; the mean over a
  frame's landmarks, then over frames, then over clips.
- `constant`: a constant answer, each landmark's mean place over all evaluated clips, which sees the
  labels.
- share: the model's mean error over that one's; 1 is no better than not looking at the picture.
{_INTERVALS}
"""

_FIDELITY = (
    "{l1_ratio,low_pass_ratio,sharpness,motion_agreement,farneback_agreement,"
    "temporal_ratio,temporal_correlation,l1,psnr,ssim}"
)
_NCC = "{source,driving,floor}"
_LEAKAGE = f"leakage.{_NCC}"
_LANDMARKS = "exact.landmark.{model,hold,oracle,truth} exact.landmark_ratio"
_BY_SUBJECT = "name units skill.model landmark_ratio.mean endpoint_error endpoint_hold"
_ERRORS = "errors.{model,hold,flow} share.{model,flow}"


class Headline(NamedTuple):
    """A column of the summary."""

    title: str
    path: str  # in the means; {} stands for the method, else only the model has the measure
    meaning: str  # for a reader who does not know the measure
    digits: int = 2


class Layout(NamedTuple):
    """How one task's rows are summed up and shown."""

    what: str  # the task in one sentence
    units: str  # what a row is, and the key of the rows in the record: clips, pairs
    flow: str  # where the flow comes from
    notes: str
    mean: Callable[[Sequence[Row], int], Row]  # over rows, with a seed for intervals
    more: Callable[[Sequence[Row], int], Row]  # the task's own keys of the record
    tables: Sequence[tuple[str, str, str]]  # heading, path of the rows, columns: see `tables`
    headlines: Sequence[Headline]  # groups are sorted by the first, the worst in front
    high_is_bad: bool
    intervals: Sequence[tuple[str, str]] = ()  # of the summary: titles, paths in the means


def _exact_tables(path: str, methods: str) -> list[tuple[str, str, str]]:
    columns = f"units model_skill {{skill,l1}}.{{{methods}}} {{endpoint_error,endpoint_hold}}"
    landmarks = "name {model,hold,oracle,truth}"
    return [
        ("Against the exact field", path, f"{columns} landmark_ratio"),
        ("Landmarks: mean error in pixels", f"{path}.landmarks.*", landmarks),
    ]


_SHARPNESS = Headline(
    "sharpness", "methods.{}.sharpness", "1 is as much fine detail as in the real frames"
)
_RECONSTRUCTION = [
    Headline("error", "methods.{}.l1_ratio", "0 is equal to the real frames, 1 is not moving"),
    Headline("coarse error", "methods.{}.low_pass_ratio", "the same without fine detail"),
    _SHARPNESS,
    Headline("motion", "methods.{}.farneback_agreement", "1 is that of the real frames, 0 is none"),
    Headline("leaks", "clips_leaking", "clips that show another subject's speckle", 0),
]
_PREDICTION = [
    Headline("skill", "exact.skill.{}", "0 is not moving at all, 1 is the true motion"),
    Headline("landmark error", "exact.landmark_ratio.mean", "0 is the true place, 1 is not moving"),
    _SHARPNESS,
]
_TRANSFER = [
    Headline("leaks", "methods.{}.leaks", "share of pairs that show the driving subject's speckle"),
    Headline("source", "methods.{}.source", "likeness of speckle to the source's, moved; 1 is all"),
    Headline("driving", "methods.{}.driving", "likeness of speckle to the driving frame's"),
    Headline("floor", "methods.{}.floor", "the same of the source itself"),
]
_TRACKING = [
    Headline("error", "share.{}", "distance from the labels: 0 is none, 1 is not moving at all"),
    Headline("pixels", "errors.{}", "the same distance in pixels of the model's frame", 1),
    Headline("lost", "lost", "share of points that the model's motion leads nowhere"),
]
_DETECTION = [
    Headline("error", "share.model", "distance from the labels: 1 is a constant answer's"),
    Headline("pixels", "errors.{}", "the same distance in pixels of the model's frame", 1),
]
LAYOUTS = {
    "reconstruction": Layout(
        what="Each clip animates its own middle frame.",
        units="clips",
        flow=f"OpenCV DIS, preset {FLOW_PRESET}; Farneback {FARNEBACK}",
        notes=_RECONSTRUCTION_NOTES,
        mean=means.over_clips,
        more=lambda rows, seed: {},
        tables=[
            ("Means over clips", "means.all.methods.*", f"name {_FIDELITY}"),
            ("By group: the model", "means.*", f"name clips methods.model.{_FIDELITY} {_LEAKAGE}"),
            (
                "By clip",
                "clips.*",
                "clip group driven mean_flow methods.{model,blur,flow,oracle}.l1_ratio "
                "methods.{model,blur,flow}.low_pass_ratio methods.{model,blur,flow}.sharpness "
                "methods.{model,flow}.{motion_agreement,farneback_agreement} "
                "methods.{model,flow}.{temporal_ratio,temporal_correlation}",
            ),
            (
                "Leakage and plain measures, by clip",
                "clips.*",
                f"clip driver {_LEAKAGE} leakage.leaks methods.{{model,hold}}.{{l1,psnr,ssim}}",
            ),
            (
                "At the clips' own size, means over larger clips",
                "means.all.own_size.methods.*",
                "name sharpness l1_ratio",
            ),
            (
                "At the clips' own size, by clip",
                "clips.*",
                "clip own_size.{width,height,driven} "
                "own_size.methods.{composed,enlarged}.{sharpness,l1_ratio}",
            ),
            *_exact_tables("means.all.exact", "model,hold,blur,flow,oracle"),
            (
                "Against the exact field, by clip",
                "clips.*",
                f"clip exact.skill.{{model,blur,flow}} "
                f"exact.{{endpoint_error,endpoint_hold}} {_LANDMARKS}",
            ),
        ],
        headlines=_RECONSTRUCTION,
        high_is_bad=True,
    ),
    "prediction": Layout(
        what="One subject's clip animates another subject's picture; the true result is known.",
        units="pairs",
        flow="exact field; DIS and Farneback for F(y->S)",
        notes=_PREDICTION_NOTES,
        mean=means.over_pairs,
        more=means.by_subject,
        tables=[
            *_exact_tables("means.exact", "model,hold,blur,oracle,another_seed"),
            ("Fidelity, means over pairs", "means.methods.*", f"name {_FIDELITY}"),
            ("By source subject: the model", "subjects.source.*", _BY_SUBJECT),
            ("By driving subject: the model", "subjects.driving.*", _BY_SUBJECT),
            (
                "By pair",
                "pairs.*",
                "pair aligned_by driven mean_flow exact.l1.{model,hold,blur,oracle,another_seed} "
                "exact.skill.{model,blur} exact.endpoint_error "
                f"methods.model.{{sharpness,motion_agreement,temporal_correlation}} {_LANDMARKS}",
            ),
        ],
        headlines=_PREDICTION,
        high_is_bad=False,
        intervals=[("skill", "exact.model_skill"), ("landmark error", "exact.landmark_ratio")],
    ),
    "transfer": Layout(
        what="Another subject's clip animates each clip's middle frame; nothing is known.",
        units="pairs",
        flow="none",
        notes=_TRANSFER_NOTES,
        mean=means.over_transfers,
        more=lambda rows, seed: {},
        tables=[
            ("Leakage, means over pairs", "means.methods.*", f"name {_NCC} leaks"),
            ("By group: the model", "groups.*", f"name pairs methods.model.{_NCC}"),
            (
                "By pair",
                "pairs.*",
                f"pair group aligned_by driven methods.{{model,absolute}}.{_NCC} "
                "methods.{model,absolute}.leaks",
            ),
        ],
        headlines=_TRANSFER,
        high_is_bad=True,
    ),
    "tracking": Layout(
        what="Labelled points of one frame are looked for in others by the model's motion.",
        units="clips",
        flow=f"OpenCV DIS, preset {FLOW_PRESET}, from the source to the frame",
        notes=_TRACKING_NOTES,
        mean=means.over_tracks,
        more=means.by_point,
        tables=[
            ("Share of hold's error, over subjects", "means.all.ratio", "model flow"),
            ("By group", "means.*", f"name clips {_ERRORS} lost"),
            ("By point", "points.*", f"name clips {_ERRORS}"),
            ("By clip", "clips.*", f"clip group driven {_ERRORS} lost"),
        ],
        headlines=_TRACKING,
        high_is_bad=True,
        intervals=[("error", "ratio.model")],
    ),
    "detection": Layout(
        what="The landmarks that the model learned are looked for in labelled frames.",
        units="clips",
        flow="none",
        notes=_DETECTION_NOTES,
        mean=means.over_detections,
        more=means.by_point,
        tables=[
            ("Over subjects", "means.all", "error ratio.model"),
            ("By group", "means.*", "name clips errors.{model,constant} share.model"),
            ("By point", "points.*", "name clips errors.{model,constant}"),
            ("By clip", "clips.*", "clip group driven errors.{model,constant} share.model"),
        ],
        headlines=_DETECTION,
        high_is_bad=True,
        intervals=[("pixels", "error"), ("error", "ratio.model")],
    ),
}
