"""``tasktokens predict``: label files, confidences and pictures for images of any size."""

from __future__ import annotations

import glob
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from rich.progress import track

from tasktokens.config import RunSettings
from tasktokens.datasets.folder import IMAGE_ENDINGS, list_paths
from tasktokens.datasets.index import check_id, picture_facts, read_image
from tasktokens.errors import DataError, RunExistsError
from tasktokens.inference.predictor import Predictor
from tasktokens.tasks.base import Array
from tasktokens.tasks.files import write_png
from tasktokens.utils.distributed import all_gather, raise_on_all_ranks, signals, start
from tasktokens.utils.listing import composed, matches, walk_files
from tasktokens.utils.pictures import Picture, Strip, save_strips


def predict(
    model: str | Path,
    inputs: str | Path | Sequence[str | Path],
    out: str | Path,
    overwrite: bool = False,
    quiet: bool = False,
    views: int = 1,
) -> list[Path]:
    """Predict all tasks of images; several ranks share them.

    Args:
        model: a run that `train` wrote, or its model folder.
        inputs: one or more images, folders (searched below) or glob patterns.
        out: new folder: ``{task}/{id}.png`` in the layout that the data folder has, ``confidence/{task}/{id}.png``
            (0..255 for 0..1) and ``pictures/{id}.png``.
        overwrite: whether ``out`` may hold files already; those with the same names are replaced.
        views: how the network looks at an image (`Predictor`): 1 as it is, 2 also mirrored and enlarged.

    Returns:
        The pictures, of this rank's images.

    Raises:
        CheckpointError: no model there.
        RunExistsError: ``out`` is not empty.
        DataError: no image found, two with one name, or, after all others were predicted, unreadable ones.
        SystemExit: 130 or 143 after SIGINT or SIGTERM; the images until then are whole.
    """
    out = Path(out)
    accelerator = start(RunSettings())
    with raise_on_all_ranks(accelerator):
        predictor = Predictor(model, accelerator.device, views)
        images = find_images(inputs)
        if accelerator.is_main_process:
            require_empty(out, overwrite)
    pictures = []
    for id, image in readable(images, "predicting", quiet, accelerator):
        predictions = predictor(image)
        for name, prediction in predictions.items():
            predictor.tasks[name].write(out / name / f"{id}.png", prediction.value_CHW)
            write_png(out / "confidence" / name / f"{id}.png", np.rint(prediction.confidence * 255).astype(np.uint8))
        drawn = [Picture(name, predictor.tasks[name].colourise(p.value_CHW)) for name, p in predictions.items()]
        pictures.append(out / "pictures" / f"{id}.png")
        pictures[-1].parent.mkdir(parents=True, exist_ok=True)
        save_strips(pictures[-1], [Strip(id, (Picture("image", image), *drawn))])
    return pictures


def readable(
    images: Mapping[str, Path], doing: str, quiet: bool, accelerator: Accelerator | None = None
) -> Iterator[tuple[str, Array]]:
    """Images (H, W, 3) uint8 by id, with progress; `DataError` at the end names those that cannot be read.

    With an accelerator each of its ranks gets a share, and all fail alike. SIGINT and SIGTERM end it between two
    images, by `SystemExit`.
    """
    unreadable, turned, paged = [], [], []
    rank, ranks = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    own, quiet = list(images.items())[rank::ranks], quiet or rank > 0
    with signals(ranks) as stop:
        for number, (id, path) in enumerate(track(own, description=doing, disable=quiet)):
            if stop.received:
                done = f"{number} of {len(own)} images" + (f" of rank {rank}" if ranks > 1 else "")
                stop.leave(f"{done} are done; --overwrite starts again")
            try:
                image = read_image(path)
            except DataError as error:
                unreadable.append(str(error))
                continue
            facts = picture_facts(path)
            turned += [str(path)] if facts.orientation > 1 else []
            paged += [str(path)] if facts.frames > 1 else []
            yield id, image
        if stop.received:
            stop.leave("all images are done")
    if accelerator is not None:
        unreadable, turned, paged = (
            [text for of_rank in all_gather(accelerator, texts) for text in of_rank]
            for texts in (unreadable, turned, paged)
        )
    for found, what in ((turned, _TURNED), (paged, _PAGED)):
        if found and rank == 0:
            print(f"warning: {len(found)} of {len(images)} images have {what}, such as {found[0]}", file=sys.stderr)
    with raise_on_all_ranks(accelerator) if accelerator is not None else nullcontext():
        if unreadable:
            raise DataError(f"{len(unreadable)} of {len(images)} images were left out: {'; '.join(unreadable[:5])}")


_TURNED = "an EXIF orientation, which is not applied: turn them first (docs/data.md), for the network saw them unturned"
_PAGED = "several pages or frames, of which the first was taken"


def find_images(inputs: str | Path | Sequence[str | Path]) -> dict[str, Path]:
    """Image files by id: the path below the given folder without its ending.

    Folders are listed as data folders are: linked folders are followed, and what begins with a dot is passed over. A
    file that is named itself is taken in any case. Raises `DataError`.
    """
    found: dict[str, Path] = {}
    for item in map(str, [inputs] if isinstance(inputs, str | Path) else inputs):
        path = Path(item)
        if path.is_dir():
            listed = list(list_paths(path, IMAGE_ENDINGS))
        elif path.is_file():
            listed = [(composed(path.stem), path)]
        else:
            listed = _matching(item)
        if not listed:
            raise DataError(f"no images in folder {path} ({', '.join(IMAGE_ENDINGS)})")
        for id, file in listed:
            check_id(id, path)
            if found.setdefault(id, file) != file:
                raise DataError(
                    f"{found[id]} and {file} would both be written as '{id}'; predict them into two folders"
                )
    return found


def _matching(pattern: str) -> list[tuple[str, Path]]:
    """Ids and files that a pattern matches: the path below its part without wildcards."""
    parts = Path(pattern).parts
    start = next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))
    root = Path(*parts[:start])
    if "**" in parts:  # not by glob, which goes through a loop of links forty times
        files = [root.joinpath(*file) for file in walk_files(root) if matches(file, parts[start:])]
    else:
        files = [Path(file) for file in sorted(glob.glob(pattern)) if os.path.isfile(file)]
    if not files:
        raise DataError(f"no image at '{pattern}': it is no file, no folder and no pattern that matches a file")
    return [(composed(file.relative_to(root).with_suffix("").as_posix()), file) for file in files]


def require_empty(out: Path, overwrite: bool, clear: bool = False) -> None:
    """Raise `RunExistsError` if ``out`` holds anything; with ``overwrite`` allow it, emptied first if ``clear``."""
    if out.exists() and not out.is_dir():
        raise RunExistsError(f"{out} is a file; give a folder to write to")
    if out.is_dir() and any(out.iterdir()):
        if not overwrite:
            raise RunExistsError(f"{out} is not empty; choose another folder, or give --overwrite")
        if clear:
            shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
