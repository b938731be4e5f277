"""Settings of HTT: its stages, its teacher, and the levels of discovery."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator

from tasktokens.config import MethodSettings
from tasktokens.config.base import Removed
from tasktokens.discovery.views import AS_IT_IS, VIEW_ZOOM, ImageView, parse_views, second_view, views_by_task
from tasktokens.methods.strong_view import StrongView

FORMER = {"teacher_views", "teacher_zoom"}
"""Settings of earlier versions, in whose place is ``views``."""

ONCE_VIEWS: tuple[ImageView, ...] = (AS_IT_IS, (1.0, True), (1.25, True), (1.5, False))
"""Of a teacher that is asked once: more than one that is asked at every step can have."""


STUDENTS_SHARE = 0.5
"""Of the steps of a run, where only their number is given: that of the students; the others are the teacher's."""


class HttMethod(MethodSettings):
    """Hierarchical Task Tokens with label discovery (arXiv 2411.18823).

    Examples:
        >>> HttMethod(schedule="online", stage1_steps=100).uses_holdout
        False
    """

    removed: ClassVar[Mapping[str, Removed]] = {
        "geometry": Removed("the geometric check", off=False), "focal": Removed("the geometric check"),
    }  # fmt: skip
    as_published: ClassVar[Mapping[str, Any]] = {
        "student": "fresh", "thresholds": "fixed", "feature_level": 1.0, "teacher": "live",
        "deliver": "student", "confidence_loss": 0.0, "targets": "value", "views": [AS_IT_IS], "confidence": "paper",
        "compared_at": "image", "feature_task_weight": False,
        "strong": StrongView(photometric=0.3, grey=0.0, blur=0.0),
    }  # fmt: skip

    name: Literal["htt"] = "htt"
    schedule: Literal["two-stage", "online"] = Field(
        "two-stage",
        description="two-stage: a frozen teacher, as released; "
        "online: one run, whose teacher, and result, is the student's moving average",
    )
    steps: int | None = Field(
        None, ge=1, description="steps of all stages, which share them; give it, or the steps of each stage"
    )
    stage1_steps: int = Field(
        500, ge=0, description="steps of the supervised stage, whose network becomes the teacher; 0: see --init-from"
    )
    stage2_steps: int = Field(500, ge=0, description="steps of the student on given and discovered labels")
    network: str = Field("htt", description="the network that is taught; mtl: that of the baseline, without tokens")
    rounds: int = Field(
        1,
        ge=1,
        le=100,
        description="two-stage: number of students, each trained for stage2_steps by the one before",
    )
    student: Literal["fresh", "teacher"] = Field(
        "teacher", description="what the student starts from; the paper: fresh"
    )
    prediction_level: float = Field(1.0, ge=0, description="weight of the loss on discovered labels; 0 turns it off")
    feature_level: float = Field(
        0.0, ge=0, description="weight of feature distillation; needs teacher=live; 0 turns it off"
    )
    feature_task_weight: bool = Field(True, description="whether it has the task's weight too; published: false")
    token_level: float = Field(0.0, ge=0, description="weight of token distillation; 0 turns it off")
    teacher: Literal["once", "live"] = Field(
        "once",
        validate_default=True,
        description="once: before the second stage the teacher discovers labels of the whole images, which are kept in "
        "the run; live: it looks at every crop at every step, as published; online it always does",
    )
    views: dict[str, list[ImageView]] | list[ImageView] | None = Field(
        None,
        description="how the teacher sees each image, whose results are averaged: a list of [zoom, mirrored], zooms to "
        "multiples of 32 pixels, or such a list by task; none is mirrored where flip is false; null: "
        "[[1, false], [1, true], [1.25, true], [1.5, false]], live: [[1, false], [1.25, true]]",
    )
    targets: Literal["distribution", "value"] = Field(
        "distribution",
        description="the student learns the teacher's distribution over classes, bins or centres, or, as published, "
        "its value",
    )
    compared_at: Literal["heads", "image"] = Field(
        "heads",
        description="where discovered labels are compared: at the heads' size, a quarter of the image's, or, as "
        "published, at the image's",
    )
    thresholds: Literal["fixed", "adaptive", "calibrated"] = Field(
        "adaptive",
        description="fixed: each task's own, as published; adaptive: the teacher's mean confidence so far, for each "
        "task and class; calibrated: reaches target_accuracy on visible labels of the held-out images",
    )
    target_accuracy: float = Field(
        0.8, gt=0, le=1, description="calibrated: share of discovered pixels that should be correct"
    )
    calibrate_every: int = Field(500, ge=1, description="calibrated, online: steps between two calibrations")
    strong: StrongView = StrongView()
    """How the student's images differ from the teacher's."""
    ramp: int = Field(100, ge=1, description="online: steps over which the discovery losses grow to their weights")
    ema: float = Field(0.99, ge=0, lt=1, description="online: decay of the moving average that is the teacher")
    confidence: Literal["ours", "paper"] = Field("ours", description="what the thresholds apply to")
    confidence_weighting: bool = Field(True, description="false: every discovered pixel weighs the same")
    confidence_loss: float = Field(0.1, ge=0, description="weight of the loss that trains the confidence map")

    deliver: Literal["better", "student"] = Field(
        "better",
        description="two-stage: better: the last student, or its teacher where that is better on held-out labels "
        "(data.holdout, or a split called val); student: always the student",
    )

    @field_validator("stage2_steps")
    @classmethod
    def _some_steps(cls, value: int, info: ValidationInfo) -> int:
        if value == 0 and info.data.get("stage1_steps") == 0:
            raise ValueError("stage1_steps is 0 too, so there is nothing to train; give one of them some steps")
        return value

    @model_validator(mode="before")
    @classmethod
    def _stages_share_the_steps(cls, values: Any) -> Any:
        given = dict(values) if isinstance(values, Mapping) else {}
        steps, rounds = given.get("steps"), given.get("rounds", 1)
        if {"stage1_steps", "stage2_steps"} & set(given) or not (isinstance(steps, int) and isinstance(rounds, int)):
            return values
        students = round(STUDENTS_SHARE * steps / max(1, rounds))
        return given | {"stage1_steps": steps - rounds * students, "stage2_steps": students}

    @model_validator(mode="after")
    def _steps_add_up(self) -> HttMethod:
        total = self.stage1_steps + (1 if self.schedule == "online" else self.rounds) * self.stage2_steps
        if self.steps not in (None, total):
            raise ValueError(
                f"steps is {self.steps}, but the stages have {total} steps together; give steps alone, or those of the "
                f"stages alone"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _former_views(cls, values: Any) -> Any:
        """Settings of earlier versions, whose teacher was live and had one view or two."""
        if not isinstance(values, dict) or not values.keys() & FORMER:
            return values
        number, zoom = values.get("teacher_views", 2), values.get("teacher_zoom", VIEW_ZOOM)
        if number not in (1, 2):
            raise ValueError(f"teacher_views was 1 or 2, found {number!r}; give method.views instead")
        views = [AS_IT_IS] if number == 1 else second_view(zoom)
        others = {key: value for key, value in values.items() if key not in FORMER}
        return {"teacher": "live", "views": views} | others

    @field_validator("teacher")
    @classmethod
    def _online_is_live(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("schedule") == "online":
            return "live"
        if value == "once" and info.data.get("feature_level"):
            raise ValueError(
                "method.feature_level compares the student with the teacher on the same crop, which a teacher that is "
                "asked once never sees; set method.teacher=live, or method.feature_level=0"
            )
        return value

    @field_validator("views", mode="before")
    @classmethod
    def _list_of_views(cls, value: Any) -> Any:
        return None if value is None else parse_views(value)

    def views_of(self, tasks: Iterable[str]) -> dict[str, tuple[ImageView, ...]]:
        """The views of each of some tasks."""
        return views_by_task(self.views, tasks, ONCE_VIEWS if self.teacher == "once" else second_view())

    def scaled(self, factor: float) -> Self:
        """The stages times a factor; their sum follows."""
        found = super().scaled(factor)
        if self.steps is None:
            return found
        students = (1 if found.schedule == "online" else found.rounds) * found.stage2_steps
        return found.model_copy(update={"steps": found.stage1_steps + students})

    @property
    def uses_holdout(self) -> bool:
        """True for calibrated thresholds, which are measured on held-out images."""
        return self.thresholds == "calibrated"
