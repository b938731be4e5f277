"""The confidence that a discovered pixel must exceed: fixed, as published; adapted to the teacher during training; or
measured (`tasktokens.discovery.calibration`).

An adaptive threshold is the teacher's running mean confidence on unlabelled images, for each task and each of its
groups (the classes): about the more confident half of the pixels of every class supervise the student, however
confident the teacher is in general. Thresholds per class that follow the network are the idea of FreeMatch (Wang et
al., ICLR 2023).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tasktokens.losses import Term
from tasktokens.tasks import Task

_DECAY = 0.99


class Thresholds(nn.Module):
    """The thresholds of every task and group; a part of the run's state where they are not fixed.

    Args:
        tasks: by name; their own thresholds apply until adaptive ones are updated, or always if not ``adaptive``.
    """

    def __init__(self, tasks: Mapping[str, Task], adaptive: bool) -> None:
        super().__init__()
        self.adaptive = adaptive
        self.names = {name: f"task{number}" for number, name in enumerate(tasks)}  # a buffer's name has no dots
        for name, task in tasks.items():
            self.register_buffer(f"{self.names[name]}", torch.full((task.num_groups,), float(task.threshold)))
            self.register_buffer(f"{self.names[name]}_seen", torch.zeros(task.num_groups))

    def of(self, task: Task, prediction_BCHW: Tensor) -> Tensor:
        """The threshold (B, 1, H, W) that each predicted pixel's confidence must exceed."""
        values: Tensor = getattr(self, self.names[task.name]).to(prediction_BCHW.device)
        return values[task.group(prediction_BCHW)]

    @torch.no_grad()
    def set(self, task: Task, values_G: Tensor) -> None:
        """Set the thresholds (G,) of a task's groups."""
        values: Tensor = getattr(self, self.names[task.name])
        values.copy_(values_G)

    def statistics(
        self, task: Task, prediction_BCHW: Tensor, confidence_B1HW: Tensor, pixels_B1HW: Tensor
    ) -> list[Term]:
        """Terms that only carry the sums from which `observe` learns; none where thresholds are not adaptive."""
        if not self.adaptive:
            return []
        count = task.num_groups
        group = torch.where(pixels_B1HW, task.group(prediction_BCHW), count)
        # Sums of each image first: a GPU's threads wait for each other where all add to a few numbers.
        image = torch.arange(len(group), device=group.device).view(-1, 1, 1, 1)
        cell, confidence = (group + image * (count + 1)).flatten(), confidence_B1HW.float().flatten()
        # Not `bincount`, which waits for a GPU, and with weights has no deterministic form there.
        sums, pixels = (
            confidence.new_zeros(len(group) * (count + 1)).index_add_(0, cell, x).view(len(group), count + 1).sum(0)
            for x in (confidence, torch.ones_like(confidence))
        )
        return [Term(f"teacher/{task.name}/{g}", 0.0, sums[g], pixels[g], reported=False) for g in range(count)]

    @torch.no_grad()
    def observe(self, means: Mapping[str, Tensor]) -> None:
        """Update by the mean confidences of a step over all ranks; a group that was not predicted keeps its value."""
        for name, buffer in self.names.items():
            values, seen = getattr(self, buffer), getattr(self, f"{buffer}_seen")
            now = [means.get(f"teacher/{name}/{g}") for g in range(len(values))]
            if any(mean is None for mean in now):
                continue
            new = torch.stack([mean for mean in now if mean is not None]).to(values.device)
            met = torch.isfinite(new) & (new > 0)
            # Short memory at first, so that the task's own threshold is soon forgotten.
            decay = torch.minimum(torch.full_like(seen, _DECAY), seen / (seen + 1))
            values.copy_(torch.where(met, decay * values + (1 - decay) * torch.nan_to_num(new), values))
            seen.add_(met.float())
