"""Look at every file of a data set before an hour is lost on it: `check`.

Files are examined one by one, in parallel processes where asked for; only sums and sizes are kept, so memory does not
grow with the pixels, and the report does not depend on the number of processes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from pathlib import Path

from tasktokens.data.visibility import VisibleLabels
from tasktokens.datasets.folder import LABEL_ENDINGS, list_files
from tasktokens.datasets.index import DatasetIndex
from tasktokens.errors import DataError
from tasktokens.inspection.report import Finding, Findings, Report, TaskReport, most_frequent
from tasktokens.inspection.survey_file import FileSurvey, LabelSurvey, SurveyJob, examine_job
from tasktokens.tasks import Task
from tasktokens.tasks.base import Array
from tasktokens.tasks.examine import Severity
from tasktokens.utils.listing import composed
from tasktokens.utils.processes import process_map
from tasktokens.utils.progress import bar


def check(
    collection: DatasetIndex,
    tasks: Mapping[str, Task] | None = None,
    visible: VisibleLabels | None = None,
    workers: int | None = None,
    threads: int = 0,
    limit: int | None = None,
    progress: bool = False,
    flip: bool = True,
) -> Report:
    """Examine the images and labels of a collection.

    Args:
        collection: the data.
        tasks: those to examine; None: all of it.
        visible: ids, and the tasks whose labels may be opened for each; None: everything. Other files are not touched.
        workers: processes; None: as many as pay; 1 works in this one.
        threads: use so many threads of this process instead.
        limit: examine at most so many images, evenly spread over the list.
        progress: show a bar on standard error.
        flip: whether training will mirror images, which makes left and right a question.

    Raises:
        DataError: a process was killed from outside.
    """
    tasks = collection.tasks if tasks is None else tasks
    ids = list(collection.images if visible is None else visible)
    sampled = limit is not None and limit < len(ids)
    if limit is not None and sampled:
        ids = [ids[i * len(ids) // limit] for i in range(limit)]
    jobs = [_job(collection, tasks, id, visible) for id in ids]
    tally = _Tally(collection, tasks, sampled)
    if flip:
        tally.findings.add(*mirror_findings(tasks))
    if visible is None:
        tally.findings.add(*_listing(collection, tasks))
    with bar(len(jobs), progress, "checking") as step:
        for look in _looks(jobs, workers, threads):
            tally.add(look)
            step()
    return tally.report()


def mirror_findings(tasks: Mapping[str, Task]) -> list[Finding]:
    """What training on mirrored images would make wrong; no file is opened."""
    return [Finding(*each, name) for name, task in tasks.items() for each in task.mirror_suspicions()]


def _job(collection: DatasetIndex, tasks: Mapping[str, Task], id: str, visible: VisibleLabels | None) -> SurveyJob:
    names = tasks if visible is None else visible[id]
    labels = {name: (tasks[name], collection.labels[name][id]) for name in names if id in collection.labels[name]}
    return SurveyJob(id, collection.images[id], labels)


def _looks(jobs: Sequence[SurveyJob], workers: int | None, threads: int) -> Iterator[FileSurvey]:
    """Results in the order of the jobs, so that the report is the same however they are done."""
    if threads:
        with ThreadPoolExecutor(threads) as pool:
            yield from pool.map(examine_job, jobs)
        return
    numbered = list(enumerate(jobs))
    chunks = [numbered[start : start + _CHUNK] for start in range(0, len(jobs), _CHUNK)]
    waiting: dict[int, FileSurvey] = {}
    following = 0
    try:
        with closing(process_map(_examine_chunk, chunks, workers)) as results:
            for result in results:
                waiting.update(result)
                while following in waiting:
                    yield waiting.pop(following)
                    following += 1
    except BrokenProcessPool as error:
        raise DataError(
            "a checking process was killed, perhaps because memory ran out; use --workers 1, and --limit to find "
            "the image that is too large"
        ) from error


def _examine_chunk(chunk: Sequence[tuple[int, SurveyJob]]) -> list[tuple[int, FileSurvey]]:
    return [(number, examine_job(job)) for number, job in chunk]


_CHUNK = 8
"""Images that a process is given at a time."""


# -- all files together ------------------------------------------------------------------------------------------------
class _Tally:
    """Sums over the files seen so far."""

    def __init__(self, collection: DatasetIndex, tasks: Mapping[str, Task], sampled: bool) -> None:
        self.collection, self.tasks, self.sampled = collection, tasks, sampled
        self.findings = Findings()
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.label_sizes: dict[str, Counter[tuple[int, int]]] = {name: Counter() for name in tasks}
        self.sums: dict[str, dict[str, Array]] = {name: {} for name in tasks}
        self.valid: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.examined = 0
        self._digests: dict[bytes, str] = {}
        self._member = _membership(collection)

    def add(self, look: FileSurvey) -> None:
        """Count what one job found."""
        self.examined += 1
        self.findings.add(*look.findings)
        if look.size is not None:
            self.sizes[look.size] += 1
        if look.digest is not None:
            twin = self._digests.setdefault(look.digest, look.id)
            if twin != look.id:
                self.findings.add(self._duplicate(twin, look.id))
        for finding in look.findings:
            if finding.task is not None and finding.severity == "error":
                self.failed[finding.task] += 1
        for name, label in look.labels.items():
            self._add_label(name, label)

    def _add_label(self, name: str, label: LabelSurvey) -> None:
        self.label_sizes[name][label.size] += 1
        self.valid[name] += label.valid
        sums = self.sums[name]
        for key, value in label.sums.items():
            sums[key] = sums[key] + value if key in sums else value

    def _duplicate(self, first: str, second: str) -> Finding:
        """Two images of the same pixels: an error when one is trained on and the other measured on."""
        a, b = self._member[first], self._member[second]
        leak = _leaks(a, b)
        where = f"'{first}' of {_splits_text(a)} and '{second}' of {_splits_text(b)}"
        text = f"the same picture twice: {where}; " + (
            "what is measured would have been trained on: remove one of them" if leak else "remove one of them"
        )
        code = "duplicate-between-splits" if leak else "duplicate"
        path = str(self.collection.images[second].path)
        return Finding("error" if leak else "warning", code, text, id=second, path=path)

    def report(self) -> Report:
        """The report, with what the tasks themselves find suspicious."""
        tasks = {name: self._task_report(name, task) for name, task in self.tasks.items()}
        collection, found = self.collection, self.findings
        return Report(
            str(collection.root), len(collection.images), self.examined,
            {name: len(ids) for name, ids in collection.splits.items()}, most_frequent(self.sizes), tasks,
            found.sorted(), dict(sorted(found.counts.items())), dict(found.totals),
        )  # fmt: skip

    def _task_report(self, name: str, task: Task) -> TaskReport:
        files, sizes = self.collection.labels[name], self.label_sizes[name]
        labelled = {split: sum(id in files for id in ids) for split, ids in self.collection.splits.items()}
        report = TaskReport(task.kind, labelled, sizes.total(), self.failed[name], most_frequent(sizes))
        pixels = sum(width * height * count for (width, height), count in sizes.items())
        if not pixels:
            return report
        summary = task.summarise(self.sums[name])
        for each in summary.suspicions:
            # Of a sample it cannot be said: the other labels may differ.
            severity: Severity = "warning" if each.code == "one-sided" and self.sampled else each.severity
            self.findings.add(Finding(severity, each.code, each.message, name))
        void = 1 - self.valid[name] / pixels
        if not self.valid[name]:
            text = "every pixel of every label is void: nothing can be learned or measured; check the void values"
            self.findings.add(Finding("error", "one-sided", text, name))
        elif void > 0.95:
            text = f"{void:.1%} of all pixels are void; check the void values and the labels"
            self.findings.add(Finding("warning", "mostly-void", text, name))
        return TaskReport(
            task.kind, labelled, report.examined, report.failed, report.sizes, void, summary.numbers, summary.histogram
        )


# -- what is listed ----------------------------------------------------------------------------------------------------
def _membership(collection: DatasetIndex) -> Mapping[str, tuple[str, ...]]:
    """The splits of each id; splits of the same images under two names count as one."""
    distinct = {frozenset(ids): name for name, ids in reversed(list(collection.splits.items()))}
    member: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for name, ids in collection.splits.items():
        if distinct[frozenset(ids)] == name:
            for id in dict.fromkeys(ids):
                member[id] += (name,)
    return member


def _leaks(a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether one is trained on while the other is in another split."""
    return any(("train" in x and any(s != "train" for s in y)) for x, y in ((a, b), (b, a)))


def _splits_text(splits: Sequence[str]) -> str:
    return " and ".join(splits) or "no split"


def _listing(collection: DatasetIndex, tasks: Mapping[str, Task]) -> Iterator[Finding]:
    """What can be said without opening a file."""
    member = _membership(collection)
    for name, ids in collection.splits.items():
        for id, count in Counter(ids).items():
            if count > 1:
                text = f"split '{name}' lists '{id}' {count} times; list it once"
                yield Finding("warning", "listed-twice", text, id=id)
    for id, splits in member.items():
        if len(splits) > 1:
            leak = _leaks(splits, splits)
            text = f"'{id}' is in the splits {_splits_text(splits)}; " + (
                "what is measured would have been trained on: keep it in one" if leak else "keep it in one"
            )
            yield Finding("error" if leak else "warning", "id-in-two-splits", text, id=id)
    yield from _counted(
        "image-in-no-split", [id for id in collection.images if id not in member],
        "are in no split, so that nothing uses them; list them in one", "images",
    )  # fmt: skip
    labelled = {id for name in tasks for id in collection.labels[name]}
    yield from _counted(
        "image-without-label", [id for id in collection.images if id not in labelled],
        "have no label of any task; add one, or leave them out", "images",
    )  # fmt: skip
    for name in tasks:
        files = collection.labels[name]
        orphans = _orphans(collection, name)
        if not files:
            more = f", but {len(orphans)} label files without an image, such as {orphans[0]}" if orphans else ""
            text = f"no image has a label of task '{name}'{more}; add label files, or leave the task out"
            yield Finding("error", "task-without-labels", text, name)
            continue
        for split, ids in collection.splits.items():
            if not any(id in files for id in ids):
                use = "learned from" if split == "train" else "measured on"
                text = f"no image of split '{split}' has a label of task '{name}', which cannot be {use} it"
                yield Finding("warning", "split-without-labels", text, name)
        for path in orphans:
            text = f"label file {path} has no image of the same name; rename or remove it"
            yield Finding("warning", "label-without-image", text, name, path=str(path))


def _counted(code: str, ids: Sequence[str], text: str, what: str) -> Iterator[Finding]:
    """One warning for all of them."""
    if ids:
        examples = ", ".join(f"'{id}'" for id in ids[:5])
        yield Finding(
            "warning", code, f"{len(ids)} {what} {text}: {examples}{', …' if len(ids) > 5 else ''}", id=ids[0]
        )


def _orphans(collection: DatasetIndex, name: str) -> list[Path]:
    """Label files of a task that belong to no image, in an own folder whose labels lie under their images' names."""
    folder = collection.root / name
    for id, file in collection.labels[name].items():
        above = file.path.parents[id.count("/")]
        same = composed(file.path.relative_to(above).with_suffix("").as_posix()) == id
        folder = above if same else collection.root
        break
    if not (collection.root / "dataset.yaml").is_file() or folder == collection.root or not folder.is_dir():
        return []
    return [path for id, path in list_files(folder, LABEL_ENDINGS).items() if id not in collection.images]
