"""One function per format: from a network to a file with its metadata."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasktokens.errors import ConfigError
from tasktokens.exported.metadata import KEY, ExportInfo
from tasktokens.exporting.graph import write_onnx
from tasktokens.exporting.quantise import quantise
from tasktokens.exporting.torch_program import write_program
from tasktokens.models import Network
from tasktokens.utils import strict_json

Array = np.ndarray[Any, Any]
Calibration = Callable[[], Sequence[Array]]
"""Images as the network gets them, (1, h, w, 3) uint8, read on use."""

ENDINGS = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
_NEEDS = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "onnxruntime", "openvino"), "torch": ("onnx",)}


def require_packages(format: str) -> None:
    """Raise `ConfigError` where a package of the extra ``export`` is missing that the format needs."""
    missing = [name for name in _NEEDS[format] if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"--format {format} needs {', '.join(missing)}: pip install 'tasktokens[export]'")


def write_model(path: Path, network: Network, info: ExportInfo, format: str, calibration: Calibration) -> None:
    """Write ``path`` (and for OpenVINO the ``.bin`` beside it)."""
    if format == "torch":
        write_program(path, network, info)
        return
    graph = path.with_name(f"{path.stem}-graph.onnx") if format == "openvino" else path
    try:
        write_onnx(graph, network)
        if info.precision == "int8":
            quantise(graph, calibration())
        if format == "openvino":
            _write_openvino(path, graph, info)
        else:
            _finish_onnx(graph, info)
    finally:
        if graph != path:
            graph.unlink(missing_ok=True)


def _finish_onnx(path: Path, info: ExportInfo) -> None:
    """Add the metadata; for fp16 the weights become 16-bit numbers, which runtimes widen once while loading."""
    import onnx

    model = onnx.load(str(path))
    if info.precision == "fp16":
        _halve(model)
    model.producer_name, model.producer_version = KEY, info.version
    onnx.helper.set_model_props(model, {KEY: info.text()})
    onnx.save(model, str(path))


def _halve(model: Any) -> None:
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in model.graph.initializer:
        if weight.data_type != TensorProto.FLOAT:
            continue
        array = numpy_helper.to_array(weight)
        if array.size < 16:  # constants of formulas, such as ends of a range
            continue
        name = weight.name
        limit = float(np.finfo(np.float16).max)
        weight.CopyFrom(numpy_helper.from_array(array.clip(-limit, limit).astype(np.float16), f"{name}.16"))
        casts.append(helper.make_node("Cast", [weight.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _write_openvino(path: Path, graph: Path, info: ExportInfo) -> None:
    import openvino

    model = openvino.convert_model(str(graph))
    model.set_rt_info(strict_json.dumps(json.loads(info.text())), [KEY])
    openvino.save_model(model, str(path), compress_to_fp16=info.precision == "fp16")
