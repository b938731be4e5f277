"""Joint geometry of an image and its labels, driven by each task's rules, and colour changes of images alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tasktokens.config import Augmentation
from tasktokens.data.sample import Label, Sample
from tasktokens.tasks import Task

Size = tuple[int, int]


def resize(sample: Sample, tasks: Mapping[str, Task], size: Size) -> Sample:
    """Stretch a sample to (height, width): antialiased bilinear for the image, each task's rule for its labels."""
    if tuple(sample.image.shape[-2:]) == size:
        return sample
    labels = {name: Label(*tasks[name].resize(label.value, label.valid, size)) for name, label in sample.labels.items()}
    image = F.interpolate(sample.image[None].float(), size, mode="bilinear", antialias=True, align_corners=False)
    # By pixel centres, as the labels; an edge's area may reach into the padding, where nothing is valid.
    pixels = F.interpolate(sample.pixels[None].float(), size, mode="nearest-exact")[0] > 0
    labels = {name: replace(label, valid=label.valid & pixels) for name, label in labels.items()}
    return replace(sample, image=image[0].round().clamp(0, 255).to(torch.uint8), pixels=pixels, labels=labels)


def shrink_to_cover(sample: Sample, tasks: Mapping[str, Task], size: Size) -> Sample:
    """Make a large sample smaller, keeping its shape, so that it still covers ``size``; small ones stay."""
    height, width = sample.image.shape[-2:]
    factor = max(size[0] / height, size[1] / width)
    if factor >= 1:
        return sample
    return resize(sample, tasks, (max(size[0], round(height * factor)), max(size[1], round(width * factor))))


def augment(
    sample: Sample, tasks: Mapping[str, Task], size: Size, settings: Augmentation, rng: np.random.Generator
) -> Sample:
    """Random zoom, crop and mirror to ``size``. Beyond the image's border is padding: black, and valid nowhere."""
    height, width = sample.image.shape[-2:]
    scale = float(np.exp(rng.uniform(*np.log(settings.scale))))
    # At scale 1 the crop is the largest of the output's shape that the image contains.
    whole = min(height / size[0], width / size[1])
    crop = [max(1, round(side * whole / scale)) for side in size]
    sample = _pad(sample, max(0, crop[0] - height), max(0, crop[1] - width), rng)
    height, width = sample.image.shape[-2:]
    top, left = int(rng.integers(height - crop[0] + 1)), int(rng.integers(width - crop[1] + 1))
    window = (slice(None), slice(top, top + crop[0]), slice(left, left + crop[1]))
    labels = {
        name: Label(tasks[name].zoom(label.value[window], scale), label.valid[window])
        for name, label in sample.labels.items()
    }
    sample = replace(sample, image=sample.image[window], pixels=sample.pixels[window], labels=labels)
    sample = resize(sample, tasks, size)
    return flip(sample, tasks) if settings.flip and rng.random() < 0.5 else sample


def flip(sample: Sample, tasks: Mapping[str, Task]) -> Sample:
    """Mirror left to right; its own inverse."""
    labels = {name: Label(tasks[name].flip(label.value), label.valid.flip(-1)) for name, label in sample.labels.items()}
    return replace(sample, image=sample.image.flip(-1), pixels=sample.pixels.flip(-1), labels=labels)


def _pad(sample: Sample, extra_height: int, extra_width: int, rng: np.random.Generator) -> Sample:
    if extra_height == 0 and extra_width == 0:
        return sample
    top, left = int(rng.integers(extra_height + 1)), int(rng.integers(extra_width + 1))
    border = (left, extra_width - left, top, extra_height - top)
    labels = {
        name: Label(F.pad(label.value, border), F.pad(label.valid, border)) for name, label in sample.labels.items()
    }
    return replace(sample, image=F.pad(sample.image, border), pixels=F.pad(sample.pixels, border), labels=labels)


def photometric(image_B3HW: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast, saturation and white balance of each image; in and out uint8 (B, 3, H, W).

    Works on a whole batch on its device. The teacher reads the undistorted images, the student the distorted ones.
    """
    if strength == 0:
        return image_B3HW
    draws = torch.rand(len(image_B3HW), 6, generator=generator).to(image_B3HW.device)
    factors = (1 + strength * (2 * draws - 1))[..., None, None]
    image = image_B3HW.float() / 255
    image = image * factors[:, 0:1] * (1 + 0.3 * (factors[:, 3:6] - 1))
    middle = image.mean(dim=(1, 2, 3), keepdim=True)
    image = (image - middle) * factors[:, 1:2] + middle
    grey = image.mean(dim=1, keepdim=True)
    image = (image - grey) * factors[:, 2:3] + grey
    return (image * 255).round().clamp(0, 255).to(torch.uint8)
