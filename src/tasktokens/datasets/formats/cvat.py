"""CVAT for images 1.1: one XML with masks as run lengths in a box, in layers.

https://docs.cvat.ai/docs/dataset_management/formats/format-cvat: ``<mask label rle left top width height z_order>``,
run lengths row by row, those outside first. Written are one mask per class and image, "no label" among them, with the
attributes ``confidence`` and ``source``; an image's tag ``accepted`` or ``rejected`` is a person's decision. Read are
masks, polygons, boxes and ellipses, later layers on top; lines, points and cuboids have no area and are refused.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any
from xml.etree.ElementTree import Element, ParseError, SubElement, tostring

import numpy as np

from tasktokens.datasets.formats.archive import Archive
from tasktokens.datasets.formats.base import (
    FORMATS,
    VOID,
    Annotations,
    Array,
    Decision,
    Entry,
    ExportItem,
    Format,
    Size,
    Vocabulary,
    add_file,
    add_image,
    paint,
    same_size,
)
from tasktokens.datasets.formats.polygons import fill_polygon
from tasktokens.datasets.formats.runs import flat_mask, run_lengths
from tasktokens.errors import DataError
from tasktokens.utils import strict_json
from tasktokens.utils.safe_io import check_pixels

ANNOTATIONS = "annotations.xml"
DECISIONS: dict[str, Decision] = {"accepted": "accepted", "rejected": "rejected"}
"""Tags of an image that say what a person decided."""

_SHAPES = ("mask", "polygon", "box", "ellipse")
_WITHOUT_AREA = ("polyline", "points", "cuboid", "skeleton", "track")


@FORMATS.register("cvat")
class Cvat(Format):
    """CVAT for images 1.1: masks as run lengths in an XML."""

    needs = ("defusedxml",)

    def recognises(self, archive: Archive) -> bool:
        """An XML whose first element is ``annotations``."""
        names = archive.find(".xml")
        return len(names) == 1 and b"<annotations>" in archive.read(names[0])[:4096]

    def read(self, archive: Archive) -> Annotations:
        """Masks by image; every label of the file's own list has a number, ``void`` too."""
        name = _only_xml(archive)
        where = archive.where(name)
        labels: list[str] = []
        images: list[tuple[Mapping[str, str], list[Element]]] = []
        for element in _elements(archive.read(name), where):
            if element.tag == "label":
                if element.findtext("type") != "tag":
                    labels.append(element.findtext("name") or "")
            elif element.tag == "image":
                images.append((dict(element.attrib), list(element)))
        shown = [each.get("label", "") for _, elements in images for each in elements if each.tag != "tag"]
        names = tuple(dict.fromkeys([*labels, *shown]))
        numbers = {name: number for number, name in enumerate(names)}
        entries = tuple(_entry(attributes, shapes, numbers, where) for attributes, shapes in images)
        splits: dict[str, list[str]] = {}
        for attributes, _ in images:
            if attributes.get("subset"):
                splits.setdefault(attributes["subset"].lower(), []).append(attributes["name"])
        return Annotations(names, entries, {split: tuple(found) for split, found in splits.items()} or None)

    def write(self, out: zipfile.ZipFile, vocabulary: Vocabulary, items: Iterable[ExportItem]) -> None:
        """``annotations.xml``, ``labels.json`` for CVAT's raw label editor, and the images."""
        taken = {*vocabulary.names} & {*DECISIONS}
        if taken:
            raise DataError(f"a class is called '{min(taken)}', which CVAT needs for a person's decision; rename it")
        parts = [b"<?xml version='1.0' encoding='utf-8'?>\n<annotations>\n<version>1.1</version>", _meta(vocabulary)]
        for number, item in enumerate(items):
            parts.append(_image(number, item, vocabulary))
            add_image(out, item)
        add_file(out, ANNOTATIONS, b"\n".join([*parts, b"</annotations>\n"]))
        add_file(out, "labels.json", strict_json.dumps(_label_settings(vocabulary), indent=1))


# -- writing -----------------------------------------------------------------------------------------------------------
def _meta(vocabulary: Vocabulary) -> bytes:
    """The list of labels, from which CVAT makes those of a new task."""
    meta = Element("meta")
    labels = SubElement(SubElement(meta, "task"), "labels")
    for settings in _label_settings(vocabulary):
        label = SubElement(labels, "label")
        for key in ("name", "color", "type"):
            SubElement(label, key).text = settings[key]
        attributes = SubElement(label, "attributes")
        for values in settings["attributes"]:
            attribute = SubElement(attributes, "attribute")
            for key, value in values.items():
                SubElement(attribute, key).text = "\n".join(value) if isinstance(value, list) else str(value)
    return tostring(meta)


def _label_settings(vocabulary: Vocabulary) -> list[dict[str, Any]]:
    attributes = [
        {"name": name, "mutable": "False", "input_type": "text", "default_value": "", "values": [""]}
        for name in ("confidence", "source")
    ]
    masks = [
        {"name": name, "color": "#" + bytes(colour).hex(), "type": "mask", "attributes": attributes}
        for name, colour in vocabulary.labels
    ]
    tags = [{"name": name, "color": "#888888", "type": "tag", "attributes": list[Any]()} for name in DECISIONS]
    return [*masks, *tags]


def _image(number: int, item: ExportItem, vocabulary: Vocabulary) -> bytes:
    height, width = item.size
    image = Element("image", id=str(number), name=item.file, width=str(width), height=str(height))
    for of, mask in item.masks():
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        top, bottom, left, right = (int(n) for n in (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1))
        attributes = {
            "label": vocabulary.void if of == VOID else vocabulary.names[of],
            "source": "manual" if item.source == "given" else "auto",
            "occluded": "0",
            "rle": ", ".join(map(str, run_lengths(mask[top:bottom, left:right].ravel()))),
            "left": str(left),
            "top": str(top),
            "width": str(right - left),
            "height": str(bottom - top),
            "z_order": "0",
        }
        shape = SubElement(image, "mask", attributes)
        SubElement(shape, "attribute", name="confidence").text = f"{item.score(mask):.4f}"
        SubElement(shape, "attribute", name="source").text = item.source
    return tostring(image)


# -- reading -----------------------------------------------------------------------------------------------------------
def _only_xml(archive: Archive) -> str:
    names = archive.find(".xml")
    if len(names) != 1:
        raise DataError(f"{archive.path} must hold one XML file of CVAT, found {len(names)}")
    return names[0]


def _elements(content: bytes, where: str) -> Iterable[Element]:
    """The labels and images of a file, each whole. Document types, and with them entities, are refused."""
    from defusedxml import DefusedXmlException, ElementTree

    try:
        for _, element in ElementTree.iterparse(io.BytesIO(content), forbid_dtd=True):
            if element.tag in ("label", "image"):
                yield element
            elif element.tag in _WITHOUT_AREA:
                raise DataError(f"{where} holds a {element.tag}, which covers no pixels; draw masks or polygons")
    except DefusedXmlException as error:
        raise DataError(f"{where} declares a document type, which no annotation needs; it is not read") from error
    except (ParseError, ValueError, LookupError) as error:
        raise DataError(f"{where} is no whole XML ({error}); export it again") from error


def _entry(attributes: Mapping[str, str], elements: list[Element], numbers: Mapping[str, int], where: str) -> Entry:
    try:
        name = attributes["name"]
        size = int(attributes["height"]), int(attributes["width"])
        check_pixels(*size)
        tags = [each.get("label", "") for each in elements if each.tag == "tag"]
        decisions = {DECISIONS[tag] for tag in tags if tag in DECISIONS}
        shapes = [each for each in elements if each.tag in _SHAPES]
        layers = sorted((int(shape.get("z_order", "0")), place) for place, shape in enumerate(shapes))
        drawn = tuple(_layer(shapes[place], numbers, f"image '{name}' of {where}") for _, place in layers)
    except (KeyError, ValueError) as error:
        raise DataError(f"{where} has an image with wrong or missing {error}; export it again") from error
    if len(decisions) > 1:
        raise DataError(f"image '{name}' of {where} is tagged as accepted and as rejected; keep one")
    draw = partial(_draw, layers=drawn, size_in_file=size, what=f"image '{name}' of {where}")
    return Entry(name, size, draw, next(iter(decisions), ""), empty=not drawn)


_Layer = tuple[int, Callable[[Size], Array]]


def _layer(shape: Element, numbers: Mapping[str, int], what: str) -> _Layer:
    """Class number of a shape and how it is drawn; the element itself is let go, so that memory stays small."""
    attributes = dict(shape.attrib)
    return numbers[attributes["label"]], partial(_DRAW[shape.tag], attributes=attributes, what=what)


def _draw(size: Size, layers: tuple[_Layer, ...], size_in_file: Size, what: str) -> Array:
    same_size(size_in_file, size, what)
    return paint(layers, size, on_top=True)


def _draw_mask(size: Size, attributes: Mapping[str, str], what: str) -> Array:
    mask = np.zeros(size, bool)
    try:
        left, top, width, height = (int(attributes[key]) for key in ("left", "top", "width", "height"))
        if not (left >= 0 and top >= 0 and 0 < width <= size[1] - left and 0 < height <= size[0] - top):
            raise ValueError(f"box {left}, {top}, {width}x{height} outside the image")
        lengths = np.array(attributes["rle"].split(","), dtype=np.int64)
        mask[top : top + height, left : left + width] = flat_mask(lengths, width * height).reshape(height, width)
    except (KeyError, ValueError, OverflowError) as error:
        raise DataError(f"a mask of {what} is damaged ({error}); export it again") from error
    return mask


def _draw_polygon(size: Size, attributes: Mapping[str, str], what: str) -> Array:
    try:
        points = np.array([pair.split(",") for pair in attributes["points"].split(";")], dtype=np.float64)
        return fill_polygon(points, *size)
    except (KeyError, ValueError) as error:
        raise DataError(f"a polygon of {what} is damaged ({error}); export it again") from error


def _draw_box(size: Size, attributes: Mapping[str, str], what: str) -> Array:
    if float(attributes.get("rotation", 0)):
        raise DataError(f"a box of {what} is rotated; draw a polygon")
    left, top, right, bottom = (attributes[key] for key in ("xtl", "ytl", "xbr", "ybr"))
    points = f"{left},{top};{right},{top};{right},{bottom};{left},{bottom}"
    return _draw_polygon(size, {"points": points}, what)


def _draw_ellipse(size: Size, attributes: Mapping[str, str], what: str) -> Array:
    try:
        cx, cy, rx, ry = (float(attributes[key]) for key in ("cx", "cy", "rx", "ry"))
        if not (rx > 0 and ry > 0) or float(attributes.get("rotation", 0)):
            raise ValueError("rotated, or without an area")
    except (KeyError, ValueError) as error:
        raise DataError(f"an ellipse of {what} is damaged or rotated ({error}); draw a polygon") from error
    y, x = np.ogrid[: size[0], : size[1]]
    inside: Array = ((x + 0.5 - cx) / rx) ** 2 + ((y + 0.5 - cy) / ry) ** 2 <= 1
    return inside


_DRAW: dict[str, Callable[..., Array]] = {
    "mask": _draw_mask,
    "polygon": _draw_polygon,
    "box": _draw_box,
    "ellipse": _draw_ellipse,
}
