"""Numbers that stand for "no measurement" in files of measurements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tasktokens.tasks.base import Array
from tasktokens.tasks.marks import likely_marks, lone_extreme
from tasktokens.tasks.void import is_void


def unmeasured_values(stored: Array, nodata: Sequence[float] = ()) -> tuple[float, ...]:
    """Values that mean "no measurement": those that the files name, customary ones that stand apart, a largest
    one that is twice all others or more, and a lone -1.

    Args:
        stored: finite numbers of any shape, of the files' type.
        nodata: values that the files name, such as by the tag GDAL_NODATA.

    Examples:
        >>> unmeasured_values(np.array([-9999.0, 0.5, 7.25], np.float32))
        (-9999.0,)
        >>> unmeasured_values(np.array([-1.0, 0.5, 7.25], np.float32)), unmeasured_values(np.array([-1.0, -0.5, 7.25]))
        ((-1.0,), ())
    """
    found = {float(value) for value in nodata}
    rest = stored[~is_void(stored, sorted(found))]
    if stored.dtype.kind not in "if" and stored.dtype != np.uint16 and stored.dtype != np.uint32:
        return tuple(sorted(found))
    found |= {float(value) for value in likely_marks(rest)}
    rest = rest[~is_void(rest, sorted(found))]
    if not found and (lone := lone_extreme(rest)) is not None:
        found.add(lone)
        rest = rest[rest < lone]
    negative = rest[rest < 0]
    if negative.size and negative.size < rest.size and (negative == -1).all():
        found.add(-1.0)
    return tuple(sorted(found))
