"""The student's view of a batch: colours and blur; the teacher reads the images as they are.

Strong changes for the student and none for the teacher make discovered labels worth learning: FixMatch (Sohn et al.,
NeurIPS 2020). All changes are applied to the whole batch on its device; random draws depend on the step's generator
alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from tasktokens.config.base import Removed, Settings
from tasktokens.data.sharding import WHOLE_BATCH, BatchShard
from tasktokens.data.transforms import photometric


class StrongView(Settings):
    """How the student's images differ from the teacher's, once there is a teacher.

    Examples:
        >>> StrongView(grey=0.0, blur=0.0).photometric
        0.5
    """

    removed: ClassVar[Mapping[str, Removed]] = {"cutmix": Removed("patches of other images", off=0.0)}

    photometric: float = Field(0.5, ge=0, le=1, description="in place of data.augmentation.photometric")
    grey: float = Field(0.2, ge=0, le=1, description="share of images that lose their colours")
    blur: float = Field(0.3, ge=0, le=1, description="share of images that are blurred")


def strong_view(
    image_B3HW: Tensor, settings: StrongView, generator: torch.Generator, part: BatchShard = WHOLE_BATCH
) -> Tensor:
    """Stronger colour changes, greys and blur of uint8 images (B, 3, H, W)."""
    changed = photometric(image_B3HW, settings.photometric, generator, settings.grey, part)
    return blur(changed, settings.blur, generator, part)


def blur(image_B3HW: Tensor, share: float, generator: torch.Generator, part: BatchShard = WHOLE_BATCH) -> Tensor:
    """A Gaussian blur of up to a hundredth of the height on a share of the images, each by its own amount."""
    if share == 0:
        return image_B3HW
    count, _, height, width = image_B3HW.shape
    most = height / 100
    reach = min(max(1, round(2 * most)), height - 1, width - 1)
    draws = part.rand(generator, count, 2)
    # A tiny sigma leaves the image unchanged.
    sigma_B1 = torch.where(draws[:, :1] < share, 0.1 + draws[:, 1:] * most, 1e-3).to(image_B3HW.device)
    offset = torch.arange(-reach, reach + 1, device=image_B3HW.device)
    kernel_BN = torch.softmax(-0.5 * (offset / sigma_B1) ** 2, dim=1).repeat_interleave(3, dim=0)
    flat = F.pad(image_B3HW.float().reshape(1, count * 3, height, width), (reach,) * 4, mode="reflect")
    with torch.autocast(flat.device.type, enabled=False):  # in bf16 a grey level is lost
        flat = F.conv2d(flat, kernel_BN[:, None, None, :], groups=count * 3)
        flat = F.conv2d(flat, kernel_BN[:, None, :, None], groups=count * 3)
    return flat.round_().clamp_(0, 255).to(torch.uint8).view_as(image_B3HW)
