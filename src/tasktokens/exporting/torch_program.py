"""A network as a program of `torch.export`, for programs that have torch and not this package."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from tasktokens.errors import ConfigError
from tasktokens.exported.metadata import ExportInfo
from tasktokens.exporting.graph import ExportGraph
from tasktokens.models import Network

MULTIPLE = 32
"""Height and width are multiples of it: symbols of any size take the exporter minutes."""
LEAST = 2 * MULTIPLE
"""Shortest side: the exporter tells a map of one row apart from all others."""
FILE = "tasktokens.json"
"""The metadata within the archive, which ``torch.export.load(path, extra_files={FILE: ""})`` reads."""
_LARGEST = 4096


def write_program(path: Path, network: Network, info: ExportInfo) -> None:
    """Write the program. Raises `ConfigError` where the network or its training size cannot be exported."""
    if any(length < LEAST or length % MULTIPLE for length in info.size):
        height, width = info.size
        raise ConfigError(
            f"--format torch takes sides in multiples of {MULTIPLE} from {LEAST} on, and this network was trained at "
            f"{height}x{width}; take --format onnx, or train with another data.size"
        )
    image = torch.randint(256, (2, 160, 224, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    graph = ExportGraph(_with_fixed_padding(network)).eval()
    side = torch.export.Dim
    shapes = {
        0: side("batch", max=_LARGEST),
        1: MULTIPLE * side("height", min=LEAST // MULTIPLE, max=_LARGEST // MULTIPLE),
        2: MULTIPLE * side("width", min=LEAST // MULTIPLE, max=_LARGEST // MULTIPLE),
    }
    with torch.no_grad():
        graph(image)  # constants that tasks keep are made outside the trace
        try:
            program = torch.export.export(
                graph, (image,), dynamic_shapes={"image": shapes}, strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )  # fmt: skip
        except Exception as error:  # of many libraries
            reason = " ".join(str(error).split())[:200]
            raise ConfigError(f"torch.export cannot take this network ({reason}); take --format onnx") from error
    torch.export.save(program, path, extra_files={FILE: info.text()})


def _with_fixed_padding(network: Network) -> Network:
    """A copy whose convolutions with TensorFlow's padding pad as they do at sizes that they divide."""
    fixed = copy.deepcopy(network)
    for name, module in list(fixed.named_modules()):
        if type(module) is Conv2dSame:
            fixed.set_submodule(name, _Padded(module))
    return fixed


class _Padded(nn.Module):
    """A convolution after a padding that does not depend on the size."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        self.pad: list[int] = []
        for kernel, stride, dilation in zip(
            reversed(conv.kernel_size), reversed(conv.stride), reversed(conv.dilation), strict=True
        ):
            total = max((kernel - 1) * dilation + 1 - stride, 0)
            self.pad += [total // 2, total - total // 2]

    def forward(self, x: Tensor) -> Tensor:
        """The convolution."""
        conv: Any = self.conv
        return F.conv2d(F.pad(x, self.pad), conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)
