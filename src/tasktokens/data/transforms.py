"""Joint geometry of an image and its labels, driven by each task's rules, and colour changes of images alone.

Plain tensors and not torchvision's tv_tensors: those know images, masks and boxes, while here a normal turns with a
flip, a depth shrinks with a zoom, an edge must survive shrinking, and each label has its own valid pixels. A subclass a
task kind with its own kernels would hide these rules from the task that they belong to, and is no faster
(``benchmarks/loading.py`` measures both).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import itemgetter

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tasktokens.config import Augmentation
from tasktokens.data.sample import Label, Labels, Sample
from tasktokens.data.sharding import WHOLE_BATCH, BatchShard
from tasktokens.losses import without_invalid
from tasktokens.tasks import Task
from tasktokens.utils.resizing import Size

_CROPS = 10  # draws of a crop, as in MMSegmentation


def resize_image(image_3HW: Tensor, size: Size) -> Tensor:
    """Stretch a uint8 image to (height, width): antialiased bilinear, within one level of the result in floats."""
    if tuple(image_3HW.shape[-2:]) == size:
        return image_3HW
    return F.interpolate(image_3HW[None], size, mode="bilinear", antialias=True, align_corners=False)[0]


def resize(sample: Sample, tasks: Mapping[str, Task], size: Size) -> Sample:
    """Stretch a sample to (height, width): `resize_image` for the image, each task's rule for its labels."""
    if tuple(sample.image.shape[-2:]) == size:
        return sample
    image = resize_image(sample.image, size)
    labels = {name: _resize_label(tasks[name], label, size) for name, label in sample.labels.items()}
    if sample.pixels.all():
        return replace(sample, image=image, pixels=no_padding(size), labels=labels)
    # By pixel centres, as the labels; an edge's area may reach into the padding, where nothing is valid.
    pixels = F.interpolate(sample.pixels[None].view(torch.uint8), size, mode="nearest-exact")[0].view(torch.bool)
    labels = {name: replace(label, valid=label.valid & pixels) for name, label in labels.items()}
    return replace(sample, image=image, pixels=pixels, labels=labels)


def _resize_label(task: Task, label: Label, size: Size) -> Label:
    value, valid = task.resize(label.value, label.valid, size)
    if label.weight is None:
        return Label(value, valid)
    return Label(value, valid, F.interpolate(label.weight[None], size, mode="nearest-exact")[0])


def resize_labels(task: Task, labels: Labels, size: Size) -> tuple[Tensor, Tensor]:
    """Value (n, C, h, w) and valid (n, 1, h, w) bool of a batch's labels at another size, by the task's own rule.

    What pixels without a label hold has no influence; they get the task's neutral value.
    """
    if len(labels.rows) == 0:
        return labels.value.new_zeros(0, task.label_channels, *size), labels.valid.new_zeros(0, 1, *size)
    values = without_invalid(task, labels.value, labels.valid)
    pairs = [task.resize(value, valid, size) for value, valid in zip(values, labels.valid, strict=True)]
    return torch.stack([value for value, _ in pairs]), torch.stack([valid for _, valid in pairs])


def shrink_to_cover(sample: Sample, tasks: Mapping[str, Task], size: Size) -> Sample:
    """Make a large sample smaller, keeping its shape, so that it still covers ``size``; small ones stay."""
    height, width = sample.image.shape[-2:]
    factor = max(size[0] / height, size[1] / width)
    if factor >= 1:
        return sample
    return resize(sample, tasks, (max(size[0], round(height * factor)), max(size[1], round(width * factor))))


def augment(
    sample: Sample,
    tasks: Mapping[str, Task],
    size: Size,
    settings: Augmentation,
    rng: np.random.Generator,
    late: bool = False,
) -> Sample:
    """Random zoom, crop and mirror to ``size``. Beyond the image's border is padding: black, and valid nowhere.

    A task that has classes may ask for another crop (`Task.crop_ok`); only labels that may be seen are asked. ``late``
    takes the zoom range for the end of a run, if there is one.
    """
    sides = sample.image.shape[-2:]
    zooms = settings.late_scale if late and settings.late_scale else settings.scale
    scale = float(np.exp(rng.uniform(*np.log(zooms))))
    # At scale 1 the crop is the largest of the output's shape that the image contains.
    whole = min(side / out for side, out in zip(sides, size, strict=True))
    crop = [max(1, round(out * whole / scale)) for out in size]
    sample = _draw_crop(sample, tasks, crop, settings.crop_max_share, rng)
    labels = {name: replace(label, value=tasks[name].zoom(label.value, scale)) for name, label in sample.labels.items()}
    soft = {name: label.zoomed(scale) for name, label in sample.discovered.items()}
    # Where the crop is larger than the image, the image is only a part of the output, and no border is mixed into it.
    height, width = (max(1, round(out * min(1, side / c))) for out, side, c in zip(size, sides, crop, strict=True))
    sample = _pad(resize(replace(sample, labels=labels, discovered=soft), tasks, (height, width)), size, rng)
    return flip(sample, tasks) if settings.flip and rng.random() < 0.5 else sample


def _draw_crop(
    sample: Sample, tasks: Mapping[str, Task], crop: Sequence[int], max_share: float | None, rng: np.random.Generator
) -> Sample:
    """A part of at most (height, width) ``crop``; the tenth draw is taken as it is."""
    for _ in range(_CROPS):
        top, left = (int(rng.integers(max(0, s - c) + 1)) for s, c in zip(sample.image.shape[-2:], crop, strict=True))
        window = (slice(None), slice(top, top + crop[0]), slice(left, left + crop[1]))
        labels = {name: x.moved(x.value[window], itemgetter(window)) for name, x in sample.labels.items()}
        given = {name: x for name, x in labels.items() if x.given}
        if max_share is None or all(tasks[name].crop_ok(x.value, x.valid, max_share) for name, x in given.items()):
            break
    image, sides = sample.image[window], sample.image.shape[-2:]
    height, width = image.shape[-2:]
    soft = {name: label.crop(top, left, height, width, sides) for name, label in sample.discovered.items()}
    return replace(sample, image=image, pixels=sample.pixels[window], labels=labels, discovered=soft)


def flip(sample: Sample, tasks: Mapping[str, Task]) -> Sample:
    """Mirror left to right; its own inverse."""
    labels = {name: x.moved(tasks[name].flip(x.value), lambda t: t.flip(-1)) for name, x in sample.labels.items()}
    soft = {name: label.flip() for name, label in sample.discovered.items()}
    return replace(sample, image=sample.image.flip(-1), pixels=sample.pixels.flip(-1), labels=labels, discovered=soft)


def no_padding(size: Size) -> Tensor:
    """``pixels`` (1, H, W) of an image without padding; a single stored value."""
    return torch.ones(1, 1, 1, dtype=torch.bool).expand(1, *size)


def _pad(sample: Sample, size: Size, rng: np.random.Generator) -> Sample:
    """Place a sample at random in a black image of ``size``."""
    height, width = (out - side for out, side in zip(size, sample.image.shape[-2:], strict=True))
    if height == 0 and width == 0:
        return sample
    top, left = int(rng.integers(height + 1)), int(rng.integers(width + 1))
    border = (left, width - left, top, height - top)
    labels = {name: x.moved(F.pad(x.value, border), lambda t: F.pad(t, border)) for name, x in sample.labels.items()}
    sides = sample.image.shape[-2:]
    soft = {name: label.crop(-top, -left, *size, sides) for name, label in sample.discovered.items()}
    image, pixels = F.pad(sample.image, border), F.pad(sample.pixels, border)
    return replace(sample, image=image, pixels=pixels, labels=labels, discovered=soft)


def photometric(
    image_B3HW: Tensor, strength: float, generator: torch.Generator, grey: float = 0.0, part: BatchShard = WHOLE_BATCH
) -> Tensor:
    """Change brightness, contrast, saturation and white balance of each image; in and out uint8 (B, 3, H, W).

    Works on a whole batch on its device. The teacher reads the undistorted images, the student the distorted ones.
    ``grey`` is the share of images that lose their colours. The images may be a part of a step's batch.
    """
    if strength == 0 and grey == 0:
        return image_B3HW
    draws = part.rand(generator, len(image_B3HW), 6).to(image_B3HW.device)
    brightness, contrast, saturation, *_ = factors = (1 + strength * (2 * draws - 1)).T[..., None, None]
    if grey > 0:
        lose = part.rand(generator, len(image_B3HW), 1, 1).to(image_B3HW.device) < grey
        saturation = saturation.masked_fill(lose, 0.0)
    white_B31 = brightness * (1 + 0.3 * (torch.cat([*factors[3:]], dim=1) - 1))
    # All three changes are linear in a pixel's colours, so they are one 3x3 matrix and a shift: one pass over the
    # image in place of seven.
    own, grey = saturation * torch.eye(3, device=draws.device), (1 - saturation) / 3
    matrix_B33 = contrast * (own + grey) * white_B31.mT
    with torch.autocast(image_B3HW.device.type, enabled=False):  # bf16 has fewer than 256 levels
        flat_B3N = image_B3HW.float().flatten(2)
        middle_B11 = (white_B31 * flat_B3N.mean(dim=2, keepdim=True)).mean(dim=1, keepdim=True)
        changed = torch.baddbmm((1 - contrast) * middle_B11, matrix_B33, flat_B3N)
    return changed.round_().clamp_(0, 255).to(torch.uint8).view_as(image_B3HW)
