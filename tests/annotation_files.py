"""Files of annotation tools, made in code: the same points, each as its tool writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

CLIP, SIZE = "a.mkv", (40, 32)
#: By frame and name, pixels from the centre of the first one; of three points of two frames.
POINTS = {
    0: {"neck": (3.25, 4.5), "apex": (10.0, 12.0)},
    2: {"neck": (5.25, 8.5), "apex": (11.5, 12.25)},
}


def pair(points: Mapping[int, Any] = POINTS, *, older: bool = False, **extra: Any) -> str:
    """Pair's JSON; `older`: with the keys of older files."""

    def key(name: str) -> str:
        return f"class {name} * __ptr64" if older else name

    ids = {"neck": 3, "apex": 8}
    frames = [
        {
            "ImageIndex": frame,
            "LabelList": [
                {"Label": ids[name], "Position": [x, y, 0.0]} for name, (x, y) in places.items()
            ],
        }
        for frame, places in points.items()
    ]
    table = [{"Color": [0, 0, 255, 255], "Desc": name, "ID": n} for name, n in ids.items()]
    models = {key("ColorLabelTableModel"): table, "EllipseModel": None}
    models[key("LandMarkListModel")] = {"Lines": None, "Points": frames}
    about = {"Name": CLIP, "Width": SIZE[0], "Height": SIZE[1]}
    return json.dumps({"FileInfo": about, "Models": {**models, **extra}, "Polys": None})


def cvat(body: str | None = None, size: tuple[int, int] = SIZE, meta: str = "") -> str:
    """CVAT for video: by default a track of points and one of skeletons."""
    neck = "".join(
        f'<points frame="{frame}" keyframe="1" outside="0" occluded="0" '
        f'points="{x + 0.5:.2f},{y + 0.5:.2f}" z_order="0"></points>'
        for frame, (x, y) in ((frame, places["neck"]) for frame, places in POINTS.items())
    )
    apex = "".join(
        f'<skeleton frame="{frame}" keyframe="1" z_order="0"><points label="apex" keyframe="1" '
        f'outside="0" occluded="0" points="{x + 0.5:.2f},{y + 0.5:.2f}"></points></skeleton>\n'
        for frame, (x, y) in ((frame, places["apex"]) for frame, places in POINTS.items())
    )
    body = body or (
        f'<track id="0" label="neck" source="manual">\n{neck}</track>\n'
        f'<track id="1" label="heart" source="manual">\n{apex}</track>\n'
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta>'
        "<task><id>5</id><name>my task</name><mode>interpolation</mode><labels><label><name>neck"
        f"</name></label></labels>{meta}<original_size><width>{size[0]}</width>"
        f"<height>{size[1]}</height></original_size></task><source>{CLIP}</source></meta>\n"
        f"{body}</annotations>\n"
    )


def coco(names: tuple[str, str] = ("0.png", "2.png"), states: tuple[int, int] = (2, 2)) -> str:
    """COCO keypoints; `names`: of the two images, `states`: of the first image's points."""
    width, height = SIZE
    images = [
        {"id": 7 + i, "file_name": name, "width": width, "height": height}
        for i, name in enumerate(names)
    ]
    annotations = []
    for i, places in enumerate(POINTS.values()):
        shown = states if i == 0 else (2, 2)
        values = [
            value
            for (x, y), state in zip((places["apex"], places["neck"]), shown, strict=True)
            for value in ((x, y, state) if state else (0, 0, 0))
        ]
        annotations.append({"id": i, "image_id": 7 + i, "category_id": 1, "keypoints": values})
    category = {"id": 1, "name": "heart", "keypoints": ["apex", "neck"], "skeleton": [[1, 2]]}
    return json.dumps({"images": images, "annotations": annotations, "categories": [category]})


def slicer(spacing: tuple[float, float] = (0.5, 0.25), space: str = "LPS", **extra: Any) -> str:
    """AnnotateUltrasound's: a line of the pleura from neck to apex; `space` "": an older file."""
    sign, frames = 1 if space == "LPS" else -1, {}
    for frame, places in POINTS.items():
        ends = [places["neck"], places["apex"]]
        frames[frame] = [[sign * x * spacing[0], sign * y * spacing[1], 0.0] for x, y in ends]
    if not space:
        older = {str(n): {"pleura_lines": [line], "b_lines": []} for n, line in frames.items()}
        return json.dumps({"SOPInstanceUID": "1.2", "frame_annotations": older})
    listed = [
        {
            "frame_number": n,
            "coordinate_space": space,
            "pleura_lines": [{"rater": "tom", "line": {"points": line}}],
            "b_lines": [],
            **extra,
        }
        for n, line in frames.items()
    ]
    return json.dumps({"SOPInstanceUID": "1.2", "frame_annotations": listed, "labels": []})


def onuvs(points: Mapping[Any, Any] = POINTS) -> str:
    """Points by frame."""
    return json.dumps(
        {str(frame): {name: [x, y, 0] for name, (x, y) in places.items()}
         for frame, places in points.items()}
    )  # fmt: skip
