"""What tasks share whose prediction is the mean of a scalar over bins."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from tasktokens.tasks.base import Task, deviation, distribution, expectation, largest_probability, moments


class Binned(Task):
    """A scalar per pixel, (B, 1, H, W), as the mean of the bins' centres; the less they spread, the more confident."""

    @abstractmethod
    def centres(self) -> Tensor:
        """Bin centres (K,) in the labels' unit."""

    @abstractmethod
    def places(self) -> Tensor:
        """Where the bins (K,) lie on the scale on which their spread is measured."""

    @abstractmethod
    def sure(self, deviation_B1HW: Tensor) -> Tensor:
        """The confidence for a standard deviation on that scale."""

    def decode(self, logits_BKHW: Tensor) -> Tensor:
        """Expected value over the bins, (B, 1, H, W), in the labels' unit."""
        return expectation(distribution(logits_BKHW), self.centres()[:, None])

    def confidence(self, logits_BKHW: Tensor) -> Tensor:
        """From the standard deviation over the bins."""
        return self.sure(deviation(distribution(logits_BKHW), self.places()))

    def decode_with_confidence(self, logits_BKHW: Tensor) -> tuple[Tensor, Tensor]:
        """Both from one softmax."""
        places = self.places()
        places = places - places.mean()  # or what rounding leaves of the difference of large squares is much
        means = moments(logits_BKHW, torch.stack([self.centres(), places, places**2], dim=1))
        variance = means[:, 2:3] - means[:, 1:2] ** 2
        return means[:, 0:1], self.sure(variance.clamp(min=0).sqrt())

    def paper_confidence(self, logits_BKHW: Tensor) -> Tensor:
        """Largest probability of the softmax of 5 x logits."""
        return largest_probability(logits_BKHW, sharpness=5)
