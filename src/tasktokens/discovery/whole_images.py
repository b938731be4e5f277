"""A teacher discovers labels of whole images: each image once, with as many views as help."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tasktokens.data.transforms import resize_image
from tasktokens.datasets.index import DatasetIndex
from tasktokens.discovery.pseudo_labels import forward_views
from tasktokens.discovery.store import Row, StoreWriter
from tasktokens.discovery.views import Views
from tasktokens.errors import DataError
from tasktokens.tasks import Task
from tasktokens.utils.resizing import working_size

AT_ONCE = 8
"""Images that are computed in one batch. Which ones depends on their order alone: rounding differs from batch to batch,
and neither an interruption nor the number of ranks may change a result."""

Wanted = Mapping[str, Sequence[str]]
"""Tasks by image id."""


class WholeOutput(NamedTuple):
    """What a teacher says of one task of a whole image: logits (K, h, w), and its token (D,), if it has one."""

    logits: Tensor
    token: Tensor | None


class WholeImages:
    """Applies a teacher to the images of a data set.

    Args:
        tasks: what the teacher predicts.
        teacher: in evaluation mode, on ``device``.
        views: see `forward_views`, as ``mirror``.
        size: (height, width) of the training images.
        skip_corrupt: pass over images that cannot be read; else they raise `DataError`.
    """

    def __init__(
        self, tasks: Mapping[str, Task], teacher: nn.Module, views: Views, mirror: bool, size: tuple[int, int],
        index: DatasetIndex, device: torch.device, skip_corrupt: bool = False,
    ) -> None:  # fmt: skip
        self.tasks, self.teacher, self.views, self.mirror, self.size = tasks, teacher, views, mirror, size
        self.index, self.device, self.skip_corrupt = index, device, skip_corrupt

    @torch.no_grad()
    def shapes(self) -> tuple[tuple[int, int], int | None]:
        """(height, width) of a head's map of a training image, and the length of its token, None without any."""
        outputs = self.teacher(torch.zeros(1, 3, *self.size, dtype=torch.uint8, device=self.device))
        output = next(iter(outputs.values()))
        height, width = output.logits.shape[-2:]
        return (height, width), None if output.token is None else output.token.shape[-1]

    def __call__(self, ids: Sequence[str]) -> Iterator[tuple[str, dict[str, WholeOutput]]]:
        """For each image that can be read the output of all tasks; images of one size in one batch."""
        images: dict[str, Tensor] = {}
        for id in ids:
            try:
                images[id] = self._read(id)
            except DataError:
                if not self.skip_corrupt:
                    raise
        for size in dict.fromkeys(image.shape for image in images.values()):
            alike = [id for id, image in images.items() if image.shape == size]
            batch = torch.stack([images[id] for id in alike]).contiguous().to(self.device)
            outputs = forward_views(self.tasks, self.teacher, batch, self.views, self.mirror)
            for number, id in enumerate(alike):
                yield (
                    id,
                    {
                        name: WholeOutput(output.logits[number], None if output.token is None else output.token[number])
                        for name, output in outputs.items()
                    },
                )

    def _read(self, id: str) -> Tensor:
        """What the teacher sees: (3, h, w) uint8, in the image's shape, with about as many pixels as in training."""
        image = torch.from_numpy(self.index.images[id].read().copy()).permute(2, 0, 1)
        height, width = image.shape[-2:]
        return resize_image(image, working_size((height, width), self.size))


def fill_store(
    writer: StoreWriter,
    look: WholeImages,
    wanted: Wanted,
    share: tuple[int, int] = (0, 1),
    track: Callable[[Sequence[str]], Iterator[str]] = iter,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[list[Row], list[str]] | None:
    """Write the labels of one rank's share of the images; those that are there already are kept.

    Args:
        wanted: for each image the tasks whose labels are missing.
        share: number of the rank, and of all ranks.
        track: shows progress over ids.
        stopped: whether to end now.

    Returns:
        A row per label of the share, and the images that could not be read; None if it was stopped.
    """
    ids, rows, left_out = list(wanted), list[Row](), list[str]()
    rank, ranks = share
    chunks = [ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE)][rank::ranks]
    last = {chunk[-1]: chunk for chunk in chunks}
    for id in track([id for chunk in chunks for id in chunk]):
        if id not in last:
            continue
        if stopped():
            return None
        chunk = last[id]
        if not all(writer.has(each, wanted[each]) for each in chunk):
            for each, outputs in look(chunk):
                for name in wanted[each]:
                    writer.write(each, name, *outputs[name])
        for each in chunk:
            if writer.has(each, wanted[each]):
                rows += [writer.row(each, name, "teacher") for name in wanted[each]]
            else:
                left_out.append(each)
    return rows, left_out
