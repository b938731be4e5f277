"""The report page and the strips, on small run folders made up here."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasktokens.reporting.report import Picture, RunColumn, Strip, save_strips, write_report
from tasktokens.tasks import Depth, Task, build_task

VOID_ELEMENTS = {"meta", "img", "br", "link", "hr", "input"}
TASKS = {
    "semseg": build_task("semseg", {"kind": "classes", "classes": ["wall", "bed"]}),
    "depth": build_task("depth", {"kind": "depth"}),
}
BASELINE = {
    "semseg": {"mIoU": 40.0, "pixAcc": 60.0, "IoU/wall": 50.0, "IoU/bed": None},
    "depth": {"absErr": 0.8, "relErr": 0.25, "delta1": None},
}
BETTER = {
    "semseg": {"mIoU": 44.0, "pixAcc": 57.0, "IoU/wall": 55.0, "IoU/bed": None},
    "depth": {"absErr": 0.6, "relErr": 0.3, "delta1": None},
}


class Page(HTMLParser):
    """What a parser sees: balanced tags, attributes, and the text of each table row and element."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.classes: list[str | None] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID_ELEMENTS:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.classes.append(dict(attrs).get("class"))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def row(self, start: str) -> list[str]:
        """The cells from the one that starts so, in the first such row; spaces made plain."""
        for row in self.rows:
            cells = [" ".join(cell.split()) for cell in row]
            for i, cell in enumerate(cells):
                if cell.startswith(start):
                    return cells[i:]
        raise AssertionError(f"no row has a cell that starts with {start!r}")


def log_row(stage: str, step: int, **values: float) -> dict[str, Any]:
    return {"stage": stage, "step": step, "lr": 0.001, "images_per_second": 20.0, "memory_mb": 1024.0, **values}


def make_run(folder: Path, results: Any, discovery: bool = False) -> Path:
    """A finished run with 40 steps: 20 + 20 where it discovers."""
    folder.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for stage in ("supervised", "discovery") if discovery else ("supervised",):
        for step in range(5, 21 if discovery else 41, 5):
            found = {"discovered/semseg": 0.4} if stage == "discovery" else {}
            rows.append(log_row(stage, step, **{"loss/semseg": 2.0 / step, "loss/depth": 1.0}, **found))
    rows.append({"finished": True, "minutes": 3.25})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "evaluation-test.json").write_text(json.dumps(results))
    (folder / "config.yaml").write_text("seed: 7\nmethod:\n  name: htt  # <b>bold</b>\n")
    (folder / "environment.json").write_text(json.dumps({"python": "3.11.7", "torch": "2.14.1"}))
    (folder / "labels.csv").write_text("id,semseg,depth\na,1,0\nb,1,0\nc,0,1\n")
    return folder


def two_runs(folder: Path) -> list[RunColumn]:
    return [
        RunColumn("MTL baseline", make_run(folder / "mtl", BASELINE)),
        RunColumn("HTT", make_run(folder / "htt", BETTER, discovery=True)),
    ]


def picture(caption: str, height: int = 12, width: int = 16, value: int = 90) -> Picture:
    return Picture(caption, np.full((height, width, 3), value, np.uint8))


@pytest.fixture
def page(tmp_path: Path) -> Page:
    strips = [Strip(f"room {i}", (picture("image"), picture("truth"))) for i in range(2)]
    path = tmp_path / "out" / "report.html"
    arguments = ("Rooms", two_runs(tmp_path), TASKS, {"Discovered labels": strips}, ["First. ", "Second."])
    assert write_report(path, *arguments) == path
    assert list(path.parent.iterdir()) == [path]
    return Page(path)


def test_values_units_and_directions(page: Page) -> None:
    assert page.row("mIoU") == ["mIoU % ↑", "40.00", "44.00", "+10.0 %"]
    assert page.row("absErr") == ["absErr m ↓", "0.8000", "0.6000", "+25.0 %"]
    assert page.row("delta1") == ["delta1 % ↑", "–", "–", "–"]
    assert page.row("wall")[1:] == ["50.00", "55.00", "+10.0 %"]


def test_delta_is_positive_where_better_whichever_way_a_metric_points(page: Page) -> None:
    assert page.row("pixAcc")[-1] == "−5.0 %"
    assert page.row("relErr") == ["relErr ↓", "0.2500", "0.3000", "−20.0 %"]
    cells = [cell for row in page.rows for cell in row]
    tones = {" ".join(cell.split()): tone for cell, tone in zip(cells, page.classes, strict=True)}
    assert tones["+25.0 %"] == "number better"
    assert tones["−20.0 %"] == "number worse"


def test_a_change_against_next_to_nothing_has_no_digits_that_mean_nothing(tmp_path: Path) -> None:
    runs = two_runs(tmp_path)
    tiny = {"semseg": {"mIoU": 0.01}, "depth": {"absErr": 0.01}}
    (runs[0].folder / "evaluation-test.json").write_text(json.dumps(tiny))
    page = Page(write_report(tmp_path / "r.html", "t", runs, TASKS, {}, []))
    assert page.row("mIoU")[-1] == "> +999 %"
    assert page.row("absErr")[-1] == "< −999 %"


def test_delta_mtl_is_the_mean_over_the_primary_metrics(page: Page) -> None:
    assert page.row("ΔMTL")[-1] == "+17.5 %"
    assert "against MTL baseline" in page.row("ΔMTL")[1]
    assert "over 2 tasks" in " ".join(page.text.split())


def test_the_better_value_is_bold(tmp_path: Path) -> None:
    html = write_report(tmp_path / "r.html", "t", two_runs(tmp_path), TASKS, {}, []).read_text()
    assert set(re.findall(r"<b>([\d.]+)</b>", html)) == {"44.00", "60.00", "55.00", "0.6000", "0.2500"}


def test_costs_labels_and_settings(page: Page) -> None:
    assert page.row("Minutes") == ["Minutes of training", "3.2", "3.2"]
    assert page.row("… labelled for semseg") == ["… labelled for semseg", "2", "2"]
    assert page.row("… labelled for depth") == ["… labelled for depth", "1", "1"]
    assert "seed: 7" in page.text
    assert page.text.count("torch 2.14.1") == 1


def test_curves_of_all_tasks_with_stages_marked(page: Page) -> None:
    text = " ".join(page.text.split())
    assert "HTT: supervised, 20 steps, then discovery, 20 steps" in text
    # Losses of two tasks, and the discovered share of the one task that has it.
    assert sum(tag == "svg" for tag, _ in page.tags) == 3
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_one_file_that_needs_nothing_else(page: Page) -> None:
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object")
        for name in ("src", "href", "xlink:href", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,")), (tag, attributes)
    texts = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert texts == ["room 0: image", "room 0: truth", "room 1: image", "room 1: truth"]


def test_the_page_looks_for_nothing_outside(tmp_path: Path) -> None:
    html = write_report(tmp_path / "r.html", "t", two_runs(tmp_path), TASKS, {}, []).read_text()
    assert "http://" not in html
    assert "https://" not in html
    assert "@import" not in html


def test_names_are_text_not_markup(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'$x^{$"
    task: Task = Depth("depth")
    folder = make_run(tmp_path / "run", {evil: {"absErr": 1.0, f"IoU/{evil}": 2.0}})
    rows = [log_row(evil, 1, **{f"loss/{evil}": 1.0}), log_row(f"{evil}2", 1, **{f"loss/{evil}": 1.0})]
    (folder / "metrics.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (folder / "environment.json").write_text(json.dumps({evil: evil}))
    strips = [Strip(evil, (picture(evil),))]
    runs = [RunColumn(evil, folder), RunColumn(evil, folder)]
    path = write_report(tmp_path / "r.html", evil, runs, {evil: task}, {evil: strips}, [evil], split="test")
    assert "script" not in {tag for tag, _ in Page(path).tags}
    assert "<script" not in path.read_text()
    assert "<b>bold" not in path.read_text()


def test_runs_that_lack_everything_do_not_crash(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    runs = [RunColumn("nothing", tmp_path / "empty"), RunColumn("HTT", make_run(tmp_path / "htt", BETTER))]
    page = Page(write_report(tmp_path / "r.html", "t", runs, TASKS, {"none": []}, []))
    assert page.row("mIoU") == ["mIoU % ↑", "–", "44.00", "–"]
    assert page.row("Minutes") == ["Minutes of training", "–", "3.2"]
    assert "ΔMTL" not in page.text


@pytest.mark.parametrize("count", [0, 1])
def test_without_runs_to_compare_there_is_no_delta(tmp_path: Path, count: int) -> None:
    page = Page(write_report(tmp_path / "r.html", "t", two_runs(tmp_path)[:count], TASKS, {}, []))
    assert "Δ" not in page.text
    assert ("mIoU" in page.text) == (count == 1)


def test_delta_mtl_says_how_many_tasks_it_counts(tmp_path: Path) -> None:
    runs = two_runs(tmp_path)
    (runs[1].folder / "evaluation-test.json").write_text(json.dumps(BETTER | {"depth": {"absErr": None}}))
    page = Page(write_report(tmp_path / "r.html", "t", runs, TASKS, {}, []))
    assert page.row("ΔMTL")[-1] == "+10.0 %"
    assert "over 1 of 2 tasks" in " ".join(page.text.split())


def test_a_log_with_a_resumed_and_a_torn_end(tmp_path: Path) -> None:
    runs = two_runs(tmp_path)
    with (runs[0].folder / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(log_row("supervised", 40, **{"loss/depth": float("nan")})) + '\n{"stage": "super')
    page = Page(write_report(tmp_path / "r.html", "t", runs, TASKS, {}, []))
    assert "MTL baseline: supervised, 40 steps" in " ".join(page.text.split())


def test_strips_with_shared_captions_have_them_once(tmp_path: Path) -> None:
    def height(strips: list[Strip]) -> int:
        with Image.open(save_strips(tmp_path / "strips.png", strips, scale=3)) as image:
            return image.height

    first, same = (Strip(name, (picture("image", 40, 64), picture("truth", 40, 64))) for name in ("a", "b"))
    other = Strip("b", (picture("image", 40, 64), picture("depth", 40, 64)))
    assert height([first, same]) < height([first, other])
    assert height([first, same]) > 2 * 3 * 40


def test_strips_keep_every_pixel_when_enlarged(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 50, 3), np.uint8)
    save_strips(tmp_path / "strips.png", [Strip("", (Picture("x", pixels),))], scale=4)
    drawn = np.asarray(Image.open(tmp_path / "strips.png"))
    large = pixels.repeat(4, axis=0).repeat(4, axis=1)
    places = np.argwhere((drawn == large[0, 0]).all(-1))
    assert any(np.array_equal(drawn[y : y + 80, x : x + 200], large) for y, x in places)


def test_strips_of_different_sizes_and_lengths(tmp_path: Path) -> None:
    strips = [
        Strip("a rather long title that has to be wrapped", (picture("one", 20, 500),)),
        Strip("", (picture("a caption Δ → ½", 30, 20), picture("two"))),
    ]
    with Image.open(save_strips(tmp_path / "new" / "strips.png", strips)) as image:
        assert 1000 < image.width < 1400
    with pytest.raises(ValueError, match="at least one strip"):
        save_strips(tmp_path / "none.png", [])
