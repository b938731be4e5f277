"""What the review page shows and does: the queue, pictures of one label, decisions."""

from __future__ import annotations

import io
import tempfile
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tasktokens.datasets.formats.pictures import encode_png
from tasktokens.datasets.formats.runs import flat_mask
from tasktokens.datasets.told_apart import COMPLETED
from tasktokens.errors import DataError
from tasktokens.review.decisions import Decisions, decided_row
from tasktokens.review.folder import Key
from tasktokens.review.order import Ranked
from tasktokens.review.writing import different, write_label
from tasktokens.tasks.base import Array

THUMBNAIL = 240
"""Pixels of the longer side of a picture in the gallery."""


class Session:
    """Labels in the order of doubt, and what is decided of them. Calls may come from several threads.

    Given labels in which only some classes were labelled are shown with what was discovered of the others, and are not
    decided on.

    Args:
        decisions: the journal of the folder, which is held open.
        queue: the labels, the most doubtful first.
    """

    def __init__(self, decisions: Decisions, queue: Sequence[Ranked]) -> None:
        self.decisions, self.folder = decisions, decisions.folder
        self.queue = queue
        self._places = {each.key: place for place, each in enumerate(queue)}
        self._lock = threading.Lock()

    def overview(self, start: int, count: int) -> dict[str, Any]:
        """A part of the queue, and how much is done of each task."""
        with self._lock:
            done: dict[str, Counter[str]] = {task: Counter() for task in self.folder.tasks}
            for each in self.queue:
                done[each.key.task][self._source(each.key)] += 1
            items = [self._item(place) for place in range(start, min(start + count, len(self.queue)))]
        return {
            "folder": self.folder.root.resolve().name,
            "total": len(self.queue),
            "completed": sum(counts[COMPLETED] for counts in done.values()),
            "start": start,
            "items": items,
            "done": {task: dict(counts) for task, counts in done.items() if counts},
        }

    def _item(self, place: int) -> dict[str, Any]:
        key, reason = self.queue[place]
        row = self.folder.table.get(key)
        return {
            "place": place,
            "id": key.id,
            "task": key.task,
            "source": self._source(key),
            "confidence": None if row is None else row.confidence,
            "reason": reason,
        }

    def _source(self, key: Key) -> str:
        """Where a label comes from; of one that was given for some classes only, that it was completed."""
        return COMPLETED if self.folder.is_completed(key) else self.folder.source(key)

    # -- pictures ------------------------------------------------------------------------------------------------------
    def image(self, place: int) -> bytes:
        """The photograph as JPEG, in the size of its label."""
        return _jpeg(self.folder.index.images[self._key(place).id].read())

    def label(self, place: int) -> bytes:
        """The label in colours as PNG (RGBA), transparent where it is void."""
        return encode_png(self._coloured(self._key(place)))

    def confidence(self, place: int) -> bytes | None:
        """The confidence as PNG, 0..255 for 0..1; None where there is none."""
        key = self._key(place)
        _, valid = self.folder.read(key)
        found = self.folder.confidence(key, (valid.shape[0], valid.shape[1]))
        return None if found is None else encode_png(np.rint(found * 255).astype(np.uint8))

    def thumbnail(self, place: int) -> bytes:
        """Photograph and label side by side as a small JPEG; void is black."""
        key = self._key(place)
        photo, label = (
            Image.fromarray(pixels)
            for pixels in (self.folder.index.images[key.id].read(), self._coloured(key)[..., :3].copy())
        )
        photo.thumbnail((THUMBNAIL, THUMBNAIL))
        label = label.resize(photo.size, Image.Resampling.NEAREST)
        both = Image.new("RGB", (2 * photo.width, photo.height))
        both.paste(photo, (0, 0))
        both.paste(label, (photo.width, 0))
        return _jpeg(np.asarray(both))

    def legend(self, place: int) -> dict[str, Any]:
        """What the colours of the label mean: swatches with names, and the names of both ends of a bar of colours."""
        key = self._key(place)
        value, valid = self.folder.shown(key)
        legend = self.folder.tasks[key.task].legend(value[:, valid] if valid.any() else None)
        bar = None if legend.bar is None else ["#" + bytes(colour).hex() for colour in legend.bar[::4].tolist()]
        swatches = [["#" + bytes(colour).hex(), name] for colour, name in legend.swatches]
        return {"swatches": swatches, "bar": bar, "ends": list(legend.ends)}

    def _coloured(self, key: Key) -> Array:
        value, valid = self.folder.shown(key)
        colours = self.folder.tasks[key.task].colourise(value, valid)
        return np.dstack([np.where(valid[..., None], colours, 0), np.where(valid, 255, 0)]).astype(np.uint8)

    # -- decisions -----------------------------------------------------------------------------------------------------
    def decide(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Accept or reject a label, or accept a part of it.

        Args:
            values: ``place``; ``decision``: ``accept`` or ``reject``; for a part, ``threshold`` (0 to 1: pixels must be
                more confident) and ``void``: run lengths, row by row, of pixels that are kept and made void in turn.

        Returns:
            The item, and how many pixels became void.

        Raises:
            DataError: the words or numbers are not those.
        """
        try:
            place, decision = int(values["place"]), str(values["decision"])
            threshold = float(values.get("threshold") or 0)
            painted = values.get("void")
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"a decision must name place and decision ({error})") from error
        if decision not in ("accept", "reject") or not 0 <= threshold <= 1:
            raise DataError(f"a decision must be accept or reject, with a threshold from 0 to 1, found {decision!r}")
        key = self._key(place)
        if self.folder.is_completed(key):
            raise DataError(
                f"the label of task '{key.task}' for '{key.id}' was given, for some classes, and a given label is not "
                f"decided on; where what was discovered of the others is wrong, remove "
                f"{COMPLETED}/{key.task}/{key.id}.png"
            )
        with self._lock, tempfile.TemporaryDirectory() as scratch:
            changed, source = 0, "rejected"
            content, coverage = None, None
            if decision == "accept":
                value, valid = self.folder.read(key)
                kept = valid & self._kept(key, valid, threshold, painted)
                changed = int(different(value, valid, value, kept).sum())
                source = "corrected" if changed or self.folder.source(key) == "corrected" else "accepted"
                if changed:
                    content = write_label(self.folder, key, value, kept, Path(scratch))
                    coverage = float(kept.mean())
            self.decisions.decide([(key, decided_row(self.folder, key, source, coverage), content)])
            return {"item": self._item(place), "changed": changed}

    def undo(self) -> dict[str, Any]:
        """Take back the last decision that stands."""
        with self._lock:
            keys = self.decisions.undo()
            return {"items": [self._item(self._places[key]) for key in keys if key in self._places]}

    def _kept(self, key: Key, valid: Array, threshold: float, painted: Any) -> Array:
        kept = np.ones_like(valid)
        if threshold > 0:
            confidence = self.folder.confidence(key, (valid.shape[0], valid.shape[1]))
            if confidence is None:
                raise DataError(f"the label of task '{key.task}' for '{key.id}' has no confidence to be cut at")
            kept &= np.rint(confidence * 255) > threshold * 255
        if painted is not None:
            try:
                kept &= ~flat_mask(painted, valid.size).reshape(valid.shape)
            except (ValueError, TypeError, OverflowError) as error:
                raise DataError(f"'void' must be run lengths of the label's {valid.size} pixels ({error})") from error
        return kept

    def _key(self, place: int) -> Key:
        if not 0 <= place < len(self.queue):
            raise DataError(f"the queue has {len(self.queue)} labels, found place {place}")
        return self.queue[place].key


def _jpeg(pixels_HW3: Array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels_HW3)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
