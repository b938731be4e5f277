"""``tasktokens export``: a trained network as one file that other programs compute."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from tasktokens.errors import CheckpointError, ConfigError, RunExistsError, did_you_mean
from tasktokens.exporting.check import TOLERANCE, differences, runner, sizes_text
from tasktokens.exporting.describe import describe
from tasktokens.exporting.measure import calibration_images, measured
from tasktokens.exporting.torch_program import LEAST
from tasktokens.exporting.writing import ENDINGS, require_packages, write_model
from tasktokens.hub.download import local_model
from tasktokens.models.files import load_model
from tasktokens.utils.atomic import writing

Format = Literal["onnx", "openvino", "torch"]
Precision = Literal["fp32", "fp16", "int8"]
Results = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    Attributes:
        path: the file; of OpenVINO the ``.xml``, with a ``.bin`` beside it.
        format: onnx, openvino or torch.
        precision: of the weights.
        mb: size in MB (10^6 bytes), of both files for OpenVINO.
        differences: by (height, width) the largest difference to PyTorch (`tasktokens.exporting.check.TOLERANCE`).
        split: that was measured on; None: nothing was.
        images: their number.
        network, file: metrics by task and name of the network in PyTorch, and of the file.
    """

    path: Path
    format: str
    precision: str
    mb: float
    differences: Mapping[tuple[int, int], float]
    split: str | None = None
    images: int = 0
    network: Results = field(default_factory=dict)
    file: Results = field(default_factory=dict)

    @property
    def max_difference(self) -> float:
        """The largest of the differences."""
        return max(self.differences.values())

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "path": str(self.path), "format": self.format, "precision": self.precision, "mb": round(self.mb, 3),
            "max_difference": self.max_difference,
            "differences": [{"size": [*size], "difference": value} for size, value in self.differences.items()],
            "split": self.split, "images": self.images, "torch_metrics": self.network, "metrics": self.file,
        }  # fmt: skip


def export(
    run: str | Path,
    format: str = "onnx",
    out: str | Path | None = None,
    precision: str = "fp32",
    overwrite: bool = False,
    split: str | None = None,
    limit: int | None = None,
    root: str | Path | None = None,
) -> Exported:
    """Write a trained network as one file: uint8 RGB in, values in the tasks' units and confidences out.

    The graph takes ``image`` (B, H, W, 3) of any size (torch: multiples of 32 from 64 on). Of every task it gives
    ``depth`` (B, C, H, W), ``depth.confidence`` (B, 1, H, W) and ``depth.logits`` (B, K, h, w). The metadata hold what
    `tasktokens.exported.metadata` lists. The file is compared with PyTorch at three sizes; in fp32 one that differs
    by more than 1e-4 is refused and removed. `tasktokens.load` predicts with ``.onnx`` and ``.xml``.

    Args:
        run: a run that `train` wrote, its ``best``, or a model folder.
        format: ``onnx``; ``openvino``: an ``.xml`` with a ``.bin``; ``torch``: a ``.pt2`` for `torch.export.load`.
        out: file to write; default: ``model.onnx`` (``.xml``, ``.pt2``) in the folder of the run.
        precision: ``fp32``; ``fp16``: weights of 16 bits; ``int8``: the backbone's convolutions in 8 bits, calibrated
            on images of the run's training. fp16 and int8 are measured, and not for torch.
        overwrite: replace ``out``.
        split: measure the metrics of network and file on it; default: for fp16 and int8 that of ``run.evaluate``.
        limit: measure on this many images, evenly spread.
        root: where the data lies now, for calibration and metrics; default: where it lay.

    Raises:
        ConfigError: an unknown format or precision, a missing package, or an operation that the format does not know.
        CheckpointError: there is no trained model, or the file differs from PyTorch.
        RunExistsError: ``out`` exists. DataError: no data to calibrate or measure with.

    Examples:
        >>> import tasktokens
        >>> exported = tasktokens.export("runs/mine", out="model.onnx")
        >>> exported.max_difference < 1e-4, exported.path.name
        (True, 'model.onnx')
    """
    run, root = local_model(run), None if root is None else Path(root)
    _check_choices(format, precision, limit)
    require_packages(format)
    network, info = load_model(run, "cpu", folded=True)
    path = _target(run, format, out)
    if path.exists() and not overwrite:
        raise RunExistsError(f"{path} exists and is kept; give --overwrite to replace it, or another --out")
    described = describe(info, precision)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".exporting-") as folder:
            new = Path(folder) / path.name
            write_model(new, network, described, format, lambda: calibration_images(run, info, root))
            found = differences(network, runner(new, network), info.size, LEAST if format == "torch" else 32)
            _check(found, precision)
            results: tuple[Any, ...] = ()
            if format != "torch" and (split is not None or limit is not None or precision != "fp32"):
                results = measured(run, new, network, info, split, limit, root)
            mb = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
            for file in sorted(Path(folder).iterdir(), key=lambda file: file.suffix):  # .bin before .xml
                os.replace(file, path.parent / file.name)
    return Exported(path, format, precision, mb, found, *results)


def _check_choices(format: str, precision: str, limit: int | None) -> None:
    for value, known, what in ((format, get_args(Format), "format"), (precision, get_args(Precision), "precision")):
        if value not in known:
            raise ConfigError(
                f"--{what} must be one of {', '.join(known)}, found '{value}'{did_you_mean(value, known)}"
            )
    if format == "torch" and precision != "fp32":
        raise ConfigError(f"--precision {precision} goes with the formats onnx and openvino; torch has fp32")
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit must be 1 or more, found {limit}")


def _target(run: Path, format: str, out: str | Path | None) -> Path:
    ending = ENDINGS[format]
    path = run / f"model{ending}" if out is None else Path(out)
    if path.is_dir():
        path = path / f"model{ending}"
    if path.suffix.lower() != ending:
        raise ConfigError(
            f"files of the format {format} end in {ending}, found '{path.name}'; give {path.stem}{ending}"
        )
    return path


def _check(found: Mapping[tuple[int, int], float], precision: str) -> None:
    """Refuse what differs from PyTorch; fewer bits differ by design, and are measured."""
    most = TOLERANCE if precision == "fp32" else float("inf")
    wrong = {size: value for size, value in found.items() if not value <= most or value == float("inf")}
    if wrong:
        raise CheckpointError(
            f"the exported file differs from PyTorch by {max(wrong.values()):.1e} at {sizes_text([*wrong])}, where at "
            f"most {TOLERANCE:.0e} is right; nothing was written: take another backbone, variant or format"
        )


def table(exported: Exported) -> Sequence[tuple[str, Sequence[str]]]:
    """Metrics of the network and of the file, as columns."""
    rows = [
        (f"{task} {name}", value, exported.file[task][name])
        for task, metrics in exported.network.items()
        for name, value in metrics.items()
        if " " not in name
    ]
    return [
        ("metric", [name for name, _, _ in rows]),
        ("PyTorch", [f"{value:.4g}" for _, value, _ in rows]),
        (exported.precision, [f"{value:.4g}" for _, _, value in rows]),
        ("difference", [f"{value - before:+.4g}" for _, before, value in rows]),
    ]
