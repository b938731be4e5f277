"""Boundaries matched one to one within a distance: odsF, oisF and AP (Martin et al., PAMI 2004; Arbelaez et al., 2011).

A prediction is thinned to lines at each of the thresholds and each of its pixels paired with at most one pixel of the
truth. The published tools (MATLAB) look for the cheapest pairing; this one for the largest.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow
from torch import Tensor

from tasktokens.metrics.base import METRICS, Metric
from tasktokens.metrics.fmeasure import LEVELS
from tasktokens.metrics.thinning import ridge, thin

Array = npt.NDArray[Any]

_WHOLE = 255
"""Units of a pixel that all annotators marked: means are stored in 8 bits."""

Annotators = Literal["one", "mean"]
"""Whether a label is one person's lines, or the mean over several people's (as BSDS500 is often stored)."""


@METRICS.register("boundary")
class BoundaryF(Metric):
    """Best F of matched boundaries, in percent: odsF at one threshold for all images, oisF at each image's own; AP.

    The truth is positive above 0.5 and thinned, the prediction strictly above the threshold. With ``mean`` labels a
    predicted pixel is right if it matches a pixel that any annotator marked, and recall is the share of all annotators'
    pixels that can be matched if all of them together use a predicted pixel as often as there are annotators: an upper
    bound of the published recall. AP is the area under
    the curve of the best precision at each recall.

    Args:
        max_distance: how far a match may lie, as a share of the image's diagonal; 0.0075 for PASCAL and BSDS500, 0.011
            for NYUD.
        annotators: what the labels are.
        thresholds: increasing, in [0, 1).

    Examples:
        >>> metric = BoundaryF(max_distance=0.1)
        >>> line = torch.zeros(1, 1, 16, 16)
        >>> line[..., 8] = 1
        >>> metric.update(line.roll(1, -1), line)
        >>> metric.compute()["odsF"]
        100.0
    """

    name: ClassVar[str] = "boundary"
    higher_is_better: ClassVar[dict[str, bool]] = dict.fromkeys(("odsF", "oisF", "AP"), True)
    units: ClassVar[dict[str, str]] = dict.fromkeys(("odsF", "oisF", "AP"), "%")

    def __init__(
        self, max_distance: float = 0.0075, annotators: Annotators = "one", thresholds: tuple[float, ...] = LEVELS
    ) -> None:
        # For each threshold, and for each image's best one, the four counts; then the number of valid pixels.
        super().__init__(4 * (len(thresholds) + 1) + 1)
        self.max_distance, self.annotators, self.thresholds = max_distance, annotators, thresholds

    @property
    def primary(self) -> str:
        """odsF."""
        return "odsF"

    def statistics(self, prediction_BCHW: Tensor, target_BCHW: Tensor, valid_B1HW: Tensor) -> Tensor:
        """Counts of matched pixels at each threshold, computed on the CPU image by image."""
        images = (x[:, 0].detach().cpu().numpy() for x in (prediction_BCHW.float(), target_BCHW.float(), valid_B1HW))
        total = np.zeros(len(self.state))
        for prediction, target, valid in zip(*images, strict=True):
            counts = boundary_counts(prediction, target, valid, self.thresholds, self.max_distance, self.annotators)
            f = _f(counts)
            # Of equally good thresholds the highest: without a boundary in the image, it predicts the least.
            best = counts[len(f) - 1 - f[::-1].argmax()]
            total += np.concatenate([counts.ravel(), best, [valid.sum()]])
        return torch.from_numpy(total).to(prediction_BCHW.device)

    def compute(self) -> dict[str, float]:
        """odsF, oisF and AP, in percent."""
        return boundary_values(self.state)


def boundary_values(state: Tensor) -> dict[str, float]:
    """odsF, oisF and AP in percent from the sums of `BoundaryF`; NaN where nothing is true and nothing predicted."""
    sums = state.cpu().numpy()
    if not sums[-1] > 0:
        return dict.fromkeys(("odsF", "oisF", "AP"), math.nan)
    counts = sums[:-1].reshape(-1, 4)
    if not counts[:, 3].any() and not counts[:-1, 1].all():  # no line, and a threshold at which none is predicted
        return dict.fromkeys(("odsF", "oisF", "AP"), math.nan)
    values = {"odsF": _f(counts[:-1]).max(), "oisF": _f(counts[-1:])[0], "AP": _average_precision(counts[:-1])}
    return {name: 100 * float(value) for name, value in values.items()}


def boundary_counts(
    prediction_HW: Array,
    truth_HW: Array,
    valid_HW: Array,
    thresholds: tuple[float, ...],
    max_distance: float,
    annotators: Annotators = "one",
) -> Array:
    """Counts of one image (thresholds, 4): predicted pixels that are right, predicted, true ones found, true ones.

    Args:
        prediction_HW: probabilities.
        truth_HW: labels in [0, 1].
        valid_HW: bool; elsewhere nothing is predicted and nothing true.
    """
    weight = np.where(valid_HW, truth_HW, 0)
    # A mean over annotators is thick where they disagree; thinning would move what each of them drew.
    lines = thin(weight > 0.5) if annotators == "one" else weight > 0
    weight = lines.astype(float) if annotators == "one" else weight.astype(float)
    candidates = ridge(prediction_HW, thresholds[0]) & valid_HW
    pairs = pairs_within(candidates, lines, max_distance * math.hypot(*lines.shape))
    number = np.cumsum(candidates).reshape(candidates.shape) - 1
    counts = np.zeros((len(thresholds), 4))
    before = -1
    for row, level in zip(counts, thresholds, strict=True):
        # The comparison is in the predictions' float32, as in `FMeasure`.
        passed = candidates & (prediction_HW > np.float32(level))
        if (now := int(passed.sum())) != before:
            before, predicted = now, number[thin(passed)]
            found = _found(pairs[predicted], weight[lines], annotators)
        row[:] = found[0], len(predicted), found[1], weight.sum()
    return counts


def _found(pairs: csr_array, weight: Array, annotators: Annotators) -> tuple[float, float]:
    """How many predicted pixels (rows) have a partner, and the weight of the true ones (columns) that are found."""
    right = int(np.count_nonzero(largest_matching(pairs)))
    if annotators == "one":
        return right, right
    # Each annotator may pair a predicted pixel once, so all of them together each pixel up to a weight of 1.
    units = np.rint(_WHOLE * weight).astype(np.int32)
    return right, float(largest_matching(pairs, units, _WHOLE).sum()) / _WHOLE


def largest_matching(pairs: csr_array, columns: Array | None = None, rows: int = 1) -> Array:
    """How much each row gets when as much as possible of the columns is given to rows that they pair with, int (rows).

    Args:
        pairs: (rows, columns); what is stored is a pair.
        columns: how much each has to give; default: 1, so that rows and columns are matched one to one.
        rows: how much each can take.

    A flow from a source through rows and columns to a sink: scipy's ``maximum_bipartite_matching`` is quicker on most
    boundaries but does not come to an end on some.
    """
    count, width = pairs.shape
    if pairs.nnz == 0:
        return np.zeros(count, np.int32)
    ones = np.ones(width, np.int32) if columns is None else columns
    sink = count + width + 1
    capacity = np.concatenate([np.full(count + pairs.nnz, rows, np.int32), ones])
    heads = np.concatenate([np.arange(1, count + 1), pairs.indices + count + 1, np.full(width, sink)])
    ends = np.concatenate([[0], pairs.indptr + count, count + pairs.nnz + np.arange(1, width + 1)])
    ends = np.append(ends, ends[-1]).astype(np.int32)
    network = csr_array((capacity, heads.astype(np.int32), ends), shape=(sink + 1, sink + 1))
    flow = maximum_flow(network, 0, sink, method="dinic").flow
    # The flow's first row is what leaves the source.
    taken = np.zeros(count + 1, np.int32)
    taken[flow.indices[: flow.indptr[1]]] = flow.data[: flow.indptr[1]]
    return taken[1:]


def pairs_within(left_HW: Array, right_HW: Array, reach: float) -> csr_array:
    """Which pixels of two bool maps lie within ``reach`` pixels, (left, right), each in the order of its rows."""
    radius = min(int(reach), max(left_HW.shape))
    number = np.full(left_HW.shape, -1, np.int32)
    number[right_HW] = np.arange(np.count_nonzero(right_HW))
    padded = np.pad(number, radius, constant_values=-1)
    at = np.flatnonzero(np.pad(left_HW, radius))
    # On a grid, looking at every place within reach needs no search tree.
    span = range(-radius, radius + 1)
    rows, columns = [], []
    for dy, dx in ((dy, dx) for dy in span for dx in span if math.hypot(dy, dx) <= reach):
        found = padded.ravel()[at + (dy * padded.shape[1] + dx)]
        hit = np.flatnonzero(found >= 0)
        rows.append(hit)
        columns.append(found[hit])
    row, column = np.concatenate(rows), np.concatenate(columns)
    shape = (len(at), int(np.count_nonzero(right_HW)))
    return csr_array((np.ones(len(row), np.int32), (row, column)), shape=shape)


def _precision_recall(counts: Array) -> tuple[Array, Array]:
    right, predicted, found, true = counts.T
    return right / np.maximum(predicted, 1), found / np.where(true > 0, true, 1)


def _f(counts: Array) -> Array:
    """F of each row of counts, in [0, 1]; 0 where nothing is right."""
    precision, recall = _precision_recall(counts)
    total = precision + recall
    return 2 * precision * recall / np.where(total > 0, total, 1)


def _average_precision(counts: Array) -> float:
    """Mean over recalls of 0, 0.01, ..., 1 of the best precision at that recall or a higher one; 0 where none is."""
    precision, recall = _precision_recall(counts)
    return float(np.mean([precision[recall >= at - 1e-9].max(initial=0) for at in np.linspace(0, 1, 101)]))
