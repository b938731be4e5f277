"""What `check` can say of a data set without opening a file: lists, splits, endings, files without a partner."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tasktokens.datasets.files_by_id import list_files
from tasktokens.datasets.index import DatasetIndex
from tasktokens.errors import did_you_mean
from tasktokens.inspection.report import Finding
from tasktokens.tasks import Task
from tasktokens.utils.file_kinds import ARRAY_ENDINGS, IMAGE_ENDINGS, LABEL_ENDINGS
from tasktokens.utils.listing import composed, walk_files


def membership(index: DatasetIndex) -> Mapping[str, tuple[str, ...]]:
    """The splits of each id; splits of the same images under two names, none of them train, count as one."""
    distinct = {frozenset(ids): name for name, ids in reversed(list(index.splits.items())) if name != "train"}
    member: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for name, ids in index.splits.items():
        if name == "train" or distinct[frozenset(ids)] == name:
            for id in dict.fromkeys(ids):
                member[id] += (name,)
    return member


def leaks(a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether one is trained on while the other is in another split."""
    return any(("train" in x and any(s != "train" for s in y)) for x, y in ((a, b), (b, a)))


def splits_text(splits: Sequence[str]) -> str:
    """Names of splits for a sentence: ``train and test``, or ``no split``."""
    return " and ".join(splits) or "no split"


def listing(index: DatasetIndex, tasks: Mapping[str, Task]) -> Iterator[Finding]:
    """Findings that need no file to be opened."""
    yield from passed_over(index, tasks)
    member = membership(index)
    for name, ids in index.splits.items():
        for id, count in Counter(ids).items():
            if count > 1:
                text = f"split '{name}' lists '{id}' {count} times; list it once"
                yield Finding("warning", "listed-twice", text, id=id)
    if index.splits and "train" not in index.splits:
        near = did_you_mean("train", index.splits)
        text = f"no split is called 'train'{near}, so that nothing can be trained on; found: "
        yield Finding("warning", "no-training-split", text + ", ".join(index.splits))
    for id, splits in member.items():
        if len(splits) > 1:
            leak = leaks(splits, splits)
            text = f"'{id}' is in the splits {splits_text(splits)}; " + (
                "what is measured would have been trained on: keep it in one" if leak else "keep it in one"
            )
            yield Finding("error" if leak else "warning", "id-in-two-splits", text, id=id)
    yield from _counted(
        "image-in-no-split", [id for id in index.images if id not in member],
        "are in no split, so that nothing uses them; list them in one", "images",
    )  # fmt: skip
    labelled = {id for name in tasks for id in (*index.labels[name], *index.discovered.get(name, ()))}
    yield from _counted(
        "image-without-label", [id for id in index.images if id not in labelled],
        "have no label of any task; add one, or leave them out", "images",
    )  # fmt: skip
    for name in tasks:
        files = index.labels[name]
        orphans = _orphans(index, name)
        if not files:
            more = f", but {len(orphans)} label files without an image, such as {orphans[0]}" if orphans else ""
            text = f"no image has a label of task '{name}'{more}; add label files, or leave the task out"
            yield Finding("error", "task-without-labels", text, name)
            continue
        yield from splits_without_labels(index, name, index.splits)
        yield from shared_labels(index, name)
        for path in orphans:
            text = f"label file {path} has no image of the same name; rename or remove it"
            yield Finding("warning", "label-without-image", text, name, path=str(path))


def shared_labels(index: DatasetIndex, name: str) -> Iterator[Finding]:
    """A warning where one label file of a task stands for several images, as a table can say."""
    users = defaultdict[Path, list[str]](list)
    for id, file in index.labels[name].items():
        users[file.path].append(id)
    shared = {path: ids for path, ids in users.items() if len(ids) > 1}
    if shared:
        path, ids = next(iter(shared.items()))
        text = (
            f"{len(shared)} label files of task '{name}' belong to several images each, such as {path} to '{ids[0]}' "
            f"and '{ids[1]}'; unless these images show the same, correct the table"
        )
        yield Finding("warning", "label-shared", text, name, id=ids[0], path=str(path))


def splits_without_labels(index: DatasetIndex, name: str, splits: Iterable[str]) -> Iterator[Finding]:
    """A warning for each of the splits without a label of a task."""
    for split in splits:
        if not any(id in index.labels[name] for id in index.splits.get(split, ())):
            use = "learned from" if split == "train" else "measured on"
            text = f"no image of split '{split}' has a label of task '{name}', which cannot be {use} it"
            yield Finding("warning", "split-without-labels", text, name)


def passed_over(index: DatasetIndex, tasks: Mapping[str, Task]) -> Iterator[Finding]:
    """A warning for each folder of an own folder with picture files whose endings are not read, with their number."""
    if not index.images or not (index.root / "dataset.yaml").is_file():
        return
    id, image = next(iter(index.images.items()))
    folders: dict[Path, tuple[str | None, tuple[str, ...]]] = {}
    if len(image.path.parents) > id.count("/"):
        folders[image.path.parents[id.count("/")]] = (None, IMAGE_ENDINGS + ARRAY_ENDINGS)
    for name in tasks:
        for id, file in index.labels[name].items():
            folders.setdefault(file.path.parents[id.count("/")], (name, LABEL_ENDINGS))
            break
    for folder, (task, known) in folders.items():
        if index.root.resolve().is_relative_to(folder.resolve()):  # of a manifest that names files anywhere
            continue
        endings = Counter(Path(parts[-1]).suffix.lower() for parts in walk_files(folder))
        odd = {ending: endings[ending] for ending in sorted(endings) if ending in _PICTURES.difference(known)}
        if odd:
            counts = ", ".join(f"{count} {ending}" for ending, count in odd.items())
            what = "images" if task is None else f"labels of task '{task}'"
            text = f"files in {folder} are passed over as {what}: {counts}; expected {', '.join(known)}: convert them"
            yield Finding("warning", "files-passed-over", text, task, path=str(folder))


_PICTURES = frozenset(
    (*IMAGE_ENDINGS, *ARRAY_ENDINGS, *LABEL_ENDINGS, ".exr", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".hdr", ".jp2",
     ".jxl", ".avif", ".heic", ".heif", ".dng", ".tga", ".mat", ".h5", ".hdf5", ".pt", ".dcm", ".nii")
)  # fmt: skip
"""Endings of pictures and arrays; other files, such as notes and tables, are not counted."""


def _counted(code: str, ids: Sequence[str], text: str, what: str) -> Iterator[Finding]:
    """One warning for all of them."""
    if ids:
        examples = ", ".join(f"'{id}'" for id in ids[:5])
        yield Finding(
            "warning", code, f"{len(ids)} {what} {text}: {examples}{', …' if len(ids) > 5 else ''}", id=ids[0]
        )


def _orphans(index: DatasetIndex, name: str) -> list[Path]:
    """Label files of a task that belong to no image, in an own folder whose labels lie under their images' names."""
    folder = index.root / name
    for id, file in index.labels[name].items():
        above = file.path.parents[id.count("/")]
        same = composed(file.path.relative_to(above).with_suffix("").as_posix()) == id
        folder = above if same else index.root
        break
    if not (index.root / "dataset.yaml").is_file() or folder == index.root or not folder.is_dir():
        return []
    return [path for id, path in list_files(folder, LABEL_ENDINGS).items() if id not in index.images]
