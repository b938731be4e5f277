"""Label Studio: JSON of tasks with brush masks, ``predictions[].score`` for what is to be reviewed first.

https://labelstud.io/guide/export: results of the type ``brushlabels`` with ``format: rle``, and polygons in percent.
Written are predictions, one brush per class with "no label" among them, so that Label Studio shows what a person has
submitted (``annotations``) apart from them. Read are the last annotation that was not cancelled, or, marked as not
reviewed yet, the prediction. The choice ``decision`` (accepted, rejected) is a person's.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import quoteattr

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
from tasktokens.datasets.formats.runs import brush_bytes, brush_mask
from tasktokens.errors import DataError
from tasktokens.utils import strict_json
from tasktokens.utils.safe_io import check_pixels, load_json

TASKS, CONFIG = "tasks.json", "label_config.xml"
_KINDS = {"brushlabels": "brushlabels", "polygonlabels": "polygonlabels"}
_DECISIONS: dict[str, Decision] = {"accepted": "accepted", "rejected": "rejected"}


@FORMATS.register("label_studio")
class LabelStudio(Format):
    """Label Studio JSON: brush masks and polygons; predictions with scores."""

    def recognises(self, archive: Archive) -> bool:
        """A JSON list of tasks with ``data`` and ``annotations`` or ``predictions``."""
        names = archive.find(".json")
        if len(names) != 1:
            return False
        begin = archive.read(names[0])[:200_000].lstrip()
        return (
            begin.startswith(b"[") and b'"data"' in begin and (b'"annotations"' in begin or b'"predictions"' in begin)
        )

    def read(self, archive: Archive) -> Annotations:
        """Regions by task; every label of the configuration, if there is one, or of a region has a number."""
        names = archive.find(".json")
        if len(names) != 1:
            raise DataError(f"{archive.path} must hold one JSON file of Label Studio, found {len(names)}")
        where = archive.where(names[0])
        try:
            tasks = load_json(archive.read(names[0]).decode("utf-8"))
            if not isinstance(tasks, list):
                raise ValueError("it is no list of tasks")
            parsed = [_parse(task) for task in tasks]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{where} is no export of Label Studio ({error}); export as JSON, not JSON-MIN") from error
        shown = [label for _, regions, _ in parsed for _, label, _ in regions]
        classes = tuple(dict.fromkeys([*_configured(archive), *shown]))
        numbers = {name: number for number, name in enumerate(classes)}
        return Annotations(classes, tuple(_entry(*each, numbers, where) for each in parsed))

    def write(self, out: zipfile.ZipFile, vocabulary: Vocabulary, items: Iterable[ExportItem]) -> None:
        """``tasks.json`` to import, ``label_config.xml`` for the labelling interface, and the images."""
        tasks = []
        for item in items:
            tasks.append(_task(item, vocabulary))
            add_image(out, item)
        add_file(out, TASKS, strict_json.dumps(tasks, ensure_ascii=False))
        add_file(out, CONFIG, _config(vocabulary))


# -- writing -----------------------------------------------------------------------------------------------------------
def _task(item: ExportItem, vocabulary: Vocabulary) -> dict[str, Any]:
    height, width = item.size
    regions = [
        {
            "id": f"region{number}",
            "type": "brushlabels",
            "from_name": "label",
            "to_name": "image",
            "origin": "manual" if item.source == "given" else "prediction",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": item.score(mask),
            "value": {
                "format": "rle",
                "rle": brush_bytes(mask),
                "brushlabels": [vocabulary.void if number == VOID else vocabulary.names[number]],
            },
        }
        for number, mask in item.masks()
    ]
    prediction = {"model_version": f"tasktokens {item.source}", "score": item.score(), "result": regions}
    data = {"image": f"/data/local-files/?d=images/{item.file}", "file": item.file, "source": item.source}
    return {"data": data, "predictions": [prediction]}


def _config(vocabulary: Vocabulary) -> str:
    labels = "\n".join(
        f'    <Label value={quoteattr(name)} background="#{bytes(colour).hex()}"/>'
        for name, colour in vocabulary.labels
    )
    return (
        f'<View>\n  <Image name="image" value="$image" zoom="true"/>\n  <BrushLabels name="label" toName="image">\n'
        f"{labels}\n  </BrushLabels>\n"
        f'  <Choices name="decision" toName="image" choice="single">\n    <Choice value="accepted"/>\n'
        f'    <Choice value="rejected"/>\n  </Choices>\n</View>\n'
    )


# -- reading -----------------------------------------------------------------------------------------------------------
_Region = tuple[str, str, Mapping[str, Any]]
"""Kind, label, and what the file says of it."""


def _parse(task: Mapping[str, Any]) -> tuple[str, list[_Region], Decision]:
    """The image's name, the regions that count, and the decision."""
    annotations = [each for each in task.get("annotations") or [] if not each.get("was_cancelled")]
    chosen = annotations or list(task.get("predictions") or [])
    results = chosen[-1]["result"] if chosen else []
    regions, decision = [], "" if annotations else "open"
    for result in results:
        kind = str(result["type"]).lower()
        if kind == "choices":
            words = [str(word).lower() for word in result["value"]["choices"]]
            decision = next((_DECISIONS[word] for word in words if word in _DECISIONS), decision)
        elif kind in _KINDS:
            labels = result["value"][_KINDS[kind]]
            if len(labels) != 1:
                raise ValueError(f"a region has {len(labels)} labels; give it one")
            regions.append((kind, str(labels[0]), result))
        else:
            raise ValueError(f"a region of the type '{kind}', which covers no pixels; use brushes or polygons")
    return _image_name(task["data"]), regions, decision  # type: ignore[return-value]


def _image_name(data: Mapping[str, Any]) -> str:
    """The image's file: as it was exported, or the path in its address."""
    if "file" in data:
        return str(data["file"])
    address = urlsplit(str(data["image"]))
    local = parse_qs(address.query).get("d")
    path = unquote(local[0] if local else address.path).lstrip("/")
    return re.sub(r"^(?:.*/)?images/", "", path)


def _configured(archive: Archive) -> list[str]:
    """The labels of ``label_config.xml``, in its order, where it lies beside; plain text is enough for that."""
    names = archive.find(CONFIG)
    if not names:
        return []
    from xml.sax.saxutils import unescape

    text = archive.read(names[0]).decode("utf-8", errors="replace")
    quotes = {"&quot;": '"', "&apos;": "'"}
    return [unescape(found[1], quotes) for found in re.findall(r"<Label\s+value=([\"'])(.*?)\1", text)]


def _entry(name: str, regions: list[_Region], decision: Decision, numbers: Mapping[str, int], where: str) -> Entry:
    what = f"image '{name}' of {where}"
    try:
        sizes = {(int(r["original_height"]), int(r["original_width"])) for _, _, r in regions}
        if len(sizes) > 1:
            raise ValueError("its regions are of images of several sizes")
        for size in sizes:
            check_pixels(*size)
        if any(float(region.get("image_rotation") or 0) for _, _, region in regions):
            raise ValueError("the image was rotated in Label Studio, which its labels do not follow")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{what} is damaged ({error}); export it again") from error
    layers = tuple((numbers[label], kind, region["value"]) for kind, label, region in regions)
    size_in_file = next(iter(sizes), None)
    draw = partial(_draw, layers=layers, size_in_file=size_in_file, what=what)
    return Entry(name, size_in_file, draw, decision, empty=not layers)


def _draw(size: Size, layers: tuple[Any, ...], size_in_file: Size | None, what: str) -> Array:
    if size_in_file is not None:
        same_size(size_in_file, size, what)
    drawn = [(number, partial(_draw_region, kind=kind, value=value, what=what)) for number, kind, value in layers]
    return paint(drawn, size, on_top=True)


def _draw_region(size: Size, kind: str, value: Mapping[str, Any], what: str) -> Array:
    height, width = size
    try:
        if kind == "polygonlabels":
            points = np.asarray(value["points"], np.float64) * [width / 100, height / 100]
            return fill_polygon(points, height, width)
        if value.get("format", "rle") != "rle":
            raise ValueError(f"brushes in the format {value['format']!r}")
        return brush_mask(value["rle"], height, width)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(f"a region of {what} is damaged ({error}); export it again") from error
