"""The graph of a network and the decoders of its tasks, traced into ONNX."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.onnx import symbolic_helper
from torch.onnx.utils import register_custom_op_symbolic, unregister_custom_op_symbolic

from tasktokens.errors import ConfigError
from tasktokens.models import Network
from tasktokens.tasks import Task

OPSET = 17
_TRACED = (2, 160, 224)
"""Batch, height and width of the image that is traced; the graph takes any."""


class ExportGraph(nn.Module):
    """A network with decoded outputs: uint8 RGB (B, H, W, 3) to, for each task, values, confidences and logits.

    Values (B, C, H, W) are in the task's units and confidences (B, 1, H, W) in [0, 1], both at the image's size; logits
    (B, K, h, w) are at the head's.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """The outputs in the order of `output_names`."""
        outputs = self.network(image.permute(0, 3, 1, 2))
        found: list[Tensor] = []
        for name, task in self.network.tasks.items():
            logits = outputs[name].logits
            found += [*task.decode_with_confidence(outputs[name].logits_at(image.shape[1:3])), logits]
        return tuple(found)


class Decoder(nn.Module):
    """Logits (1, K, h, w) of one task to values (1, C, h, w) and confidences (1, 1, h, w); each pixel by itself."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task

    def forward(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Both."""
        return self.task.decode_with_confidence(logits)


def output_names(network: Network) -> list[str]:
    """``depth``, ``depth.confidence``, ``depth.logits`` and so on, of every task."""
    return [f"{name}{end}" for name in network.tasks for end in ("", ".confidence", ".logits")]


def write_onnx(path: Path, network: Network) -> None:
    """Write the graph, for any batch, height and width. Raises `ConfigError` where ONNX lacks an operation."""
    names = output_names(network)
    axes = {"image": {0: "batch", 1: "height", 2: "width"}}
    for name in names:
        at = ("height", "width") if not name.endswith(".logits") else (f"{name}.height", f"{name}.width")
        axes[name] = {0: "batch", 2: at[0], 3: at[1]}
    image = torch.randint(256, (*_TRACED, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    _trace(ExportGraph(network).eval(), image, str(path), ["image"], names, axes)


def decoder_onnx(task: Task) -> bytes:
    """The decoder of a task as an ONNX model. Raises `ConfigError` where an operation is not in ONNX."""
    logits = torch.randn(1, task.num_tokens, 6, 8, generator=torch.Generator().manual_seed(0))
    axes = {name: {2: "height", 3: "width"} for name in ("logits", "value", "confidence")}
    buffer = io.BytesIO()
    _trace(Decoder(task).eval(), logits, buffer, ["logits"], ["value", "confidence"], axes)
    return buffer.getvalue()


@torch.no_grad()
def _trace(module: nn.Module, example: Tensor, to: Any, inputs: list[str], outputs: list[str], axes: Any) -> None:
    module(example)  # constants that tasks keep, such as centres of bins, are made outside the trace
    with _more_operations(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the tracer: `check` compares the file with the network
        try:
            torch.onnx.export(
                module, (example,), to, dynamo=False, opset_version=OPSET, input_names=inputs, output_names=outputs,
                dynamic_axes=axes,
            )  # fmt: skip
        except (RuntimeError, ValueError, TypeError, torch.onnx.errors.OnnxExporterError) as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            reason = (lines or [type(error).__name__])[0][:200]
            raise ConfigError(f"this network cannot be exported: {reason}; take another backbone or variant") from error


@contextmanager
def _more_operations() -> Iterator[None]:
    """Within, operations that the tracer does not know are written by those that it does."""
    extra = {"aten::mT": _transpose, "aten::expm1": _expm1}
    for name, symbolic in extra.items():
        register_custom_op_symbolic(name, symbolic, 9)
    try:
        yield
    finally:
        for name in extra:
            unregister_custom_op_symbolic(name, 9)


def _transpose(graph: Any, x: Any) -> Any:
    rank = symbolic_helper._get_tensor_rank(x) or 2
    return graph.op("Transpose", x, perm_i=[*range(rank - 2), rank - 1, rank - 2])


def _expm1(graph: Any, x: Any) -> Any:
    return graph.op("Sub", graph.op("Exp", x), graph.op("Constant", value_t=torch.tensor(1.0)))
