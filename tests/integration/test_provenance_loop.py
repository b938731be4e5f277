"""Discover, decide, train again: where a label comes from decides what it is worth, and nothing passes for given."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import discovered_rows, run_cli, write_folder
from resuming import stopped_at
from tasktokens.config import Config
from tasktokens.data.dataset import PartialDataset
from tasktokens.datasets.folder import open_folder
from tasktokens.datasets.open import open_data
from tasktokens.datasets.provenance import read_provenance, update_provenance
from tasktokens.errors import ConfigError, DataError, RunExistsError
from tasktokens.inference.discover import discover
from tasktokens.inspection.survey import check
from tasktokens.methods import Supervised
from tasktokens.methods.base import PixelSampler, PreparedBatch, StepOptions
from tasktokens.reporting.runs import run_facts
from tasktokens.training.setup import open_run
from tasktokens.training.trainer import train

MakeConfig = Callable[..., Config]
SHORT = {"method": {"name": "mtl", "steps": 2}, "data.check": False}


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def discovered(tmp_path_factory: pytest.TempPathFactory, make_config: MakeConfig) -> tuple[Path, Path, Path]:
    """The data, a run that saw one label per image, and the folder that it completed."""
    place = tmp_path_factory.mktemp("loop")
    root = write_folder(place / "data")
    run = train(make_config(root, place / "run", **SHORT, **{"data.labels": "one"}), quiet=True)
    return root, run, Path(discover(run, place / "filled", 0.1, quiet=True, views=2))


@pytest.fixture
def filled(discovered: tuple[Path, Path, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(discovered[2], tmp_path / "filled"))


def test_given_files_stay_byte_for_byte_and_every_label_has_a_row(discovered: tuple[Path, Path, Path]) -> None:
    root, run, out = discovered
    before, after, table = hashes(root), hashes(out), read_provenance(out)
    given = {key for key, row in table.items() if row.source == "given"}
    found = {key for key, row in table.items() if row.source == "discovered"}
    assert given
    assert found
    for id, task in given:
        assert after[f"{task}/{id}.png"] == before[f"{task}/{id}.png"]
    with (run / "labels.csv").open() as file:
        hidden = {(row["id"], task) for row in csv.DictReader(file) for task, cell in row.items() if cell == "0"}
    assert found == hidden
    model = hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()
    for id, task in sorted(found):
        row = table[id, task]
        assert (row.by, row.model, len(json.loads(row.views)), len(row.date)) == ("network", model, 2, 10)
        confidence = np.asarray(Image.open(out / "confidence" / task / f"{id}.png")) / 255
        assert row.confidence == pytest.approx(confidence.mean(), abs=0.003)
        assert row.disagreement is not None


def test_discovered_labels_are_apart_and_weigh_their_confidence(filled: Path, make_config: MakeConfig) -> None:
    index = open_folder(filled)
    rows = {(row["id"], row["task"]) for row in discovered_rows(filled)}
    assert {(id, task) for task, files in index.discovered.items() for id in files} == rows
    assert not any(id in index.labels[task] for id, task in rows)
    config = make_config(filled, filled.parent / "run", **SHORT, **{"data.labels": "full"})
    _, data, _ = open_run(config, False, False, True)
    assert data.discovered is not None
    assert set(data.discovered.pairs()) == rows
    dataset = PartialDataset(data.collection, data.train, data.tasks, (40, 56), weighted=data.discovered)
    for sample in dataset:
        for task, label in sample.labels.items():
            if (sample.id, task) not in rows:
                assert label.weight is None
                continue
            stored = np.asarray(Image.open(filled / "confidence" / task / f"{sample.id}.png")) / np.float32(255)
            assert label.weight is not None
            expected = np.where(label.valid[0].numpy(), stored, 0)
            np.testing.assert_allclose(label.weight[0].numpy(), expected, rtol=1e-6)


def test_the_loss_of_a_discovered_pixel_is_weighted_by_its_confidence(filled: Path, make_config: MakeConfig) -> None:
    """Truth by NumPy: the sum over pixels of weight times cross-entropy, over all pixels of these images."""
    config = make_config(filled, filled.parent / "run", **SHORT, **{"data.labels": "full"})
    _, data, _ = open_run(config, False, False, True)
    dataset = PartialDataset(data.collection, data.train, data.tasks, (40, 56), weighted=data.discovered)
    batch = dataset.collate([dataset[i] for i in range(len(dataset))])
    method = Supervised(data.tasks, config.method)
    prepared = PreparedBatch(batch, batch.image, PixelSampler((40, 56)), StepOptions(), 0)
    task, labels = data.tasks["semseg"], batch.weighted["semseg"]
    assert labels.weight is not None
    torch.manual_seed(0)
    made: dict[str, torch.Tensor] = {}

    class Student(torch.nn.Module):
        def forward(self, image: torch.Tensor, rows: dict[str, torch.Tensor]) -> dict[str, object]:
            from tasktokens.models import TaskOutput

            for name, own in rows.items():
                made[name] = torch.randn(len(image), data.tasks[name].num_tokens, 40, 56)[own]
            return {name: TaskOutput(logits, logits[:, :1]) for name, logits in made.items()}

    terms = {term.name: term for term in method.terms(prepared, Student())}
    logits = made["semseg"][len(batch.labels["semseg"].rows) :][: len(labels.rows)].double().numpy()
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    ids = labels.value.numpy().astype(int)
    loss = -np.take_along_axis(log_p, ids, axis=1) * labels.weight.numpy() * labels.valid.numpy()
    np.testing.assert_allclose(terms["weighted_loss/semseg"].total.item(), loss.sum(), rtol=1e-4)
    assert terms["weighted_loss/semseg"].count == 40 * 56 * len(labels.rows)
    assert terms["weighted_loss/semseg"].weight == task.weight
    assert terms["loss/semseg"].count == batch.labels["semseg"].valid.sum()


def test_decisions_of_a_person_change_what_a_label_is_worth(
    filled: Path, tmp_path: Path, make_config: MakeConfig
) -> None:
    rows = [row for row in read_provenance(filled).values() if row.source == "discovered" and row.task == "semseg"]
    accepted, corrected, rejected = (
        row.decided(source, date="2026-12-01")
        for row, source in zip(rows, ("accepted", "corrected", "rejected"), strict=False)
    )
    update_provenance(filled, [accepted, corrected, rejected])
    index = open_folder(filled)
    assert {accepted.id, corrected.id} <= set(index.labels["semseg"])
    assert rejected.id not in index.labels["semseg"]
    assert rejected.id not in index.discovered["semseg"]
    run = train(make_config(filled, tmp_path / "next", **SHORT, **{"data.labels": "full"}), quiet=True)
    with (run / "labels.csv").open() as file:
        cells = {row["id"]: row["semseg"] for row in csv.DictReader(file)}
    assert [cells[row.id] for row in (accepted, corrected, rejected)] == ["accepted", "corrected", "0"]
    counts = run_facts(run).labels["semseg"]
    assert (counts["accepted"], counts["corrected"], counts["discovered"]) == (1, 1, len(rows) - 3)
    report = check(index, workers=1)
    assert report.tasks["semseg"].sources["rejected"] == 1
    assert report.tasks["semseg"].sources["discovered"] == len(rows) - 3

    # Discovered anew: decisions stay, and their files too; what was rejected is discovered again.
    before = hashes(filled)
    again = Path(discover(run, tmp_path / "again", 0.1, quiet=True, views=1))
    table, after = read_provenance(again), hashes(again)
    assert table[accepted.key] == accepted
    assert table[corrected.key] == corrected
    assert table[rejected.key].source == "discovered"
    for row in (accepted, corrected):
        assert after[f"semseg/{row.id}.png"] == before[f"semseg/{row.id}.png"]
    with pytest.raises(RunExistsError, match="2 labels that a person has accepted"):
        discover(run, again, 0.1, overwrite=True, quiet=True, views=1)
    assert hashes(again) == after


def test_a_run_goes_on_with_the_discovered_labels_that_it_began_with(
    filled: Path, tmp_path: Path, make_config: MakeConfig
) -> None:
    config = make_config(filled, tmp_path / "run", **SHORT, **{"data.labels": "full", "run.checkpoint_every": 1})
    run = train(config, quiet=True)
    again = stopped_at(run, tmp_path / "again", "0-0000001")
    resumed = train(again, resume=True, quiet=True)
    assert (resumed / "labels.csv").read_bytes() == (run / "labels.csv").read_bytes()
    again = stopped_at(run, tmp_path / "third", "0-0000001")
    row = next(row for row in read_provenance(filled).values() if row.source == "discovered")
    update_provenance(filled, [row.decided("accepted")])
    with pytest.raises(DataError, match="no longer a discovered one"):
        train(again, resume=True, quiet=True)


def test_a_method_without_weights_is_refused_in_one_sentence(
    filled: Path, tmp_path: Path, make_config: MakeConfig
) -> None:
    method = {"name": "adversarial", "steps": 2}
    with pytest.raises(
        ConfigError, match=r"'adversarial' cannot weigh them by their confidence; choose another \(.*mtl"
    ):
        train(make_config(filled, tmp_path / "run", method=method, **{"data.labels": "full"}), quiet=True)
    config = make_config(
        filled, tmp_path / "run", method=method, **{"data.labels": "full", "data.learn_discovered": False}
    )
    assert train(config, quiet=True).is_dir()


def test_nothing_is_measured_on_discovered_labels(
    filled: Path, tmp_path: Path, make_config: MakeConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(make_config(filled, tmp_path / "run", **SHORT, **{"data.labels": "full"}), quiet=True)
    assert run_cli(capsys, "evaluate", run, "--split", "train")[0] == 0
    assert open_data(make_config(filled, tmp_path / "x")).collection.labels["semseg"]
    code, _, err = run_cli(capsys, "evaluate", run, "--split", "train")
    assert code == 0
    assert f"{len(discovered_rows(filled))} discovered labels of 'train' are not measured on" in err


@pytest.mark.parametrize("damage", ["table", "id", "confidence"])
def test_a_discovered_label_never_passes_for_a_given_one(damage: str, filled: Path) -> None:
    row = discovered_rows(filled)[0]
    table = filled / "provenance.csv"
    if damage == "table":
        table.unlink()
    elif damage == "id":
        table.write_text(table.read_text().replace(f"\n{row['id']},{row['task']}", f"\nnobody,{row['task']}"))
    else:
        (filled / "confidence" / row["task"] / f"{row['id']}.png").unlink()
    with pytest.raises(DataError, match=r"put it back|no image has the id"):
        open_folder(filled)
