"""Tasks whose label is a class id per pixel: semantic segmentation and human parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tasktokens.errors import ConfigError, LabelError
from tasktokens.metrics.mean_iou import MeanIoU
from tasktokens.tasks.base import KINDS, Array, Joined, Task, known_keys, largest_probability
from tasktokens.tasks.class_files import classes_of_colours, look_up, whole_numbers
from tasktokens.tasks.class_settings import class_name, parse_colours, parse_ids, parse_mirror
from tasktokens.tasks.examine import Summary, Sums, Suspicion, class_sums, summarise_classes
from tasktokens.tasks.joined_classes import join_classes
from tasktokens.tasks.mirror import Pairs, one_of_pair_unseen, swap, swap_channels, unpaired, wrong_pairs
from tasktokens.tasks.palettes import judge_palettes, palette_sums
from tasktokens.tasks.partial_classes import (
    Sets,
    coded,
    labelled_set,
    marginal_loss,
    mirrored_values,
    parse_labelled,
    possible,
    rest,
    with_mirrored,
    wrong_sets,
)
from tasktokens.tasks.stored import StoredLabel
from tasktokens.tasks.void import is_void, parse_void_ids
from tasktokens.utils.colours import class_palette
from tasktokens.utils.label_maps import OUTSIDE_NAME, ClassMaps
from tasktokens.utils.legends import Colour

IMPOSSIBLE = -1e4
"""A logit whose class has no probability; finite, since logits are enlarged by means of neighbours."""


@dataclass(frozen=True)
@KINDS.register("classes")
class Segmentation(Task):
    """One class id per pixel, 0 to ``len(classes) - 1``; ids in ``void`` are ignored.

    Labels are uint8 (1, H, W). Loss: cross-entropy. Confidence: the largest softmax probability.

    Attributes:
        classes: their names.
        void: stored ids that mean "no label".
        ids: pairs of a stored id and its class, for files whose ids are not 0, 1, 2, ...; empty: they are.
        colours: one (red, green, blue) per class, for files that are RGB-coded; empty: they hold ids.
        void_colours: colours that mean "no label".
        mirror: pairs of classes that change places in a mirrored image, such as left and right arms.
        labelled: sets of classes, each of which alone was labelled in some images; in those, a pixel outside is "one of
            the other classes", which the value ``len(classes) + k`` of set k stands for (`tasks.partial_classes`).
        reads: the set of the files that `read` gets; None: of these all classes were labelled.

    Examples:
        >>> task = Segmentation("semseg", classes=("floor", "wall"))
        >>> logits = torch.tensor([0.0, 2.0]).view(1, 2, 1, 1)
        >>> task.decode(logits).item(), round(task.confidence(logits).item(), 2)
        (1, 0.88)
    """

    classes: tuple[str, ...] = ()
    void: tuple[int, ...] = (255,)
    ids: tuple[tuple[int, int], ...] = ()
    colours: tuple[Colour, ...] = ()
    void_colours: tuple[Colour, ...] = ()
    mirror: Pairs = ()
    labelled: Sets = ()
    reads: int | None = None

    kind: ClassVar[str] = "classes"
    pipeline_tag: ClassVar[str] = "image-segmentation"
    storage: ClassVar[tuple[str, ...]] = (
        "void", "ids", "colours", "void_colours", "labelled", "reads",
    )  # fmt: skip

    @property
    def num_tokens(self) -> int:
        """One logit per class."""
        return len(self.classes)

    def spec(self) -> dict[str, Any]:
        """Class names and void ids; ids, colours and mirror pairs where they are set."""
        coded: dict[str, Any] = {"ids": dict(self.ids)} if self.ids else {}
        coded |= {name: [list(c) for c in colours] for name in ("colours", "void_colours")
                  if (colours := getattr(self, name))}  # fmt: skip
        coded |= {"mirror": [[self.classes[a], self.classes[b]] for a, b in self.mirror]} if self.mirror else {}
        coded |= {"labelled": self._labelled_names()} if self.labelled else {}
        return {"kind": self.kind, "classes": list(self.classes), "void": list(self.void)} | coded

    def _labelled_names(self) -> list[Any]:
        """As `parse` reads them: one list where all files are of it, else a list of lists."""
        names = [[self.classes[number] for number in each] for each in self.labelled]
        return names[0] if self.reads == 0 and self._own_sets() == 1 else names

    def _own_sets(self) -> int:
        """Sets besides those that a mirror image alone has."""
        return next(n for n in range(len(self.labelled) + 1)
                    if with_mirrored(self.labelled[:n], self.mirror) == self.labelled)  # fmt: skip

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """As `Task.parse`; ``colours`` may be a mapping from class names to RGB, which then names the classes."""
        known_keys(values, "classes", "void", "ids", "colours", "void_colours", "mirror", "labelled")
        colours = values.get("colours", [])
        named = isinstance(colours, Mapping)
        classes = values.get("classes", list(colours) if named else None)
        if classes is None:
            raise KeyError("classes")
        if not isinstance(classes, list | tuple):
            more = ", and the stored ids under ids" if isinstance(classes, Mapping) else ""
            raise ConfigError(f"classes must be a list of names{more}, found {classes!r}")
        names = tuple(map(class_name, classes))
        if named:
            by_name = {class_name(name): colour for name, colour in colours.items()}
            for name in [*names, *by_name]:
                if name not in by_name or name not in names:
                    raise ConfigError(f"'classes' and 'colours' must name the same classes; '{name}' is in one only")
            colours = [by_name[name] for name in names]
        mirror = parse_mirror(values.get("mirror") or [], names)
        sets = parse_labelled(values.get("labelled"), names)
        alone = len(sets) == 1 and not isinstance(values["labelled"][0], list | tuple)
        # Of 256 classes that are ids, 255 is one.
        usual_void = [255] if len(names) < 256 or values.get("ids") or colours else []
        return {
            "labelled": with_mirrored(sets, mirror),
            **({"reads": 0} if alone else {}),
            "classes": names,
            "void": parse_void_ids(values.get("void", usual_void)),
            "ids": parse_ids(values.get("ids", {}), names),
            "colours": parse_colours(colours),
            "void_colours": parse_colours(values.get("void_colours", [])),
            "mirror": mirror,
        }

    def validate(self) -> str | None:
        """An error message for repeated names or colours, ids in conflict, or wrong mirror pairs."""
        if not self.classes:
            return "needs at least one class"
        if not all(name.strip() for name in self.classes):
            return "'classes' has a name without letters; each class needs a name"
        twice = [name for name, count in Counter(name.strip() for name in self.classes).items() if count > 1]
        if twice:
            return f"'classes' names '{twice[0]}' twice; each class needs a name of its own"
        if len(self.classes) > 256:
            return f"at most 256 classes, found {len(self.classes)}"
        if self.colours and self.ids:
            return "has 'colours' and 'ids'; files are either RGB-coded or hold ids"
        if self.colours and len(self.colours) != len(self.classes):
            return f"'colours' must have one colour per class: {len(self.classes)} classes, {len(self.colours)} colours"
        if len({*self.colours, *self.void_colours}) < len(self.colours) + len(self.void_colours):
            return "'colours' and 'void_colours' name a colour twice"
        both = sorted({id for id, _ in self.ids} & set(self.void))
        if both:
            return f"id {both[0]} is in 'ids' and in 'void'"
        if any(not -1 < of < len(self.classes) for _, of in self.ids):
            return f"'ids' must map to classes 0 to {len(self.classes) - 1}, found {dict(self.ids)}"
        sets = wrong_sets(self.labelled, self.reads, len(self.classes))
        return sets or wrong_pairs(self.mirror, self.classes) or super().validate()

    def class_names(self) -> tuple[str, ...]:
        """The names in the order of their ids."""
        return self.classes

    def interpret(self, stored: StoredLabel) -> tuple[Array, Array]:
        """Class ids (1, H, W) uint8 from stored ids or colours, codes where not all classes were labelled.

        Raises `LabelError` for unknown ones.
        """
        value, valid = self._interpret(stored)
        if self.reads is None:
            return value, valid
        count = len(self.classes)
        return np.where(valid, coded(value, self.labelled[self.reads], count + self.reads, count), np.uint8(0)), valid

    def _interpret(self, stored: StoredLabel) -> tuple[Array, Array]:
        stored = self._without_named_nodata(stored)
        if self.colours:
            return classes_of_colours(stored, self.colours, self.void_colours)
        ids = stored.ids()
        valid = stored.valid & ~is_void(ids, self.void)
        if np.issubdtype(ids.dtype, np.floating):
            ids, valid = whole_numbers(ids, valid, stored.where)
        known = [id for id, _ in self.ids] or range(len(self.classes))
        if self.ids:
            right = np.isin(ids, known)
        else:
            right = (ids >= 0) & (ids < len(self.classes))
        if not right[valid].all():
            wrong = np.unique(ids[valid & ~right])[:5].tolist()
            expected = f"one of {sorted(known)[:20]}" if self.ids else f"0 to {len(self.classes) - 1}"
            raise LabelError(
                f"label file {stored.where} holds class id {wrong}; expected {expected} or void {list(self.void)}: "
                f"add the class or the void id to dataset.yaml{self._counted_from_one(wrong)}"
            )
        if self.ids:
            ids = look_up(ids.astype(np.int64), dict(self.ids))
        return np.where(valid, ids, 0).astype(np.uint8)[None], valid

    def _without_named_nodata(self, stored: StoredLabel) -> StoredLabel:
        """The file without its tag "no data", where the task names that very id or grey as a class."""
        nodata = stored.nodata
        named = nodata in dict(self.ids) or any(set(colour) == {nodata} for colour in self.colours)
        return replace(stored, nodata=None) if named else stored

    def _counted_from_one(self, wrong: list[int]) -> str:
        """A hint for files that count their classes from 1, where adding a class would shift all names by one."""
        count = len(self.classes)
        if self.ids or wrong != [count]:
            return ""
        pairs = ", ".join(f"{number}: {name}" for number, name in list(enumerate(self.classes, 1))[:3])
        more = ", ..." if count > 3 else ""
        return (
            f". If the files count the {count} classes from 1: ids: {{{pairs}{more}}}, and void: [0] if 0 is no class"
        )

    def maps(self) -> ClassMaps:
        """Ids or declared colours; a palette where there are none."""
        palette = tuple((int(r), int(g), int(b)) for r, g, b in self._palette())
        return ClassMaps(palette, () if self.colours else tuple(self._stored_ids().tolist()), self.void)

    def encode(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """Ids or colours; void is a void id, or transparent."""
        return self.maps().encode(self._outside_as_class(value_CHW.astype(np.int64)), valid_HW)

    def _outside_as_class(self, ids: Array) -> Array:
        """With the first class that was not labelled for each code: files that were read as codes are so again."""
        if not self.labelled:
            return ids
        first = [rest(each, len(self.classes))[0] for each in self.labelled]
        return np.array([*range(len(self.classes)), *first])[ids]

    def _stored_ids(self) -> Array:
        """The id (classes,) that `write` stores for each class: of several, the first listed."""
        by_class = {of: id for id, of in reversed(self.ids)}
        return np.array([by_class.get(of, of) for of in range(len(self.classes))])

    def stored_classes(self) -> tuple[tuple[str, str, Colour], ...]:
        """The id or ``#rrggbb`` that files store, the name, and the picture's colour of each class."""
        return self.maps().stored_classes(self.classes)

    def value_text(self, value_C: Array) -> str:
        """The name of the class."""
        number = int(value_C[0])
        return self.classes[number] if number < len(self.classes) else OUTSIDE_NAME

    def _palette(self) -> Array:
        """Colours (classes, 3) uint8 of pictures."""
        return np.array(self.colours, np.uint8) if self.colours else class_palette(len(self.classes))

    def colourise(self, value_CHW: Array, valid_HW: Array | None = None) -> Array:
        """The declared colours, or a palette with a colour per class; void is black."""
        return self.maps().colourise(value_CHW, valid_HW)

    def examine(self, value_CHW: Array, valid_HW: Array) -> dict[str, Array]:
        """Pixels per class, and the classes that occur."""
        return class_sums(value_CHW[0], valid_HW, len(self.classes), partial=bool(self.labelled))

    def examine_stored(self, stored: StoredLabel) -> dict[str, Array]:
        """Counts that tell whether palettes differ between files; none for RGB-coded labels."""
        return {} if self.colours else palette_sums(stored)

    def seen(self, sums: Sums) -> dict[str, int]:
        """Pixels per class name."""
        return dict(zip(self.classes, sums["pixels"].tolist(), strict=True))

    def summarise(self, sums: Sums) -> Summary:
        """Share of each class, classes and mirror partners never seen, palettes that differ."""
        seen = {number: bool(count) for number, count in enumerate(sums["pixels"])}
        return (
            summarise_classes(self.classes, sums)
            .joined(one_of_pair_unseen(self.classes, self.mirror, seen))
            .joined(judge_palettes(sums))
        )

    def mirror_suspicions(self) -> list[Suspicion]:
        """Classes named left and right that no ``mirror`` pair joins."""
        return unpaired(self.classes, self.mirror)

    def flip(self, value_CHW: Tensor) -> Tensor:
        """Mirror the map and swap the ``mirror`` pairs."""
        if not self.labelled:
            return swap(value_CHW.flip(-1), self.mirror, len(self.classes))
        return mirrored_values(self.labelled, self.mirror, len(self.classes))[value_CHW.flip(-1).long()].to(torch.uint8)

    def flip_logits(self, logits_BKHW: Tensor) -> Tensor:
        """Mirror the map and swap the channels of the ``mirror`` pairs."""
        return swap_channels(logits_BKHW.flip(-1), self.mirror)

    @property
    def mirror_changes_meaning(self) -> bool:
        """Whether there are ``mirror`` pairs."""
        return bool(self.mirror)

    def crop_ok(self, value_CHW: Tensor, valid_1HW: Tensor, share: float) -> bool:
        """As in MMSegmentation's ``cat_max_ratio``; a crop without a valid pixel is not enough either."""
        ids = value_CHW.flatten().long()
        counts = torch.bincount(ids, weights=valid_1HW.flatten().float(), minlength=len(self.classes))
        return bool(counts.sum() > 0 and counts[: len(self.classes)].max() <= share * counts.sum())

    @property
    def map_channels(self) -> int:
        """One channel per class."""
        return len(self.classes)

    def label_map(self, value_BCHW: Tensor) -> Tensor:
        """One-hot (B, K, H, W); of a code the same share for each class that it leaves open."""
        classes = torch.arange(len(self.classes), device=value_BCHW.device)[:, None, None]
        found = (value_BCHW == classes).float()
        for number, labelled in enumerate(self.labelled):
            open_to = torch.zeros(len(self.classes), 1, 1, device=value_BCHW.device)
            open_to[rest(labelled, len(self.classes))] = 1 / (len(self.classes) - len(labelled))
            found = torch.where(value_BCHW == len(self.classes) + number, open_to, found)
        return found

    def prediction_map(self, logits_BKHW: Tensor) -> Tensor:
        """Probabilities (B, K, H, W)."""
        return F.softmax(logits_BKHW.float(), dim=1)

    def pixel_loss(self, logits_BKHW: Tensor, target_BCHW: Tensor) -> Tensor:
        """Cross-entropy (B, 1, H, W); of a code the likelihood summed over the classes that it leaves open."""
        # As `F.cross_entropy`, whose kernel for GPUs has no deterministic form.
        log_p = F.log_softmax(logits_BKHW.float(), dim=1)
        return (
            marginal_loss(log_p, target_BCHW, self.labelled) if self.labelled else -log_p.gather(1, target_BCHW.long())
        )

    def decode(self, logits_BKHW: Tensor) -> Tensor:
        """Most likely class id, (B, 1, H, W) uint8."""
        return logits_BKHW.max(dim=1, keepdim=True).indices.to(torch.uint8)  # `argmax` takes eight times as long

    def confidence(self, logits_BKHW: Tensor) -> Tensor:
        """Probability of the most likely class, (B, 1, H, W)."""
        return largest_probability(logits_BKHW)

    def decode_with_confidence(self, logits_BKHW: Tensor) -> tuple[Tensor, Tensor]:
        """Both from one search for the largest logit, whose probability is 1 / sum(exp(logit - largest))."""
        largest, ids = logits_BKHW.float().max(dim=1, keepdim=True)
        total = (logits_BKHW - largest).exp_().sum(dim=1, keepdim=True)
        return ids.to(torch.uint8), total.reciprocal_()

    def correct(self, prediction_BCHW: Tensor, target_BCHW: Tensor) -> Tensor:
        """The same class; of a code any class that was not labelled there."""
        if not self.labelled:
            return prediction_BCHW == target_BCHW
        return possible(prediction_BCHW, target_BCHW, self.labelled, len(self.classes))

    def difference(self, first_BCHW: Tensor, second_BCHW: Tensor) -> Tensor:
        """100 where the classes differ: the mean is a percentage of pixels."""
        return (first_BCHW != second_BCHW).float() * 100

    @property
    def difference_unit(self) -> str:
        """Percent of pixels."""
        return "%"

    @property
    def num_groups(self) -> int:
        """Confidences are calibrated per class."""
        return len(self.classes)

    def group(self, prediction_BCHW: Tensor) -> Tensor:
        """The predicted class."""
        return prediction_BCHW.long()

    def metric(self) -> MeanIoU:
        """mIoU, pixel accuracy and IoU per class."""
        return MeanIoU(len(self.classes), self.classes, self.labelled)

    # -- classes that were labelled in some images only ------------------------------------------------------------
    def coded_as(self, data: Task) -> Task:
        """With the codes of another task's labels."""
        return replace(self, labelled=data.labelled, reads=data.reads) if isinstance(data, Segmentation) else self

    def for_labelled(self, sets: Sequence[Sequence[str]]) -> Segmentation:
        """The task of images in which only some classes were labelled, for all of ``sets`` (names of classes)."""
        known = tuple(dict.fromkeys((*self.labelled, *(labelled_set(each, self.classes) for each in sets))))
        task = replace(self, labelled=with_mirrored(known, self.mirror))
        if (wrong := task.validate()) is not None:
            raise ConfigError(f"task '{self.name}': {wrong}")
        return task

    def reading(self, names: Sequence[str]) -> Segmentation:
        """The task for files in which only these classes were labelled; none: all were."""
        return replace(self, reads=self.labelled.index(labelled_set(names, self.classes)) if names else None)

    def open_pixels(self, value_CHW: Array) -> Array:
        """Where the label is a code, (H, W) bool."""
        return np.asarray(value_CHW[0] >= len(self.classes))

    def restrict(self, logits_BKHW: Tensor, labelled: Sequence[str]) -> Tensor:
        """With nothing left for the classes that were labelled: the others share all of the probability."""
        logits = logits_BKHW.float().clone()
        logits[:, list(labelled_set(labelled, self.classes))] = IMPOSSIBLE
        return logits

    def labelled_names(self) -> tuple[str, ...]:
        """The classes that were labelled in the files that `read` gets; none: all were."""
        return () if self.reads is None else tuple(self.classes[number] for number in self.labelled[self.reads])

    def join(self, parts: Mapping[str, Task]) -> Joined:
        """Classes of the same name are one; lists may differ where parts say which classes were labelled."""
        tasks = {part: task for part, task in parts.items() if isinstance(task, Segmentation)}
        if len(tasks) < len(parts) or not any(task.labelled for task in tasks.values()):
            return super().join(parts)
        return join_classes(self.name, tasks)
