"""The model that users load: takes images of any kind, returns predictions that can be shown and saved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tasktokens.discovery.views import Views
from tasktokens.errors import CheckpointError, ConfigError
from tasktokens.hub.address import could_be_repository, is_address
from tasktokens.hub.download import local_model
from tasktokens.inference.inputs import ImageLike, as_image
from tasktokens.inference.predictor import Predictor
from tasktokens.inference.results import Prediction, Result
from tasktokens.inference.tiled import predict_tiled
from tasktokens.inference.tiles import Tiles, TileSize, choose_tiles
from tasktokens.inference.videos import next_frames, open_clip, require_av
from tasktokens.models import Network
from tasktokens.tasks import Task
from tasktokens.tasks.base import Array


def from_pretrained(
    name: str | Path,
    device: torch.device | str | None = None,
    views: int | Views = 1,
    token: str | None = None,
) -> Model:
    """Load a trained model of the Hugging Face Hub, or of a folder of this machine, which comes first.

    Only ``model.safetensors``, ``model.json``, ``config.yaml`` and ``README.md`` are downloaded, into the cache of the
    Hub's client, and nothing is executed. With ``HF_HUB_OFFLINE=1`` the cache alone is asked.

    Args:
        name: ``user/name``, ``user/name@revision/folder``, the same with ``hf://`` in front, or a folder.
        device: see `tasktokens.load`.
        views: see `tasktokens.load`.
        token: of the Hub; default: the one that is logged in.

    Raises:
        HubError: there is no such model, the Hub refuses or cannot be reached. And those of `tasktokens.load`.

    Examples:
        >>> import tasktokens
        >>> folder = tasktokens.load("runs/mine", device="cpu").save_pretrained("given-away", license="cc-by-4.0")
        >>> tasktokens.from_pretrained(folder, device="cpu").predict("photos/one.jpg")["depth"].value.dtype.name
        'float32'
    """
    if not is_address(name) and not Path(name).exists():
        if not could_be_repository(str(name)):
            raise CheckpointError(f"there is no folder {name}; give one, or user/name of the Hugging Face Hub")
        name = f"hf://{name}"
    model = Model(local_model(name, token), device, views)
    model._name = str(name)
    return model


class Model:
    """A trained network that takes images of any kind and size; see `tasktokens.load`.

    Args:
        path: a run, its ``best``, or a model folder.
        device: see `tasktokens.load`.
        views: see `tasktokens.load`.

    Attributes:
        network: the plain `torch.nn.Module`, in evaluation mode, batch norms folded into convolutions: one to train
            further is that of `tasktokens.load_model`.

    Examples:
        >>> model = Model("runs/mine", device="cpu")
        >>> list(model.tasks), model.size
        (['semseg', 'depth'], (32, 48))
    """

    def __init__(self, path: str | Path, device: torch.device | str | None = None, views: int | Views = 1) -> None:
        self._name, self._path = str(path), local_model(path)
        self._predictor = Predictor(self._path, device, views)
        self.network: Network = self._predictor.network

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks that the model predicts, by name."""
        return self._predictor.tasks

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""
        return self._predictor.device

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the images that it was trained on; others are resized to about as many pixels."""
        return self._predictor.info.size

    @overload  # a str is an iterable of str to a type checker
    def predict(  # type: ignore[overload-overlap]
        self, images: str | Path | Image.Image, batch_size: int = 1, *,
        tile: TileSize | None = None, overlap: int | None = None,
    ) -> Result: ...  # fmt: skip
    @overload
    def predict(
        self, images: np.ndarray[Any, Any] | Tensor, batch_size: int = 1, *,
        tile: TileSize | None = None, overlap: int | None = None,
    ) -> Any: ...  # fmt: skip
    @overload
    def predict(
        self, images: list[Any] | tuple[Any, ...], batch_size: int = 1, *,
        tile: TileSize | None = None, overlap: int | None = None,
    ) -> list[Result]: ...  # fmt: skip
    @overload
    def predict(
        self, images: Iterable[ImageLike], batch_size: int = 1, *,
        tile: TileSize | None = None, overlap: int | None = None,
    ) -> Iterator[Result]: ...  # fmt: skip

    def predict(
        self, images: Any, batch_size: int = 1, *, tile: TileSize | None = None, overlap: int | None = None
    ) -> Any:
        """Predict all tasks of one image or of many.

        Args:
            images: one image: a path, a PIL image, an array (H, W, 3) or a tensor (3, H, W), both uint8 RGB (what else
                is taken: `tasktokens.inference.inputs.as_image`). Or several, of any sizes: a list or tuple of them,
                an array (B, H, W, 3), a tensor (B, 3, H, W), or any other iterable of images.
            batch_size: how many images of one size go through the network together. With 1 the results are bit for
                bit those of one image at a time; more is faster on a GPU and agrees but for the rounding of float32.
            tile: predict each image in overlapping tiles at its own resolution: their side in pixels, (height, width),
                or True for about the size of the training images. Default: the image is resized to about that size.
            overlap: of neighbouring tiles in pixels; default: a quarter of a tile.

        Returns:
            A `Result` of one image; a list of them for a list, a tuple, a batched array or tensor; an iterator for any
            other iterable, which is read ``batch_size`` images ahead, so that memory does not grow with their number.

        Raises:
            DataError: an image that is missing, a URL, or of the wrong dtype or shape.
            ConfigError: a batch size below 1, or a tile or overlap that does not suit the network.

        Examples:
            >>> import numpy as np, tasktokens
            >>> model = tasktokens.load("runs/mine", device="cpu")
            >>> images = np.zeros((2, 40, 56, 3), np.uint8)
            >>> [list(result) for result in model.predict(images)]
            [['semseg', 'depth'], ['semseg', 'depth']]
            >>> depth = model.predict(images[0])["depth"]
            >>> depth.value.shape, depth.valid(0.5).dtype.name, depth.save("depth.png").name
            ((40, 56), 'bool', 'depth.png')
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size must be 1 or more, found {batch_size}")
        if tile is None and overlap is not None:
            raise ConfigError("an overlap is one of tiles: give a tile too")
        tiles = None if tile is None else choose_tiles(self.network, self.size, tile, overlap)
        if isinstance(images, np.ndarray | Tensor):
            each = self._each(images if images.ndim == 4 else [images], batch_size, tiles)
            return list(each) if images.ndim == 4 else next(each)
        if isinstance(images, list | tuple):
            return list(self._each(images, batch_size, tiles))
        if isinstance(images, Iterable) and not isinstance(images, str | Path | Image.Image):
            return self._each(images, batch_size, tiles)
        return next(self._each([images], 1, tiles))

    def predict_video(self, path: str | Path, every: int = 1, batch_size: int = 1) -> Iterator[tuple[float, Result]]:
        """Predict all tasks of the frames of a video, in order; memory does not grow with its length.

        Args:
            path: of any video that PyAV opens; frames come upright, as players show them.
            every: only every N-th frame, from the first on.
            batch_size: how many frames go through the network together.

        Yields:
            The time of a frame in seconds, and its `Result`.

        Raises:
            ConfigError: PyAV is not installed, or ``every`` or ``batch_size`` is below 1.
            DataError: the file cannot be opened or has no pictures, or, after its whole frames, is damaged or cut off.

        Examples:
            >>> import tasktokens
            >>> model = tasktokens.load("runs/mine", device="cpu")
            >>> for seconds, result in model.predict_video("clip.mp4", every=2):
            ...     print(f"{seconds:.2f}", result["depth"].value.shape)
            0.00 (48, 64)
            0.20 (48, 64)
        """
        if every < 1 or batch_size < 1:
            raise ConfigError(f"every and batch_size must be 1 or more, found {every} and {batch_size}")
        require_av()
        return self._frames(Path(path), every, batch_size)

    def _frames(self, path: Path, every: int, batch_size: int) -> Iterator[tuple[float, Result]]:
        with open_clip(path) as clip:
            frames, damage = clip.frames(every), None
            while damage is None:
                some, damage = next_frames(frames, batch_size)
                if not some and damage is None:
                    return
                predicted = self._predictor.batch([frame.image for frame in some])
                for frame, predictions in zip(some, predicted, strict=True):
                    yield frame.time, Result(frame.image, predictions)
            raise damage

    def _each(self, images: Iterable[object], batch_size: int, tiles: Tiles | None) -> Iterator[Result]:
        waiting = iter(images)
        while some := list(islice(waiting, batch_size)):
            arrays = [as_image(image) for image in some]
            for image, array, predictions in zip(some, arrays, self._predicted(arrays, tiles), strict=True):
                yield Result(array, predictions, Path(image) if isinstance(image, str | Path) else None)

    def _predicted(self, images_HW3: list[Array], tiles: Tiles | None) -> list[dict[str, Prediction]]:
        if tiles is None:
            return self._predictor.batch(images_HW3)
        return [predict_tiled(self._predictor, image, tiles) for image in images_HW3]

    def save_pretrained(
        self,
        folder: str | Path,
        license: str | None = None,
        datasets: Sequence[str] = (),
        overwrite: bool = False,
    ) -> Path:
        """Write the model into a folder that can be given away; see `tasktokens.inference.share.save_pretrained`."""
        from tasktokens.inference import share

        return share.save_pretrained(self._path, folder, license, datasets, overwrite)

    def push_to_hub(
        self,
        repository: str,
        private: bool = True,
        token: str | None = None,
        license: str | None = None,
        datasets: Sequence[str] = (),
    ) -> str:
        """Publish the model on the Hugging Face Hub; see `tasktokens.inference.share.push_to_hub`."""
        from tasktokens.inference import share

        return share.push_to_hub(self._path, repository, private, token, license, datasets)

    def __repr__(self) -> str:
        height, width = self.size
        tasks = ", ".join(f"{name} ({task.kind})" for name, task in self.tasks.items())
        return f"Model({self._name}, {tasks}, trained at {height}x{width}, on {self.device})"
