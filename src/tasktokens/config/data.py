"""Settings of data: which images and labels, at what size, and their augmentation."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from tasktokens.config.base import Seed, Settings, Side


class Augmentation(Settings):
    """Random geometry and colour of training images.

    Examples:
        >>> Augmentation(scale=(1.0, 1.25)).flip
        True
    """

    scale: tuple[float, float] = Field((1.0, 1.5), description="zoom range; depth is divided by the zoom")
    late_scale: tuple[float, float] | None = Field(
        None, description="zoom range late in a run; a narrow one shows images as evaluation does; null: scale"
    )
    late_from: float = Field(0.5, ge=0, le=1, description="share of a run's steps after which late_scale applies")
    crop_max_share: float | None = Field(
        None,
        gt=0,
        le=1,
        description="crops that one class covers by more than this share are drawn again; published: 0.75",
    )
    flip: bool = Field(True, description="mirror half of the images left to right")
    photometric: float = Field(0.3, ge=0, le=1, description="strength of brightness, contrast and colour changes")

    @field_validator("scale", "late_scale")
    @classmethod
    def _zoom_range(cls, scale: tuple[float, float] | None) -> tuple[float, float] | None:
        if scale is not None and not 0 < scale[0] <= scale[1] < float("inf"):
            raise ValueError("the zoom range must be [least, most] with 0 < least <= most")
        return scale

    @property
    def widest(self) -> tuple[float, float]:
        """The least and the most zoom of a whole run."""
        late = self.late_scale or self.scale
        return min(self.scale[0], late[0]), max(self.scale[1], late[1])


class DataSettings(Settings):
    """Images and partial labels, whatever the data set; `tasktokens.config.components.data_settings` adds its own."""

    kind: str
    """Which data set; ``tasktokens list`` names them."""

    size: tuple[Side, Side] = Field((96, 128), description="height and width that the network sees")
    labels: str = Field(
        "auto",
        description="'full', 'one', 'random', a fraction such as 0.3, or a CSV file of a split; auto: 'one' for a data "
        "set that has a published split of that name, else 'full'",
        coerce_numbers_to_str=True,
    )
    label_seed: Seed | None = Field(
        None,
        description="seed of the labels and held-out images drawn; null: 0, or the published split of 'one' and "
        "'random' where there is one",
    )
    discovered: list[Path] = Field(
        [],
        description="folders of labels that were discovered elsewhere, with confidences: the second stage learns from "
        "them in place of a teacher",
    )
    learn_discovered: bool = Field(
        True,
        description="learn from the labels that provenance.csv of the data calls discovered, each pixel by its "
        "confidence; false: leave them out",
    )
    holdout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the training images set aside for validation and calibration, drawn by label_seed",
    )
    augmentation: Augmentation = Field(Augmentation(), description="random changes of training images")
    evaluation: Literal["network", "full"] = Field(
        "network",
        description="network: images and labels stretched to 'size'; full: images keep their shape, labels their size",
    )
    workers: int = Field(0, ge=0, le=1024, description="loader processes, of training and evaluation; 0: none")
    check: bool = Field(
        True, description="examine every visible file before the first run; see docs/reference/check.md"
    )
    skip_corrupt: bool = Field(
        False, description="training: skip images and labels that cannot be read; they are named and counted"
    )
    cache: bool = Field(True, description="keep decoded images and labels in memory when they fit")
