"""The libraries that compute exported models: ONNX Runtime and OpenVINO, each imported on use."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tasktokens.errors import CheckpointError, ConfigError
from tasktokens.exported.metadata import KEY
from tasktokens.exported.signal_stack import signal_stack_kept

Array = npt.NDArray[Any]


class Runtime(Protocol):
    """A loaded graph."""

    def metadata(self) -> str | None:
        """The JSON that `tasktokens.exported.metadata` describes; None: there is none."""

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """The outputs of those names."""

    def decoder(self, content: bytes) -> Runtime:
        """A small ONNX model, computed by the same library."""


def open_runtime(path: Path, threads: int | None = None) -> Runtime:
    """Load ``.onnx`` by ONNX Runtime and ``.xml`` by OpenVINO.

    Raises:
        CheckpointError: no such file, or the library cannot read it. ConfigError: the library is not installed.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist; 'tasktokens export RUN' writes one")
    if path.suffix.lower() == ".onnx":
        return OnnxRuntime(path, threads)
    return OpenVino(path, threads)


class OnnxRuntime:
    """A graph in ONNX Runtime, on the CPU.

    Args:
        model: a file, or its content.
        threads: per graph; default: ``OMP_NUM_THREADS``, else what the library chooses.
    """

    def __init__(self, model: Path | bytes, threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise ConfigError("exported models in ONNX need onnxruntime: pip install onnxruntime") from error
        self._threads = threads or _threads_wanted()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads or 0
        options.log_severity_level = 3
        given = model if isinstance(model, bytes) else str(model)
        try:
            self._session = onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # classes of its own, for whatever a file holds
            name = "a decoder in the metadata" if isinstance(model, bytes) else str(model)
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(f"{name} is no ONNX model that can be read ({reason}); export it again") from error
        self._options = onnxruntime.RunOptions()
        self._options.only_execute_path_to_fetches = True

    def metadata(self) -> str | None:
        """See `Runtime`."""
        text: str | None = self._session.get_modelmeta().custom_metadata_map.get(KEY)
        return text

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """See `Runtime`."""
        found: list[Array] = self._session.run(list(outputs), dict(inputs), self._options)
        return found

    def decoder(self, content: bytes) -> OnnxRuntime:
        """See `Runtime`."""
        return OnnxRuntime(content, self._threads)


class OpenVino:
    """A graph in OpenVINO, on the CPU; arguments as for `OnnxRuntime`."""

    def __init__(self, model: Path | bytes, threads: int | None = None) -> None:
        try:
            import openvino
        except ModuleNotFoundError as error:
            raise ConfigError("exported models for OpenVINO need openvino: pip install openvino") from error
        self._threads = threads or _threads_wanted()
        core = openvino.Core()
        settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": self._threads} if self._threads else {}
        settings["INFERENCE_PRECISION_HINT"] = "f32"  # the same on every processor
        try:
            self._model = core.read_model(model if isinstance(model, bytes) else str(model))
            with signal_stack_kept():
                self._compiled = core.compile_model(self._model, "CPU", settings)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"{model!s:.200} is no OpenVINO model that can be read ({reason}); export it again"
            ) from error

    def metadata(self) -> str | None:
        """See `Runtime`."""
        return str(self._model.get_rt_info([KEY]).value) if self._model.has_rt_info([KEY]) else None

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """See `Runtime`."""
        with signal_stack_kept():
            found = self._compiled(dict(inputs))
        return [np.array(found[name]) for name in outputs]

    def decoder(self, content: bytes) -> OpenVino:
        """See `Runtime`."""
        return OpenVino(content, self._threads)


def _threads_wanted() -> int | None:
    text = os.environ.get("OMP_NUM_THREADS", "")
    return int(text) if text.isdigit() and int(text) > 0 else None
