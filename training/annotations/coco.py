"""COCO keypoints (cocodataset.org, "Data format"): JSON with images, categories, annotations.

A category names its keypoints; an annotation has [x, y, v] for each: v 0 is not labelled, 1 is
labelled and hidden, 2 is labelled and visible. Keypoints of COCO are indices of pixels from 0, so 0
is the CENTRE of the first pixel (its boxes and outlines count from the corner). Some tools, CVAT
among them, write keypoints that count from the corner too.
"""

from __future__ import annotations

from pathlib import Path

from .json_node import Node, parse_json
from .marks import Mark, Marks


def is_coco(root: Node) -> bool:
    return "images" in root and "annotations" in root


def read_coco(file: Path, data: bytes) -> Marks:
    """The keypoints of a COCO file. The folder of an image's ``file_name`` is taken as its clip.

    Raises:
        InputError: with the path of what is wrong.
    """
    root, found = parse_json(file, data), Marks(corner=False)
    names = {
        category.at("id").whole(): [name.text() for name in category.list("keypoints")]
        for category in root.list("categories")
    }
    images = {image.at("id").whole(): image for image in root.list("images")}
    for one in root.list("annotations"):
        values = one.list("keypoints")
        if not values:
            found.left_out["annotations without keypoints"] += 1
            continue
        category, number = one.at("category_id").whole(), one.at("image_id").whole()
        known = names.get(category, [])
        if len(values) != 3 * len(known):
            said = f"the category {category} names {len(known)}"
            raise one.error(f"has {len(values)} numbers for keypoints, and {said}", "three each")
        if number not in images:
            raise one.error(f"is of the image {number}, which is not listed", "add it to images")
        for k, name in enumerate(known):
            x, y, state = values[3 * k : 3 * k + 3]
            if state.whole() > 2:
                raise state.error(f"is {state.whole()}", "the third number is 0, 1 or 2")
            if state.whole():
                mark = _placed(images[number], name, x, y)
                found.add(mark._replace(visible=state.whole() == 2))
            else:
                found.left_out["points that COCO calls not labelled (v=0)"] += 1
    if any(mark.x % 1 or mark.y % 1 for mark in found.marks):
        found.notes.append(
            "0 is taken as the centre of the first pixel, as in COCO; give --origin corner if the "
            "tool counts from the picture's corner, as CVAT does"
        )
    return found


def _placed(image: Node, name: str, x: Node, y: Node) -> Mark:
    folder, _, frame = image.at("file_name").text().replace("\\", "/").rpartition("/")
    size = None
    if "width" in image and "height" in image:
        size = image.at("width").whole(), image.at("height").whole()
    return Mark(x.where, folder or None, frame, name, x.number(), y.number(), size=size)
