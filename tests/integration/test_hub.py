"""Models and data sets to and from a Hub of this machine: whole or not at all, and every failure in one sentence."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from conftest import run_cli
from fakes.hub import FakeHub, serving

RIGHT = "hf_right"


@pytest.fixture(scope="module")
def server() -> Iterator[FakeHub]:
    with serving() as hub:
        yield hub


@pytest.fixture
def hub(server: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """An empty hub, an empty cache, and a user who is logged in."""
    from huggingface_hub import constants
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    server.repositories.clear()
    server.requests.clear()
    server.breaks_after = server.ignores = None
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", RIGHT)
    disable_progress_bars()
    yield server
    enable_progress_bars()


@pytest.fixture
def no_token(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def model_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def shared(documented_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a model that was saved."""
    from tasktokens.inference.share import save_pretrained

    folder = tmp_path_factory.mktemp("shared") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(documented_folder)
        save_pretrained("runs/mine", folder, license="cc-by-4.0")
    return model_files(folder)


# -- the card and the folder -------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("documented")
def test_the_card_says_what_the_run_says() -> None:
    """Seen, hidden and discovered labels are counted again from the tables, metrics read from the evaluation."""
    from tasktokens.inference.share import save_pretrained

    run = Path("runs/mine")
    rows = rows_of(run / "labels.csv")
    for row in rows[:2]:
        row["depth"] = "0"
    with (run / "labels.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (run / "evaluation-test.json").write_text(json.dumps({"depth": {"absErr": 1.23456, "RMSE": None}}))
    card = (save_pretrained(run, "given") / "README.md").read_text(encoding="utf-8")
    seen = sum(row["depth"] == "1" for row in rows)
    assert f"| depth | {seen} | 2 | 0 |" in card
    assert "| test | depth | absErr | 1.235 m |" in card
    assert "| test | depth | RMSE | nothing to measure |" in card
    assert f"Trained on {len(rows)} images of tiny." in card
    assert "Licence: unknown." in card
    head = yaml.safe_load(card.split("---\n")[1])
    assert {key: head[key] for key in ("library_name", "license", "pipeline_tag")} == {
        "library_name": "tasktokens", "license": "unknown", "pipeline_tag": "image-segmentation",
    }  # fmt: skip
    assert head["model-index"][0]["results"][0]["metrics"] == [
        {"type": "absErr", "name": "depth absErr", "value": 1.2346}
    ]


def test_no_file_names_a_place_of_this_machine(documented: Path) -> None:
    from tasktokens.inference.share import save_pretrained

    settings = yaml.safe_load(Path("runs/mine/config.yaml").read_text(encoding="utf-8"))
    settings["data"] |= {
        "root": str(documented / "mydata"),
        "labels": f"{documented}/one.csv",
        "discovered": ["elsewhere"],
    }
    settings["model"]["weights"] = f"{documented}/weights.pth"
    Path("runs/mine/config.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    for name, content in model_files(save_pretrained("runs/mine", "given")).items():
        for place in (str(documented), "runs/", "mydata", "one.csv", "elsewhere", "weights.pth"):
            assert place.encode() not in content, (name, place)


@pytest.mark.usefixtures("documented")
def test_a_saved_model_predicts_the_same_and_is_not_overwritten_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    import tasktokens

    assert run_cli(capsys, "push", "runs/mine", "--out", "given")[0] == 0
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    one, other = (f("runs/mine", "cpu").predict(image) for f in (tasktokens.load, tasktokens.from_pretrained))
    for name in one:
        np.testing.assert_array_equal(one[name].value, other[name].value)
    code, _, said = run_cli(capsys, "push", "runs/mine", "--out", "given")
    assert (code, "holds a model already" in said) == (2, True)
    edited = Path("given/README.md").read_text(encoding="utf-8") + "\nMy own words.\n"
    Path("given/README.md").write_text(edited, encoding="utf-8")
    assert run_cli(capsys, "push", "runs/mine", "--out", "given", "--overwrite", "--license", "mit")[0] == 0
    again = Path("given/README.md").read_text(encoding="utf-8")
    assert "My own words." in again
    assert "license: mit" in again


@pytest.mark.usefixtures("documented")
def test_a_shared_model_measures_and_discovers_on_data_that_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    import tasktokens

    tasktokens.load("runs/mine", "cpu").save_pretrained("given")
    expected = tasktokens.evaluate("runs/mine", "test", write=False)
    found = tasktokens.evaluate("given", "test", write=False, root="mydata")
    np.testing.assert_equal(found, expected)
    assert run_cli(capsys, "evaluate", "given")[0] == 2, "it does not know where the data lies"
    shutil.rmtree("mydata/depth")
    Path("mydata/depth").mkdir()
    code, _, said = run_cli(capsys, "discover", "given", "--root", "mydata", "--out", "found", "-q")
    assert code == 0, said
    assert "count as given" in said
    rows = rows_of(Path("found/provenance.csv"))
    assert {row["source"] for row in rows if row["task"] == "semseg"} == {"given"}
    assert {row["source"] for row in rows if row["task"] == "depth"} == {"discovered"}


@pytest.mark.usefixtures("documented")
def test_a_run_without_its_table_of_labels_is_refused_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    """It may have hidden labels; only a model that was shared without its run has none."""
    Path("runs/mine/labels.csv").unlink()
    code, _, said = run_cli(capsys, "discover", "runs/mine", "--out", "found", "-q")
    assert code == 2, said
    assert "labels.csv" in said
    assert not Path("found").exists()


# -- models on the hub -------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("documented")
def test_a_model_goes_there_and_comes_back(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    import tasktokens

    code, page, said = run_cli(capsys, "push", "runs/mine", "user/rooms", "--license", "apache-2.0")
    assert code == 0, said
    assert page.startswith(f"{hub.url}/user/rooms/commit/")
    repository = hub.repositories["model", "user/rooms"]
    assert repository.private, "nothing is published unasked"
    assert set(repository.main) == {".gitattributes", "README.md", "config.yaml", "model.json", "model.safetensors"}
    assert "from_pretrained('user/rooms')" in repository.main["README.md"].decode()
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    expected = tasktokens.load("runs/mine", "cpu").predict(image)
    for load, name in [
        (tasktokens.from_pretrained, "user/rooms"), (tasktokens.load, "hf://user/rooms"),
        (tasktokens.load, Path("hf://user/rooms@main")),
    ]:  # fmt: skip
        found = load(name, "cpu").predict(image)
        for task in expected:
            np.testing.assert_array_equal(found[task].value, expected[task].value)


@pytest.mark.usefixtures("documented")
@pytest.mark.parametrize(
    "words",
    [
        ["predict", "MODEL", "photos/one.jpg", "--out", "made", "-q"],
        pytest.param(["explain", "MODEL", "photos/one.jpg", "--out", "made", "-q"], marks=pytest.mark.slow),
        ["evaluate", "MODEL", "--split", "test", "--root", "mydata"],
        ["discover", "MODEL", "--root", "mydata", "--out", "made", "-q"],
        pytest.param(
            ["train", "--config", "my.yaml", "--init-from", "MODEL", "run.dir=made", "-q"], marks=pytest.mark.slow
        ),
        ["pull", "MODEL", "made"],
    ],
    ids=lambda words: words[0],
)
def test_every_verb_that_takes_a_model_takes_one_of_the_hub(
    words: list[str], hub: FakeHub, shared: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    hub.add("user/rooms", {f"best/{name}": content for name, content in shared.items()})
    words = [word.replace("MODEL", "hf://user/rooms@main/best") for word in words]
    code, _, said = run_cli(capsys, *words)
    assert code == 0, said
    code, _, said = run_cli(capsys, *[word.replace("rooms", "none").replace("made", "other") for word in words])
    assert (code, "the Hub has no model 'user/none'" in said) == (2, True), said
    assert "Traceback" not in said
    assert not Path("other").exists()


def test_only_files_of_a_model_are_downloaded(hub: FakeHub, shared: dict[str, bytes], tmp_path: Path) -> None:
    import tasktokens

    bad = pickle.dumps(print)
    hub.add(
        "user/rooms", {**shared, "pytorch_model.bin": bad, "modeling.py": b"1/0", "x.pkl": bad, "sub/model.json": b"{"}
    )
    tasktokens.load("hf://user/rooms", "cpu")
    found = {path.name for path in (tmp_path / "hub-cache").rglob("snapshots/*/*")}
    assert found == set(shared)
    assert not [asked for asked in hub.requests if ".bin" in asked or ".py" in asked or ".pkl" in asked]


def test_revisions_are_told_apart(hub: FakeHub, shared: dict[str, bytes]) -> None:
    import tasktokens

    first = hub.add("user/rooms", shared)
    old = first.refs["v1"] = first.refs["main"]
    first.commit({"README.md": b"nothing left"})
    with pytest.raises(tasktokens.errors.HubError, match=r"holds no model of TaskTokens \(no model\.json\)"):
        tasktokens.load("hf://user/rooms", "cpu")
    for revision in ("v1", old):
        assert list(tasktokens.load(f"hf://user/rooms@{revision}", "cpu").tasks) == ["semseg", "depth"]


def test_offline_the_cache_is_asked_alone(
    hub: FakeHub, shared: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from huggingface_hub import constants

    import tasktokens

    hub.add("user/rooms", shared)
    tasktokens.load("hf://user/rooms", "cpu")
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    tasktokens.load("hf://user/rooms", "cpu")
    code, _, said = run_cli(capsys, "predict", "hf://user/other", "one.jpg")
    assert (code, said.count("\n")) == (2, 1)
    assert "HF_HUB_OFFLINE is set" in said
    assert not hub.requests


def test_a_download_that_breaks_off_is_resumed_and_never_taken_for_a_model(
    hub: FakeHub, tmp_path: Path, shared: dict[str, bytes], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
    hub.add("user/rooms", shared)
    hub.breaks_after = 2_000
    code, _, said = run_cli(capsys, "pull", "hf://user/rooms", tmp_path / "out")
    assert code == 2, said
    assert "start again to resume" in said
    assert not list(tmp_path.glob("*out*"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, _, said = run_cli(capsys, "pull", "hf://user/rooms", tmp_path / "out")
    assert (code, "not complete in the cache" in said) == (2, True), said
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.breaks_after = None
    assert run_cli(capsys, "pull", "hf://user/rooms", tmp_path / "out")[0] == 0
    assert model_files(tmp_path / "out") == shared
    code, _, said = run_cli(capsys, "pull", "hf://user/rooms", tmp_path / "out")
    assert (code, "is not empty" in said) == (2, True)


FAILURES: dict[str, tuple[Callable[[FakeHub], object], list[str], str]] = {
    "gated": (lambda hub: hub.add("user/rooms", {"model.json": b"{}"}, gated=True), ["pull", "hf://user/rooms", "out"],
              "its owner grants access on request"),
    "private": (lambda hub: hub.add("user/rooms", {}, private=True), ["pull", "hf://user/rooms", "out"],
                "has no model 'user/rooms' that you may see"),
    "no such revision": (lambda hub: hub.add("user/rooms", {}), ["pull", "hf://user/rooms@v7", "out"],
                         "has no revision 'v7'"),
    "a data set": (lambda hub: None, ["predict", "hf://datasets/user/rooms", "one.jpg"], "is a data set"),
    "no address": (lambda hub: None, ["pull", "user/rooms", "out"], "no address of the Hub"),
    "no token": (lambda hub: None, ["push", "runs/mine", "user/rooms"], "without a token; log in"),
    "no repository": (lambda hub: None, ["push", "runs/mine"], "one of: user/name of the Hub, or --out"),
    "no model": (lambda hub: None, ["push", "photos", "user/rooms"], "holds no trained model"),
    "a bad name": (lambda hub: None, ["push", "runs/mine", "user"], "no name of a repository"),
}  # fmt: skip


@pytest.mark.usefixtures("documented", "no_token")
@pytest.mark.parametrize("what", FAILURES)
def test_what_goes_wrong_is_one_sentence(what: str, hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    prepare, words, says = FAILURES[what]
    prepare(hub)
    code, _, said = run_cli(capsys, *words)
    assert (code, said.count("\n")) == (2, 1), said
    assert says in said
    assert not Path("out").exists()


@pytest.mark.usefixtures("documented")
@pytest.mark.parametrize(
    ("token", "repository", "words", "says"),
    [
        ("hf_wrong", "user/rooms", [], "refuses the token, or its rights do not suffice (401)"),
        (RIGHT, "others/rooms", [], "refuses the token, or its rights do not suffice (403)"),
        (RIGHT, "user/open", ["--private"], "is public, and private was asked for; nothing was written"),
        (RIGHT, "user/closed", ["--public"], "is private, and public was asked for; nothing was written"),
    ],
)
def test_a_push_that_is_refused_writes_nothing(
    token: str, repository: str, words: list[str], says: str, hub: FakeHub, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("HF_TOKEN", token)
    hub.add("user/open", {})
    hub.add("user/closed", {}, private=True)
    code, _, said = run_cli(capsys, "push", "runs/mine", repository, *words)
    assert code == 2
    assert says in said
    assert token not in said
    assert not any(found.main for found in hub.repositories.values())


@pytest.mark.usefixtures("documented")
def test_a_second_push_keeps_what_people_wrote_there(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    from tasktokens.hub.card import BEGIN

    card = "---\nlicense: mit\nlanguage: en\n---\nAbout my model.\n"
    hub.add("user/rooms", {"README.md": card.encode(), "paper.pdf": b"%PDF"})
    assert run_cli(capsys, "push", "runs/mine", "user/rooms", "--public")[0] == 0
    files = hub.repositories["model", "user/rooms"].main
    assert files["paper.pdf"] == b"%PDF"
    text = files["README.md"].decode()
    assert "license: mit" in text
    assert "language: en" in text
    assert text.index("About my model.") < text.index(BEGIN)
    assert "Licence: `mit`." in text


@pytest.mark.usefixtures("documented")
def test_a_file_that_the_repository_ignores_is_not_lost_in_silence(
    hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.ignores = "model.safetensors"
    code, _, said = run_cli(capsys, "push", "runs/mine", "user/rooms")
    assert code == 2
    assert ".gitignore" in said


# -- data sets ---------------------------------------------------------------------------------------------------------
@pytest.mark.usefixtures("documented")
def test_a_data_set_comes_back_with_its_labels_told_apart(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    """Every file byte for byte; what was discovered stays discovered, and what is nobody's business stays here."""
    Path("filled/notes.txt").write_text("mine alone", encoding="utf-8")
    Path("filled/runs/x/model").mkdir(parents=True)
    Path("filled/runs/x/model/model.json").write_text("{}", encoding="utf-8")
    code, _, said = run_cli(capsys, "push", "filled", "user/filled", "--license", "cc0-1.0")
    assert code == 0, said
    there = hub.repositories["dataset", "user/filled"].main
    here = {path.relative_to("filled").as_posix(): path for path in Path("filled").rglob("*") if path.is_file()}
    expected = {name for name in here if not name.startswith(("notes", "runs/", "."))}
    assert set(there) - {".gitattributes", "README.md"} == expected - {"README.md"}
    assert all(there[name] == here[name].read_bytes() for name in expected - {"README.md"})
    rows = rows_of(here["provenance.csv"])
    found = sum(row["source"] == "discovered" for row in rows)
    card = there["README.md"].decode()
    assert "it is no ground truth" in card
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "cc0-1.0"

    assert run_cli(capsys, "pull", "hf://datasets/user/filled", "back")[0] == 0
    from tasktokens.datasets.folder import open_folder

    index = open_folder(Path("back"))
    assert sum(len(labels) for labels in index.discovered.values()) == found > 0
    before = open_folder(Path("filled"))
    assert {name: index.sources(name) for name in index.tasks} == {name: before.sources(name) for name in before.tasks}


@pytest.mark.usefixtures("documented")
def test_data_of_the_hub_is_opened(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    import tasktokens

    files = {p.relative_to("mydata").as_posix(): p.read_bytes() for p in Path("mydata").rglob("*") if p.is_file()}
    hub.add("user/mydata", {**files, "load.py": b"1/0"}, "dataset")
    report = tasktokens.check("hf://datasets/user/mydata", workers=1)
    assert (report.ok, report.images) == (True, 8)
    code, _, said = run_cli(capsys, "check", "hf://datasets/user/none")
    assert "has no data set 'user/none'" in said, said
    assert code == 2
    assert not [asked for asked in hub.requests if "load.py" in asked]


@pytest.mark.slow
@pytest.mark.usefixtures("documented")
def test_data_of_the_hub_is_trained_on_and_checked(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    files = {p.relative_to("mydata").as_posix(): p.read_bytes() for p in Path("mydata").rglob("*") if p.is_file()}
    hub.add("user/mydata", {**files, "load.py": b"1/0"}, "dataset")
    address = "hf://datasets/user/mydata"
    assert run_cli(capsys, "check", address, "--json", "-q")[0] == 0
    code, _, said = run_cli(capsys, "train", "--config", "my.yaml", f"data.root={address}", "run.dir=runs/far", "-q")
    assert code == 0, said
    near, far = (Path("runs", name, "model/model.safetensors").read_bytes() for name in ("mine", "far"))
    assert near == far
    code, _, said = run_cli(capsys, "push", "runs/far", "user/far")
    assert code == 0, said
    head = yaml.safe_load(hub.repositories["model", "user/far"].main["README.md"].decode().split("---\n")[1])
    assert head["datasets"] == ["user/mydata"]
    assert not [asked for asked in hub.requests if "load.py" in asked]
    code, _, said = run_cli(
        capsys, "train", "--config", "my.yaml", "data.root=hf://datasets/user/none", "run.dir=runs/none"
    )
    assert (code, "has no data set 'user/none'" in said) == (2, True), said
    assert not Path("none").exists()


@pytest.mark.usefixtures("documented")
def test_a_label_that_is_gone_is_gone_there_too(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(capsys, "push", "mydata", "user/mydata")[0] == 0
    hub.repositories["dataset", "user/mydata"].main["paper.pdf"] = b"%PDF"
    gone = next(Path("mydata/depth").iterdir())
    gone.unlink()
    assert run_cli(capsys, "push", "mydata", "user/mydata")[0] == 0
    there = hub.repositories["dataset", "user/mydata"].main
    assert f"depth/{gone.name}" not in there
    assert "paper.pdf" in there


def test_files_elsewhere_and_places_in_photographs_are_named(
    documented: Path, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    image = Image.open(next(Path("mydata/images").iterdir()))
    exif = Image.Exif()
    exif.get_ifd(0x8825)[1] = "N"
    exif[0x8825] = {1: "N", 2: (48.0, 8.0, 0.0)}
    name = next(Path("mydata/images").iterdir()).name
    image.save(Path("mydata/images") / name, exif=exif)
    assert run_cli(capsys, "push", "mydata", "user/mydata")[2] == ""
    code, _, said = run_cli(capsys, "push", "mydata", "user/public", "--public")
    assert code == 0
    assert f"1 images hold the place where they were taken (EXIF GPS), such as mydata/images/{name}" in said
    values = yaml.safe_load(Path("mydata/dataset.yaml").read_text())
    values["images"] = "../elsewhere"
    shutil.move("mydata/images", "elsewhere")
    Path("mydata/dataset.yaml").write_text(yaml.safe_dump(values))
    code, _, said = run_cli(capsys, "push", "mydata", "user/third")
    assert (code, "files that lie elsewhere" in said) == (2, True), said
    assert ("dataset", "user/third") not in hub.repositories


@pytest.mark.slow
def test_the_command_of_a_terminal_with_its_environment(
    hub: FakeHub, shared: dict[str, bytes], documented: Path, tmp_path: Path
) -> None:
    """Processes of their own, which read the client's variables as they start."""
    hub.add("user/rooms", shared, private=True)
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": RIGHT}

    def command(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tasktokens", *words], env=environment | more, capture_output=True, text=True,
            cwd=documented, check=False,
        )  # fmt: skip

    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    assert command("pull", "hf://user/rooms", "a").returncode == 0
    assert command("pull", "hf://user/rooms", "b", HF_HUB_OFFLINE="1", **nowhere).returncode == 0
    assert model_files(documented / "a") == model_files(documented / "b") == shared
    failed = command("pull", "hf://user/none", "c", **nowhere)
    assert (failed.returncode, failed.stderr.count("\n")) == (2, 1), failed.stderr
    assert "fails or broke off" in failed.stderr
    assert not (documented / "c").exists()
