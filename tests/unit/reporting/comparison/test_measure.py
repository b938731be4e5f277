"""What a network costs is measured of every network that there is."""

from __future__ import annotations

import pytest

from method_fakes import build
from tasktokens.models import NETWORKS
from tasktokens.reporting.comparison.measure import gflops, seconds_per_image
from tasktokens.tasks import Task


@pytest.mark.parametrize("name", list(NETWORKS))
def test_operations_and_time_of_every_network(name: str, tiny_tasks: dict[str, Task]) -> None:
    network = build(name, {task: tiny_tasks[task] for task in ("semseg", "depth")}).eval()
    small, large = (gflops(network, size) for size in ((64, 64), (64, 128)))
    assert 0 < small < large
    assert seconds_per_image(network, (64, 64), repeats=1) > 0
