"""Survey every file of a data set before an hour is lost on it: `check`.

Files are examined one by one, in parallel processes where asked for; only sums and sizes are kept, so memory does not
grow with the pixels, and the report does not depend on the number of processes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import replace

from tasktokens.data.visibility import VisibleLabels
from tasktokens.datasets.index import DatasetIndex
from tasktokens.errors import DataError
from tasktokens.inspection.by_split import judge_splits
from tasktokens.inspection.listing import leaks, listing, membership, splits_text
from tasktokens.inspection.report import Finding, Findings, Report, TaskReport, most_frequent
from tasktokens.inspection.survey_file import FileSurvey, LabelSurvey, SurveyJob, examine_job
from tasktokens.tasks import Task
from tasktokens.tasks.base import Array
from tasktokens.tasks.examine import Severity
from tasktokens.utils.processes import process_map
from tasktokens.utils.progress import bar


def check(
    index: DatasetIndex,
    tasks: Mapping[str, Task] | None = None,
    visible: VisibleLabels | None = None,
    workers: int | None = None,
    threads: int = 0,
    limit: int | None = None,
    progress: bool = False,
    flip: bool = True,
) -> Report:
    """Examine the images and labels of a index.

    Args:
        index: the data.
        tasks: those to examine; None: all of it.
        visible: ids, and the tasks whose labels may be opened for each; None: everything. Other files are not touched.
        workers: processes; None: as many as pay; 1 works in this one.
        threads: use this number of threads of this process instead.
        limit: examine at most this many images, evenly spread over the list.
        progress: show a bar on standard error.
        flip: whether training will mirror images, which makes left and right a question.

    Raises:
        DataError: a process was killed from outside.
    """
    tasks = index.tasks if tasks is None else tasks
    ids = list(index.images if visible is None else visible)
    sampled = limit is not None and limit < len(ids)
    if limit is not None and sampled:
        ids = [ids[i * len(ids) // limit] for i in range(limit)]
    jobs = [_job(index, tasks, id, visible) for id in ids]
    tally = _Tally(index, tasks, sampled)
    if flip:
        tally.findings.add(*mirror_findings(tasks))
    if visible is None:
        tally.findings.add(*listing(index, tasks))
    with bar(len(jobs), progress, "checking") as step:
        for survey in _surveys(jobs, workers, threads):
            tally.add(survey)
            step()
    return tally.report()


def mirror_findings(tasks: Mapping[str, Task]) -> list[Finding]:
    """What training on mirrored images would make wrong; no file is opened."""
    return [Finding(*each[:3], name) for name, task in tasks.items() for each in task.mirror_suspicions()]


def _job(index: DatasetIndex, tasks: Mapping[str, Task], id: str, visible: VisibleLabels | None) -> SurveyJob:
    names = tasks if visible is None else visible[id]
    labels = {name: (tasks[name], index.labels[name][id]) for name in names if id in index.labels[name]}
    if visible is None:
        for name in tasks:
            if (found := index.discovered.get(name, {}).get(id)) is not None:
                labels[name] = (tasks[name], found.label)
    return SurveyJob(id, index.images[id], labels)


def _surveys(jobs: Sequence[SurveyJob], workers: int | None, threads: int) -> Iterator[FileSurvey]:
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

_EXAMPLES = 3
"""Labels that a finding about all of them names."""

_DARK = 255 // 8
"""Largest value of 16-bit images, read with 8 bits, that are taken for images of 10 or 12 bits."""


# -- the whole data set ------------------------------------------------------------------------------------------------
class _Tally:
    """Sums over the files seen so far."""

    def __init__(self, index: DatasetIndex, tasks: Mapping[str, Task], sampled: bool) -> None:
        self.index, self.tasks, self.sampled = index, tasks, sampled
        self.findings = Findings()
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.label_sizes: dict[str, Counter[tuple[int, int]]] = {name: Counter() for name in tasks}
        self.sums: dict[str, dict[str, Array]] = {name: {} for name in tasks}
        self.split_sums: dict[tuple[str, str], dict[str, Array]] = defaultdict(dict)
        self.examples: dict[tuple[str, str], list[str]] = defaultdict(list)
        self.peaks: list[int] = []
        self.valid: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.examined = 0
        self._digests: dict[bytes, str] = {}
        self._member = membership(index)

    def add(self, survey: FileSurvey) -> None:
        """Count what one job found."""
        self.examined += 1
        self.findings.add(*survey.findings)
        if survey.size is not None:
            self.sizes[survey.size] += 1
        if survey.digest is not None:
            twin = self._digests.setdefault(survey.digest, survey.id)
            if twin != survey.id:
                self.findings.add(self._duplicate(twin, survey.id))
        for finding in survey.findings:
            if finding.task is not None and finding.severity == "error":
                self.failed[finding.task] += 1
        for name, label in survey.labels.items():
            if survey.id in self.index.labels[name]:  # statistics are of labels that people made
                self._add_label(name, survey.id, label)
        if survey.peak_of_16_bits is not None:
            self.peaks.append(survey.peak_of_16_bits)

    def _add_label(self, name: str, id: str, label: LabelSurvey) -> None:
        self.label_sizes[name][label.size] += 1
        self.valid[name] += label.valid
        for sums in (self.sums[name], *(self.split_sums[name, split] for split in self._member[id])):
            for key, value in label.sums.items():
                sums[key] = sums[key] + value if key in sums else value
        for key, value in label.sums.items():
            if value.size == 1 and value.item() > 0 and len(self.examples[name, key]) < _EXAMPLES:
                self.examples[name, key].append(id)

    def _duplicate(self, first: str, second: str) -> Finding:
        """Two images of the same pixels: an error when one is trained on and the other measured on."""
        a, b = self._member[first], self._member[second]
        leak = leaks(a, b)
        where = f"'{first}' of {splits_text(a)} and '{second}' of {splits_text(b)}"
        text = f"the same picture twice: {where}; " + (
            "what is measured would have been trained on: remove one of them" if leak else "remove one of them"
        )
        code = "duplicate-between-splits" if leak else "duplicate"
        path = str(self.index.images[second].path)
        return Finding("error" if leak else "warning", code, text, id=second, path=path)

    def report(self) -> Report:
        """The report, with what the tasks themselves find suspicious."""
        if self.peaks and max(self.peaks) <= _DARK:
            text = (
                f"{len(self.peaks)} images have 16 bits and no value above an eighth of the range, so that they are "
                f"read as nearly black (at most {max(self.peaks)} of 255): are they of 10 or 12 bits? multiply them "
                f"(12 bits by 16), or store them with 8 bits"
            )
            self.findings.add(Finding("warning", "images-nearly-black", text))
        tasks = {name: self._task_report(name, task) for name, task in self.tasks.items()}
        index, found = self.index, self.findings
        return Report(
            str(index.root), len(index.images), self.examined,
            {name: len(ids) for name, ids in index.splits.items()}, most_frequent(self.sizes), tasks,
            found.sorted(), dict(sorted(found.counts.items())), dict(found.totals),
        )  # fmt: skip

    def _task_report(self, name: str, task: Task) -> TaskReport:
        files, sizes = self.index.labels[name], self.label_sizes[name]
        labelled = {split: sum(id in files for id in ids) for split, ids in self.index.splits.items()}
        sources = self.index.sources(name)
        report = TaskReport(
            task.kind, labelled, sizes.total(), self.failed[name], most_frequent(sizes), sources=sources
        )
        pixels = sum(width * height * count for (width, height), count in sizes.items())
        if not pixels:
            return report
        summary = task.summarise(self.sums[name])
        for each in summary.suspicions:
            # Of a sample it cannot be said: the other labels may differ.
            severity: Severity = "warning" if each.code == "one-sided" and self.sampled else each.severity
            examples = [f"{key}: {', '.join(map(repr, self.examples[name, key]))}" for key in each.examples]
            message = f"{each.message} ({'; '.join(examples)})" if examples else each.message
            self.findings.add(Finding(severity, each.code, message, name))
        if not self.sampled:  # of a sample it cannot be said
            by_split = {split: sums for (of, split), sums in self.split_sums.items() if of == name}
            self.findings.add(*judge_splits(name, task, by_split, summary))
        void = 1 - self.valid[name] / pixels
        if not self.valid[name]:
            text = "every pixel of every label is void: nothing can be learned or measured; check the void values"
            self.findings.add(Finding("error", "one-sided", text, name))
        elif void > 0.95:
            text = f"{void:.1%} of all pixels are void; check the void values and the labels"
            self.findings.add(Finding("warning", "mostly-void", text, name))
        return replace(report, void=void, numbers=summary.numbers, histogram=summary.histogram)
