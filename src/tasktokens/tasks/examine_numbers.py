"""Sums and summaries of labels that are numbers: positive amounts such as depth, and scalars in a range.

Histograms have fixed bins, so that quantiles of a data set of any size take constant memory.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from tasktokens.tasks.examine import Array, Bar, Summary, Sums, Suspicion, one_sided

_QUANTILES = {"0.1 %": 0.001, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "99.9 %": 0.999}


# -- positive amounts: depth -------------------------------------------------------------------------------------------
_DECADES, _PER_DECADE = (-5, 7), 100
_BINS = (_DECADES[1] - _DECADES[0]) * _PER_DECADE


def amount_sums(value_HW: Array, valid_HW: Array, low: float, high: float) -> dict[str, Array]:
    """A log histogram of positive values, how many lie outside [low, high], and whether they grow down the picture."""
    values = value_HW[valid_HW].astype(np.float64)
    position = (np.log10(values.clip(1e-30)) - _DECADES[0]) * _PER_DECADE
    third = len(value_HW) // 3
    upper, lower = value_HW[:third][valid_HW[:third]], value_HW[-third:][valid_HW[-third:]]
    ratio = float(np.median(lower) / max(np.median(upper), 1e-30)) if third and upper.size and lower.size else 1.0
    return {
        "bins": np.bincount(np.floor(position).clip(0, _BINS - 1).astype(np.int64), minlength=_BINS),
        # A thousandth is rounding error.
        "outside": np.array([(values < low * 0.999).sum(), (values > high * 1.001).sum()]),
        "slopes": np.array([ratio > 1.1, ratio < 1 / 1.1], dtype=np.int64),
        "not positive": np.array([(values <= 0).sum()]),
        "varied": varied(values),
    }


def varied(values: Array) -> Array:
    """1 where a label's values differ from each other, else 0."""
    return np.array([int(values.size > 0 and values.min() < values.max())])


def amount_quantile(sums: Sums, share: float) -> float:
    """The value below which that share of the pixels lies, within 1.2 %; NaN where there is none."""
    cumulative = np.cumsum(sums["bins"])
    if not cumulative[-1]:
        return float("nan")
    index = int(np.searchsorted(cumulative, share * cumulative[-1]))
    return float(10 ** (_DECADES[0] + (min(index, _BINS - 1) + 0.5) / _PER_DECADE))


def summarise_depth(sums: Sums, low: float, high: float, inverse: bool) -> Summary:
    """Quantiles, histogram and signs of another unit.

    Args:
        sums: of `amount_sums`.
        low, high: the declared range.
        inverse: whether nearer points have larger values.
    """
    total = int(sums["bins"].sum())
    if not total:
        return Summary()
    middle = amount_quantile(sums, 0.5)
    numbers = {text + ("" if inverse else " (m)"): amount_quantile(sums, q) for text, q in _QUANTILES.items()}
    below, above = (float(n / total) for n in sums["outside"])
    numbers |= {"below range": below, "above range": above}
    growing, shrinking = (int(n) for n in sums["slopes"])
    inverted, normal = (shrinking, growing) if inverse else (growing, shrinking)
    found = []
    against = inverted >= 5 and inverted >= 4 * normal
    seen = f"in {inverted} of {inverted + normal} labels"
    if against and inverse:
        text = (
            f"values grow towards the top of the picture {seen}, as distances do; "
            f"expected inverse depth, which is larger for what is nearer"
        )
        found.append(Suspicion("warning", "looks-like-depth", text))
    elif against:
        text = (
            f"values are larger at the bottom of the picture {seen}, as disparities are; expected distances in metres: "
            f"convert them (depth = baseline x focal length / disparity), or declare inverse: true"
        )
        found.append(Suspicion("warning", "looks-like-disparity", text))
    if middle > 100 and not inverse and not against:
        text = (
            f"the median is {middle:.3g} metres: the files seem to hold millimetres or centimetres; set the task's "
            f"scale, or divide the values of float files by 1000 or 100"
        )
        found.append(Suspicion("error", "looks-like-millimetres", text))
    else:
        found += _outside_range(below, above, low, high, middle)
    wrong = int(sums["not positive"][0])
    if wrong:
        text = f"{wrong / total:.2%} of the pixels are 0 or negative after scale and offset; mark them as void"
        found.append(Suspicion("error", "not-positive", text))
    if not sums["varied"][0] and (sums["bins"] > 0).sum() == 1:
        found.append(one_sided(f"{middle:.3g}"))
    return Summary(numbers, _amount_bars(sums), tuple(found))


def unusual_distance(sums: Sums, scale: float) -> list[Suspicion]:
    """A warning where distances in metres are unusual for a camera, as another unit than the declared one makes them.

    Args:
        sums: of `amount_sums`.
        scale: metres of a stored 1, of files of whole numbers.
    """
    middle = amount_quantile(sums, 0.5)
    if middle < _NEAR:
        text = (
            f"half of the pixels are nearer than {middle:.3g} metres, which is unusual for a camera: are the files in "
            f"another unit (centimetres: scale: 0.01), or relative depth? compare a known distance, then set the scale"
        )
    elif scale == _MILLIMETRES and _FAR < middle <= 100:
        text = (
            f"half of the pixels are farther than {middle:.3g} metres, while files of millimetres (scale: 0.001) are "
            f"usually of rooms: are they metres x 5000 (scale: 0.0002) or another unit? compare a known distance"
        )
    else:
        return []
    return [Suspicion("warning", "unusual-distance", text)]


_NEAR, _FAR, _MILLIMETRES = 0.4, 8.0, 0.001


def _outside_range(below: float, above: float, low: float, high: float, middle: float) -> list[Suspicion]:
    """A warning where 2 % of the pixels are outside, an error where most are."""
    if below + above <= 0.02:
        return []
    text = (
        f"{below + above:.1%} of the pixels are outside the range [{low:g}, {high:g}] ({below:.1%} below, "
        f"{above:.1%} above; median {middle:.3g}); they are treated as its ends: check scale and range"
    )
    return [Suspicion("error" if below + above > 0.5 else "warning", "outside-range", text)]


def _amount_bars(sums: Sums, count: int = 12) -> tuple[Bar, ...]:
    """Bars of equal width in log value between the outermost thousandths, which join the outer bars."""
    cumulative = np.cumsum(sums["bins"])
    first, last = (int(np.searchsorted(cumulative, share * cumulative[-1])) for share in (0.001, 0.999))
    edges = np.unique(np.linspace(first, last + 1, count + 1).round().astype(int))
    shares = np.diff(np.concatenate([[0], cumulative[edges[1:-1] - 1], [cumulative[-1]]])) / cumulative[-1]
    limits = 10 ** (_DECADES[0] + edges / _PER_DECADE)
    return tuple(
        Bar(f"{a:.3g}–{b:.3g}", float(share)) for a, b, share in zip(limits[:-1], limits[1:], shares, strict=True)
    )


# -- any scalar --------------------------------------------------------------------------------------------------------
_STEPS = 200


def range_sums(value_HW: Array, valid_HW: Array, low: float, high: float) -> dict[str, Array]:
    """A histogram of the range in `_STEPS` bins, with equally many on either side, and the number of values outside."""
    values = value_HW[valid_HW].astype(np.float64)
    position = ((values - low) / (high - low) + 1) * _STEPS
    margin = 0.001 * (high - low)  # a thousandth is rounding error
    return {
        "bins": np.bincount(position.clip(0, 3 * _STEPS - 1).astype(np.int64), minlength=3 * _STEPS),
        "outside": np.array([(values < low - margin).sum(), (values > high + margin).sum()]),
        "varied": varied(values),
    }


def summarise_range(sums: Sums, low: float, high: float, unit: str) -> Summary:
    """Quantiles, exact to half a percent of the range, and ten equal parts of the range, the outer ones with what is
    outside."""
    bins, total = sums["bins"], int(sums["bins"].sum())
    if not total:
        return Summary()
    cumulative, step = np.cumsum(bins), (high - low) / _STEPS
    numbers = {}
    for name, share in _QUANTILES.items():
        index = min(int(np.searchsorted(cumulative, share * total)), len(bins) - 1)
        numbers[name + (f" ({unit})" if unit else "")] = float(low + (index + 0.5 - _STEPS) * step)
    middle = next(value for name, value in numbers.items() if name.startswith("median"))
    below, above = (float(n / total) for n in sums["outside"])
    numbers |= {"below range": below, "above range": above}
    parts = bins[_STEPS : 2 * _STEPS].reshape(10, -1).sum(axis=1)
    parts[0] += bins[:_STEPS].sum()
    parts[-1] += bins[2 * _STEPS :].sum()
    limits = np.linspace(low, high, 11)
    bars = (Bar(f"{a:.3g}–{b:.3g}", float(n / total)) for (a, b), n in zip(pairwise(limits), parts, strict=True))
    found = _outside_range(below, above, low, high, middle)
    if not sums["varied"][0] and (sums["bins"] > 0).sum() == 1:
        found.append(one_sided(f"{middle:.3g}"))
    return Summary(numbers, tuple(bars), tuple(found))
