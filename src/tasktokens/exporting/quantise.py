"""Static quantisation to 8 bits: the backbone's convolutions, per channel, calibrated on images of the training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_BACKBONE = "/network/backbone/"
"""Where the nodes of the backbone are; heads stay in fp32: they have few weights, and their logits are what counts."""


def quantise(path: Path, images: Sequence[Array]) -> None:
    """Replace an ONNX graph by its quantised one.

    Args:
        path: the file.
        images: each (1, h, w, 3) uint8, from which the ranges of activations are taken.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.calibrate import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left: Iterator[Array] = iter(images)

        def get_next(self) -> dict[str, Array] | None:
            image = next(self._left, None)
            return None if image is None else {"image": image}

    model = onnx.load(str(path))
    chosen = [node.name for node in model.graph.node if node.op_type == "Conv" and node.name.startswith(_BACKBONE)]
    before = path.with_name(f"{path.stem}-fp32.onnx")
    path.replace(before)
    try:
        quantize_static(
            str(before), str(path), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_quantize=chosen,
            calibrate_method=CalibrationMethod.MinMax,
        )  # fmt: skip
    finally:
        before.unlink(missing_ok=True)
