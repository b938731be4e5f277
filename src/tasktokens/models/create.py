"""A network without a configuration file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasktokens.config import parse_config
from tasktokens.errors import ConfigError, did_you_mean
from tasktokens.models import NETWORKS, Network, build_network
from tasktokens.tasks import Task, build_task


def create_model(
    network: str = "htt",
    tasks: Mapping[str, Task | Mapping[str, Any]] | Sequence[Task] = (),
    backbone: str = "resnet18",
    pretrained: bool = False,
    weights: str | Path | None = None,
    **settings: Any,
) -> Network:
    """A new network for some tasks: a plain `torch.nn.Module`, in training mode.

    Args:
        network: such as ``htt`` or ``mtl`` (a shared backbone and a head per task); ``tasktokens list`` has all.
        tasks: by name, each a task or its plain values such as ``{"kind": "depth", "range": [0.5, 10]}``; or the tasks
            of a data set: ``open_dataset(...).tasks``.
        backbone: any timm model that gives four feature maps.
        pretrained: start the backbone from ImageNet weights of timm's hub.
        weights: or from this .safetensors or .pth file.
        settings: others of ``model``, such as ``variant="paper"`` or ``width=32``.

    Returns:
        A network whose ``forward`` takes uint8 images (B, 3, H, W) in RGB order and returns a `TaskOutput` per task:
        logits (B, K, h, w), which ``task.decode`` turns into values and ``task.confidence`` into confidences.

    Raises:
        ConfigError: no such network, backbone, setting or kind of task.
        WeightsError: the weights cannot be downloaded or do not fit.

    Examples:
        >>> import torch, tasktokens
        >>> tasks = {
        ...     "depth": {"kind": "depth", "range": [0.5, 10]},
        ...     "semseg": {"kind": "classes", "classes": ["floor", "wall"]},
        ... }
        >>> network = tasktokens.create_model("htt", tasks, backbone="test_resnet", width=16)
        >>> outputs = network(torch.zeros(2, 3, 64, 96, dtype=torch.uint8))
        >>> outputs["depth"].logits.shape, outputs["semseg"].logits.shape
        (torch.Size([2, 30, 16, 24]), torch.Size([2, 2, 16, 24]))
    """
    if network not in NETWORKS:
        near = did_you_mean(network, NETWORKS)
        raise ConfigError(f"no network '{network}'{near}; expected one of: {', '.join(NETWORKS)}")
    given = tasks.items() if isinstance(tasks, Mapping) else [(task.name, task) for task in tasks]
    built = {name: task if isinstance(task, Task) else build_task(name, task) for name, task in given}
    if not built:
        raise ConfigError('a network needs at least one task, such as tasks={"depth": {"kind": "depth", ...}}')
    values = {"backbone": backbone, "pretrained": pretrained, "weights": None if weights is None else str(weights)}
    config = parse_config({"model": values | settings}, "create_model")
    return build_network(network, built, config.model)
