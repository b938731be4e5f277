"""`predict` with a network in PyTorch: images of any size, tiles and videos, shared by several ranks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from tasktokens.config import RunSettings
from tasktokens.datasets.listed_folders import check_not_listed
from tasktokens.datasets.prepared import sha256
from tasktokens.discovery.views import Views
from tasktokens.errors import ConfigError, DataError
from tasktokens.inference.description import write_description
from tasktokens.inference.image_files import ImageReader
from tasktokens.inference.journal import PREDICTIONS, Journal, check_no_source, hint_resume
from tasktokens.inference.predict_files import ImageWriter, TiledWriter
from tasktokens.inference.predictor import Predictor
from tasktokens.inference.resumable import gone_through
from tasktokens.inference.stream import Logits, Read
from tasktokens.inference.tiles import Tiles, TileSize, choose_tiles
from tasktokens.inference.video_files import VideoWriter, stem_of
from tasktokens.inference.videos import require_av
from tasktokens.models.files import model_folder
from tasktokens.utils import console, strict_json
from tasktokens.utils.distributed import raise_on_all_ranks, start
from tasktokens.utils.file_kinds import is_exported
from tasktokens.utils.lock import only_writer
from tasktokens.utils.pictures import LARGEST


def predict_with_torch(
    model: Path, images: Mapping[str, Path], videos: Mapping[str, Path], folders: Sequence[Path], out: Path,
    overwrite: bool, quiet: bool, views: int | Views, pictures: bool, batch_size: int | None, tile: TileSize | None,
    overlap: int | None, labels: bool, every: int,
) -> list[Path]:  # fmt: skip
    """What `tasktokens.inference.predict.predict` does, with a network in PyTorch."""
    accelerator = start(RunSettings())
    journal = Journal(out, "predicting", "prediction")
    with ExitStack() as held, hint_resume():
        with raise_on_all_ranks(accelerator):
            _check_videos(videos, tile, overlap, labels, every, pictures)
            predictor = Predictor(model, accelerator.device, views, batch_size)
            tiles = None if tile is None else choose_tiles(predictor.network, predictor.info.size, tile, overlap)
            worker = _Worker(predictor, images, videos, out, pictures, tiles, labels, every)
            if accelerator.is_main_process:
                check_no_source(out, [*images.values(), *videos.values(), weights_of(model)])
                check_not_listed(out, folders)
                held.enter_context(only_writer(out))
                _begin(journal, worker, model, overwrite)
        before = _write_all(accelerator, journal, worker, quiet)
    return [picture for key, picture in worker.paths_of_pictures().items() if key in before or key in worker.drawn]


def _check_videos(
    videos: Mapping[str, Path], tile: object, overlap: object, labels: bool, every: int, pictures: bool
) -> None:
    """Raise `ConfigError` for settings that do not go together, and where PyAV is missing."""
    if overlap is not None and tile is None:
        raise ConfigError("an overlap is one of tiles: give a tile (--tile) too")
    if every < 1:
        raise ConfigError(f"every must be 1 or more, found {every}")
    if not videos:
        if not labels or every > 1:
            raise ConfigError("--no-labels and --every are about videos, and none was given")
        return
    if tile is not None:
        raise ConfigError(
            f"tiles are for images, and {next(iter(videos.values()))} is a video: predict it without --tile"
        )
    if not labels and not pictures:
        raise ConfigError("without labels and without pictures nothing would be written of a video; give one of them")
    require_av()


def weights_of(model: Path) -> Path:
    """The file that holds the weights of a model."""
    return model if is_exported(model) else model_folder(model) / "model.safetensors"


def _write_all(accelerator: Accelerator, journal: Journal, worker: _Worker, quiet: bool) -> frozenset[str]:
    """All images of this rank; on the first those are returned that have had a picture before."""
    with gone_through(accelerator, journal, worker.keys, worker, quiet) as progress:
        if progress.stop.received:
            here = f" of rank {accelerator.process_index}" if accelerator.num_processes > 1 else ""
            left = "; run the same command to resume" if progress.count < progress.share else ""
            progress.stop.exit(f"{progress.count} of {progress.share} images{here} are done{left}")
    worker.images.reader.report(accelerator, worker.videos.damaged)
    if accelerator.is_main_process:
        journal.end()
    if (large := sum(worker.drawn.values())) and not quiet:
        console.say(f"pictures of {large} images are reduced to {LARGEST} pixels; label files are not")
    return progress.before if worker.images.pictures and accelerator.is_main_process else frozenset()


def _begin(journal: Journal, worker: _Worker, model: Path, overwrite: bool) -> None:
    """Begin the folder or go on with it, and say in it what its files will hold."""
    predictor = worker.predictor
    settings = {
        "model": sha256(weights_of(model)),
        "choice of views": predictor.views_by_task,
        "choice of pictures": worker.images.pictures,
        "set of images": _digest(worker.keys),
        **worker.settings(),
    }
    journal.begin(settings, overwrite, clear=False)
    specs = {name: task.spec() for name, task in predictor.tasks.items()}
    write_description(journal.out, {"name": PREDICTIONS, "tasks": specs}, predictor.tasks)


class _Worker:
    """Images and videos by key, each read and written by what knows how.

    Attributes:
        keys: the files by key: the id of an image, the id with the ending of a video.
    """

    def __init__(
        self, predictor: Predictor, images: Mapping[str, Path], videos: Mapping[str, Path], out: Path, pictures: bool,
        tiles: Tiles | None, labels: bool, every: int,
    ) -> None:  # fmt: skip
        self.predictor, self.out, self.tiles = predictor, out, tiles
        reader = ImageReader(images)
        self.images = (
            ImageWriter(predictor, reader, out, pictures) if tiles is None
            else TiledWriter(predictor, reader, out, pictures, tiles)
        )  # fmt: skip
        by_key = {f"{id}{path.suffix}": path for id, path in videos.items()}
        if both := next((key for key in by_key if key in images), None):
            raise DataError(f"{images[both]} and {by_key[both]} have one name, '{both}'; rename one of them")
        self.videos = VideoWriter(predictor, by_key, out, pictures, labels, every)
        self.keys = {**images, **by_key}

    @property
    def drawn(self) -> dict[str, bool]:
        """The keys that have a picture by now, and whether it is smaller than the image."""
        return self.images.drawn | self.videos.drawn

    @property
    def stopped(self) -> Callable[[], bool]:
        """Asked while a large image or a video is being predicted."""
        return self.videos.stopped

    @stopped.setter
    def stopped(self, stopped: Callable[[], bool]) -> None:
        self.videos.stopped = stopped
        if isinstance(self.images, TiledWriter):
            self.images.stopped = stopped

    def settings(self) -> dict[str, Any]:
        """What decides the result beside the model, of tiles and videos."""
        tiles = {} if self.tiles is None else {"choice of tiles": self.tiles.facts()}
        videos = {"choice of frames": [self.videos.labels, self.videos.every]} if self.videos.videos else {}
        return tiles | videos

    def paths_of_pictures(self) -> dict[str, Path]:
        """Where the picture of each key is."""
        folder = self.out / "pictures"
        return {
            key: folder / (f"{stem_of(key)}.mp4" if key in self.videos.videos else f"{key}.png") for key in self.keys
        }

    def read(self, key: str) -> Read:
        """What the network gets of an image; nothing yet of a video."""
        return self.videos.read(key) if key in self.videos.videos else self.images.read(key)

    def ask(self, seen_13hw: Sequence[Tensor]) -> Sequence[Logits]:
        """The logits of images of one size."""
        return self.predictor.logits(seen_13hw)

    def write(self, key: str, seen: Any, logits: Logits | None) -> bool | None:
        """Write the files of an image or video; None where it was left out."""
        return self.videos.write(key) if key in self.videos.videos else self.images.write(key, seen, logits)


def _digest(files: Mapping[str, Path]) -> str:
    """Of the ids and where their files lie."""
    text = strict_json.dumps([[id, str(path.absolute())] for id, path in files.items()])
    return hashlib.sha256(text.encode()).hexdigest()
