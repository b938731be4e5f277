"""Load a model of any form: a run, a model folder, or an exported file; torch is imported for the first two alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from tasktokens.errors import ConfigError
from tasktokens.utils.file_kinds import is_exported

if TYPE_CHECKING:
    import torch

    from tasktokens.discovery.views import Views
    from tasktokens.inference.model import Model


@overload
def load(path: str | Path, device: torch.device | str | None = None, views: int | Views = 1) -> Model: ...
@overload
def load(path: str | Path, device: Any = None, views: Any = 1) -> Any: ...


def load(path: str | Path, device: Any = None, views: Any = 1) -> Any:
    """Load a trained model.

    Args:
        path: a run that `tasktokens.train` wrote, its ``best`` network, any folder with a ``model.json``, or
            ``hf://user/name`` for a model of the Hugging Face Hub (`tasktokens.from_pretrained`), or ``demo`` for the
            model that ships, unless something here is called so. Or a file that `tasktokens.export` wrote,
            ``.onnx`` or ``.xml``, for which torch need not be installed.
        device: such as ``cpu`` or ``cuda:1``; default: the GPU, where there is one. Exported files: the CPU.
        views: 2 averages each image with an enlarged mirror image: more accurate, takes 2.6 times as long; not of
            exported files.

    Returns:
        A `Model`; of an exported file an `ExportedModel`, whose ``predict`` gives the same.

    Raises:
        CheckpointError: there is no model, it is damaged, or of a later format. HubError: it cannot be downloaded.
        ConfigError: no such device, another number of views, or ONNX Runtime (OpenVINO) is not installed.

    Examples:
        >>> import tasktokens
        >>> model = tasktokens.load("runs/mine", device="cpu")
        >>> result = model.predict("photos/one.jpg")
        >>> result["depth"].value.shape == result.image.shape[:2]
        True
    """
    if not is_exported(path):
        if Path(path).suffix.lower() == ".pt2":
            raise ConfigError(
                f"{path} is a program for torch.export.load; tasktokens.load takes .onnx, .xml, or the run itself"
            )
        from tasktokens.inference.model import Model

        return Model(path, device, views)
    if device is not None and str(device) != "cpu":
        raise ConfigError(f"exported models are computed on the CPU here, found device '{device}'; leave it out")
    if views != 1:
        raise ConfigError(f"exported models see each image once, found views={views!r}; load the run for more")
    from tasktokens.exported.model import ExportedModel

    return ExportedModel(path)
