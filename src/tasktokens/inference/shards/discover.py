"""``tasktokens discover --images … --shards …``: any number of images, by any number of processes that may die.

The work is divided into shards, and a shard is done when its notes are there (`plan`). Processes need not know of each
other: each takes shards that nobody works on (`worker`), and whoever finds that none is left describes the folder
(`finish`). What a killed process had begun another begins anew, with the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import Literal, get_args

from tasktokens.datasets.listed_folders import check_not_listed
from tasktokens.discovery.views import Views
from tasktokens.errors import ConfigError
from tasktokens.hub.download import local_model
from tasktokens.inference.discover import own_views
from tasktokens.inference.discovery_summary import Discovery, read_discovery
from tasktokens.inference.evaluate import run_config
from tasktokens.inference.filled_provenance import check_no_decisions
from tasktokens.inference.journal import check_no_source, hint_resume, require_empty
from tasktokens.inference.predictor import Predictor
from tasktokens.inference.shards.begin import Source, Wanted, find_source, settings_of, write_plan
from tasktokens.inference.shards.finish import finish
from tasktokens.inference.shards.plan import Layout, Plan, WorkFolder, require_same
from tasktokens.inference.shards.ray_engine import import_ray, run_on_ray
from tasktokens.inference.shards.worker import ShardWorker, own_device
from tasktokens.models.files import model_folder, read_info
from tasktokens.utils import console
from tasktokens.utils.atomic import writing
from tasktokens.utils.distributed import signals
from tasktokens.utils.lock import LOCK, one_of_writers, only_writer, waiting_lock

Engine = Literal["processes", "ray"]


def discover_shards(
    run: str | Path, out: str | Path, images: str | Path | None = None, shards: int | None = None,
    to: Layout | None = None, engine: Engine = "processes", threshold: float | Mapping[str, float] | None = None,
    views: int | Views | None = None, root: str | Path | None = None, batch_size: int | None = None,
    overwrite: bool = False, quiet: bool = False,
) -> Discovery:  # fmt: skip
    """Discover labels of any number of images, in shards that several processes and machines share.

    The same call in several processes at once, or again after an interruption, goes on with what is not done. Each
    returns when all is.

    Args:
        run: a finished run, or a model folder in it.
        out: new folder, on a disk that all processes see. Layout and content are those of `discover`; of tar files, as
            many with the same names, in which ``KEY.TASK.png``, ``KEY.TASK.confidence.png`` and ``KEY.provenance.json``
            follow the files of each sample, and the tables beside them.
        images: a folder of images; a data folder, whose labels are given ones; or tar files in the naming of
            WebDataset: a folder, or a pattern. Default: the data of the run, as `discover` takes it.
        shards: parts of the work; default: one per 1000 images of a folder; of tar files always one per file.
        to: ``folder`` or ``tars``; default: as the images are.
        engine: ``processes``: this one and those that you start beside it; ``ray``: workers of a Ray cluster, or of
            this machine (extra ``ray``).
        threshold: as `discover` has it.
        views: as `discover` has them.
        root: folder of the run's data, if it has moved since training.
        batch_size: images of one size that go through the network together.
        quiet: show no progress.
        overwrite: delete what lies in ``out`` first; by one process alone.

    Returns:
        The folder with a summary of each task.

    Raises:
        CheckpointError, ConfigError, WriteError, SystemExit: as `discover`; also for a layout that shards do not know.
        DataError: an image or a tar file that cannot be read: put it in order, and the same call goes on.
        RunExistsError: ``out`` holds something else, or another discovery.

    Examples:
        >>> import tasktokens
        >>> found = tasktokens.discover_shards("runs/mine", "many", images="photos", shards=2, quiet=True)
        >>> sorted(path.name for path in (found.folder / "depth").iterdir())
        ['one.png', 'three.png', 'two.png']
    """
    run, out = local_model(run), Path(out)
    _check(shards, engine, overwrite)
    config = run_config(run, None if root is None else Path(root))
    with hint_resume(), ExitStack() as held:
        source = find_source(run, config, images, read_info(model_folder(run)).tasks)
        device = "cpu" if config.run.device == "cpu" else own_device()
        predictor = Predictor(run, device, own_views(config, source.tasks) if views is None else views, batch_size)
        wanted = settings_of(source, run, predictor, threshold, to)
        work = WorkFolder(out)
        with _turn(out, quiet):
            plan = _join(work, wanted, shards) if not overwrite else None
            if plan is None and (overwrite or not work.whole):
                plan = _begin(work, source.listed(run, config), run, wanted, shards, overwrite)
            if plan is not None:
                held.enter_context(one_of_writers(out))
        if plan is not None:
            _work(ShardWorker(predictor, work, plan), run, engine, quiet)
    return read_discovery(out)


def _check(shards: int | None, engine: str, overwrite: bool) -> None:
    if shards is not None and shards < 1:
        raise ConfigError(f"--shards must be 1 or more, found {shards}")
    if engine not in get_args(Engine):
        raise ConfigError(f"--engine must be one of {', '.join(get_args(Engine))}, found '{engine}'")
    if engine == "ray":
        import_ray()
    if overwrite and os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError("--overwrite with several processes: each would begin anew; delete the folder first")


@contextmanager
def _turn(out: Path, quiet: bool) -> Iterator[None]:
    """One process at a time plans, or describes the folder; the lock lies beside it, since it may be emptied."""
    said: list[str] = []

    def waited() -> None:
        if not said and not quiet:
            said.append(f"waiting for another process, which lists the images for {out} or describes it")
            console.say(said[0])

    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with waiting_lock(out.parent / f".{out.name}{LOCK}", waited):
        yield


def _join(work: WorkFolder, wanted: Wanted, shards: int | None) -> Plan | None:
    """The plan of work that was begun; None where there is none, or nothing left to do."""
    plan = work.read()
    if (found := work.read_whole() or plan) is not None:
        require_same(work.out, found, wanted.settings, shards)
    if work.whole:
        work.clear()  # what a process that was killed just before its end has left
        return None
    return plan


def _begin(work: WorkFolder, source: Source, run: Path, wanted: Wanted, shards: int | None, overwrite: bool) -> Plan:
    """Empty the folder and plan; bad input leaves nothing behind."""
    out = work.out
    listed = [
        path for path in (source.path, *(tar.parent for tar in source.tars)) if path is not None and path.is_dir()
    ]
    read = [path / "file" for path in listed] if source.given is None else source.given.files()
    check_no_source(out, chain(read, [model_folder(run) / "model.safetensors"]))
    check_not_listed(out, listed)
    check_no_decisions(out)
    with only_writer(out):
        if not overwrite and not work.begun:
            work.clear()  # of a process that was killed as it planned
        require_empty(out, overwrite, clear=True)
        try:
            return write_plan(work, source, wanted, shards)
        except BaseException:
            work.clear()
            raise


def _work(worker: ShardWorker, run: Path, engine: str, quiet: bool) -> None:
    """Until all shards are done; whoever is first then describes the folder."""
    work, plan = worker.work, worker.plan
    if engine == "ray":
        run_on_ray(worker, run, quiet)  # what it leaves is done here
    with signals(1) as stop:
        left = worker.run(stop, shown=not quiet)
        if stop.received and left:
            stop.exit(f"{plan.shards - left} of {plan.shards} shards are done; run the same command to resume")
    with _turn(work.out, quiet):
        if not work.whole:
            finish(work, plan)
