"""Static quantisation to 8 bits: the backbone's convolutions, weights per channel, activations by their observed range.

Written out as pairs of QuantizeLinear and DequantizeLinear, which ONNX Runtime and OpenVINO merge with what is between.
The quantiser of ONNX Runtime gives such graphs too; it took minutes per network.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasktokens.errors import ConfigError

Array = np.ndarray[Any, Any]

_BACKBONE = "/network/backbone/"
"""Where the nodes of the backbone are; heads stay in fp32: they have few weights, and their logits are what counts."""
_ACTIVATIONS = ("Clip", "Relu")


def quantise(path: Path, images: Sequence[Array]) -> None:
    """Replace an ONNX graph by its quantised one.

    Args:
        path: the file.
        images: each (1, h, w, 3) uint8, from which the ranges of activations are taken.

    Raises:
        ConfigError: the backbone has no convolutions.
    """
    import onnx

    model = onnx.load(str(path))
    graph = _Graph(model)
    convolutions = [node for node in model.graph.node if graph.can_be_quantised(node)]
    if not convolutions:
        raise ConfigError("--precision int8 quantises convolutions, and this backbone has none; take fp16")
    tensors = list(dict.fromkeys(name for node in convolutions for name in (node.input[0], graph.after(node))))
    ranges = _observed(path, model, tensors, images)
    for node in convolutions:
        graph.quantise_weights(node, ranges[node.input[0]])
    for name in tensors:
        graph.insert_pair(name, ranges[name])
    graph.finish()
    onnx.save(model, str(path))


def _observed(path: Path, model: Any, tensors: Sequence[str], images: Sequence[Array]) -> dict[str, tuple[float, int]]:
    """Scale and zero point of each tensor, from its smallest and largest value on the images."""
    import onnx
    from onnxruntime import InferenceSession

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    session = InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"])
    low, high = np.zeros(len(tensors)), np.zeros(len(tensors))
    for image in images:
        found = session.run(None, {"image": image})
        low = np.minimum(low, [float(each.min()) for each in found])
        high = np.maximum(high, [float(each.max()) for each in found])
    scales = np.maximum((high - low) / 255, 1e-8)
    zeros = np.rint(-low / scales).clip(0, 255).astype(int)
    return {name: (float(s), int(z)) for name, s, z in zip(tensors, scales, zeros, strict=True)}


class _Graph:
    """A graph that pairs are inserted into."""

    def __init__(self, model: Any) -> None:
        self.graph = model.graph
        self.weights = {each.name: each for each in self.graph.initializer}
        self.readers: dict[str, list[Any]] = {}
        for node in self.graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.added: dict[str, list[Any]] = {}
        """Nodes to insert behind the one that makes a tensor; those under "" come first."""

    def can_be_quantised(self, node: Any) -> bool:
        """Whether it is a convolution of the backbone with stored weights."""
        inside = node.op_type == "Conv" and node.name.startswith(_BACKBONE)
        return inside and all(name in self.weights for name in node.input[1:])

    def after(self, node: Any) -> str:
        """What a convolution gives, after its activation where it has one."""
        readers = self.readers.get(node.output[0], [])
        if len(readers) == 1 and readers[0].op_type in _ACTIVATIONS:
            return str(readers[0].output[0])
        return str(node.output[0])

    def quantise_weights(self, node: Any, of_input: tuple[float, int]) -> None:
        """The weights of a convolution in 8 bits per output channel, its biases in 32."""
        from onnx import numpy_helper

        weight = numpy_helper.to_array(self.weights[node.input[1]])
        scale = np.maximum(np.abs(weight).reshape(len(weight), -1).max(axis=1) / 127, 1e-8).astype(np.float32)
        levels = np.rint(weight / scale.reshape(-1, *[1] * (weight.ndim - 1))).clip(-127, 127).astype(np.int8)
        node.input[1] = self._dequantised(node.input[1], levels, scale)
        if len(node.input) > 2:
            bias = numpy_helper.to_array(self.weights[node.input[2]])
            of_bias = (scale.astype(np.float64) * of_input[0]).astype(np.float32)
            whole = np.rint(bias / of_bias.astype(np.float64)).clip(-(2**31), 2**31 - 1).astype(np.int32)
            node.input[2] = self._dequantised(node.input[2], whole, of_bias)

    def insert_pair(self, name: str, values: tuple[float, int]) -> None:
        """What reads a tensor reads it in 8 bits."""
        from onnx import helper

        scale = self._constant(f"{name}.scale", np.float32(values[0]))
        zero = self._constant(f"{name}.zero", np.uint8(values[1]))
        levels, again = f"{name}.levels", f"{name}.again"
        for reader in self.readers.get(name, []):
            for number, read in enumerate(reader.input):
                if read == name:
                    reader.input[number] = again
        self.added.setdefault(name, []).extend(
            [
                helper.make_node("QuantizeLinear", [name, scale, zero], [levels], f"{name}.QuantizeLinear"),
                helper.make_node("DequantizeLinear", [levels, scale, zero], [again], f"{name}.DequantizeLinear"),
            ]
        )

    def finish(self) -> None:
        """Put the new nodes behind those whose tensors they read, and drop weights that nothing reads."""
        nodes = list(self._in_order())
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        read = {name for node in nodes for name in node.input}
        kept = [each for each in self.graph.initializer if each.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)

    def _in_order(self) -> Iterator[Any]:
        yield from self.added.get("", [])
        for node in self.graph.node:
            yield node
            for name in node.output:
                yield from self.added.get(name, [])

    def _dequantised(self, name: str, levels: Array, scale: Array) -> str:
        """The name of a tensor that is ``levels`` times the scale of their channel."""
        from onnx import helper

        stored = self._constant(f"{name}.levels", levels)
        inputs = [
            stored,
            self._constant(f"{name}.scale", scale),
            self._constant(f"{name}.zero", np.zeros_like(levels, shape=scale.shape)),
        ]
        node = helper.make_node("DequantizeLinear", inputs, [f"{name}.again"], f"{name}.DequantizeLinear", axis=0)
        self.added.setdefault("", []).append(node)
        return f"{name}.again"

    def _constant(self, name: str, value: Any) -> str:
        from onnx import numpy_helper

        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name
