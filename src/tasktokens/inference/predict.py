"""``tasktokens predict``: label files, confidences and pictures for images of any size, and for videos."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tasktokens.errors import CheckpointError, ConfigError
from tasktokens.hub.download import local_model
from tasktokens.inference.image_listing import find_images_and_videos, folders_of
from tasktokens.utils.file_kinds import is_exported

if TYPE_CHECKING:  # exported models predict where there is no torch
    from tasktokens.discovery.views import Views
    from tasktokens.inference.tiles import TileSize


def predict(
    model: str | Path, inputs: str | Path | Sequence[str | Path], out: str | Path, overwrite: bool = False,
    quiet: bool = False, views: int | Views = 1, pictures: bool = True, batch_size: int | None = None,
    tile: TileSize | None = None, overlap: int | None = None, labels: bool = True, every: int = 1,
) -> list[Path]:  # fmt: skip
    """Predict all tasks of images and videos; several ranks share them. After an interruption the same call resumes.

    Args:
        model: a run that `train` wrote, its model folder, or a file that `export` wrote (.onnx, .xml), with which
            images are predicted without torch; tiles and videos need it.
        inputs: one or more images, videos, folders (searched below) or glob patterns.
        out: new folder: ``{task}/{id}.png`` in the layout that the data folder has, ``confidence/{task}/{id}.png``
            (0..255 for 0..1), ``pictures/{id}.png``, and ``dataset.yaml`` and ``classes.csv``, which say what the
            files hold.
        overwrite: whether ``out`` may hold files already; those with the same names are replaced.
        quiet: do not show progress.
        views: 1: the image as it is; 2: averaged with a mirrored and enlarged view (`Predictor`).
        pictures: also draw each image with its predictions in colours, at most 1024 pixels per side.
        batch_size: images of one size that go through the network together; default: see `Predictor.batch_size`.
        tile: predict images in tiles of that many pixels per side, of (height, width), or, for True, of about the size
            of the training images; in memory that does not grow with their height. Default: each image is resized to
            about the size of the training images.
        overlap: of neighbouring tiles in pixels; default: a quarter of a tile.
        labels: whether videos get a label file per frame.
        every: of videos, every N-th frame alone is predicted.

    Returns:
        The pictures, of this rank's images and videos; none without ``pictures``.

    Raises:
        CheckpointError: no model there.
        ConfigError: a batch size below 1, a tile or overlap that does not suit the network, tiles for a video, or
            settings for videos where there is none.
        RunExistsError: ``out`` is not empty, or another process writes into it.
        DataError: no image found, two with one name, or, after all others were predicted, unreadable ones; of a video
            that is damaged or cut off the frames until then are written.
        WriteError: the disk is full.
        SystemExit: 130 or 143 after SIGINT or SIGTERM; the images until then are whole.

    Examples:
        >>> import tasktokens
        >>> pictures = tasktokens.predict("runs/mine", "photos/one.jpg", "predicted", quiet=True)
        >>> [picture.as_posix() for picture in pictures]
        ['predicted/pictures/one.png']
    """
    model, out = local_model(model), Path(out)
    if is_exported(model):
        if not model.is_file():
            raise CheckpointError(f"{model} does not exist; 'tasktokens export RUN' writes one")
        if views != 1:
            raise ConfigError(f"exported models see each image once, found views={views!r}; predict with the run")
    else:
        from tasktokens.models.files import model_folder, read_info

        read_info(model_folder(model))  # there is a model, before images are looked for
    images, videos = find_images_and_videos(inputs)
    alone = os.environ.get("WORLD_SIZE", "1") == "1"
    if is_exported(model) and alone and not videos and tile is None and overlap is None and labels and every == 1:
        from tasktokens.exported.predict import predict_images

        return predict_images(model, images, folders_of(inputs), out, overwrite, quiet, pictures, batch_size)
    from tasktokens.inference.predict_run import predict_with_torch

    return predict_with_torch(
        model, images, videos, folders_of(inputs), out, overwrite, quiet, views, pictures, batch_size, tile, overlap,
        labels, every,
    )  # fmt: skip
