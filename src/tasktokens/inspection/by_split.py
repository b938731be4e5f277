"""What the labels of one split show beside those of the others: classes that only some splits have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tasktokens.inspection.report import Finding
from tasktokens.tasks import Task
from tasktokens.tasks.examine import Summary, Sums


def judge_splits(name: str, task: Task, by_split: Mapping[str, Sums], all_labels: Summary) -> Iterator[Finding]:
    """A warning for each split that lacks a class of another; an error where the training split says one thing only.

    Args:
        name, task: the task.
        by_split: its sums over the labels of each split that has labels.
        all_labels: the summary over all splits, whose own findings are not repeated.
    """
    if not any(each.code == "one-sided" for each in all_labels.suspicions) and "train" in by_split:
        for each in task.summarise(by_split["train"]).suspicions:
            if each.code == "one-sided":
                yield Finding(each.severity, each.code, f"in split 'train' {each.message}", name)
    seen = {split: {of for of, pixels in task.seen(sums).items() if pixels} for split, sums in by_split.items()}
    for split in seen:
        elsewhere = set().union(*(seen[other] for other in seen if other != split and "train" in (split, other)))
        missing = [of for of in task.seen(by_split[split]) if of in elsewhere - seen[split]]
        if not missing:
            continue
        names = ", ".join(f"'{of}'" for of in missing[:8]) + (f" and {len(missing) - 8} more" if missing[8:] else "")
        use = "cannot be learned, and count as wrong" if split == "train" else "are not measured on it"
        text = f"split '{split}' has no pixel of {names}, which other splits have: they {use}; choose the split anew"
        yield Finding("warning", "class-not-in-split", text, name)
