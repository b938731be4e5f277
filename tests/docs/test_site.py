"""The site: its hooks, its tables made from the code, links between pages, and figures that come from results files."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

import figures
import links
import notebooks
import settings_tables
import tasktokens
import verbs
from checked_tables import check_tables
from lists import indent_paragraphs
from paragraphs import longest_paragraph
from tasktokens import errors
from tasktokens.config.components import DATA_SETTINGS, METHOD_SETTINGS
from tasktokens.config.settings import Config, OptimSettings

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
MADE = {"changelog.md", "dev/contributing.md", *(f"notebooks/{p.stem}.md" for p in ROOT.glob("docs/notebooks/*.ipynb"))}
"""Pages that only the site has."""


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as mkdocs and GitHub make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", plain)).strip("-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target, anchor in re.findall(r"\]\(([^)\s#]*)#?([^)\s]*)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        if path.is_relative_to(ROOT / "docs") and str(path.relative_to(ROOT / "docs")) in MADE:
            continue
        assert path.exists(), f"{page.name} links to {target}"
        if anchor and path.suffix == ".md" and "render_macros" not in path.read_text(encoding="utf-8")[:40]:
            assert anchor in anchors(path), f"{page.name} links to {target}#{anchor}"


def test_links_that_leave_the_docs_lead_to_pages_of_the_site() -> None:
    text = "[results](../../README.md#results), [it](../../examples/own_task.py), [`x.py`](../../src/x.py), [a](b.md#c)"
    expected = "[results](../index.md), [it](../extend/task.md), `x.py`, [a](b.md#c)"
    assert links.adapt(text, "research/page.md") == expected
    assert (
        links.adapt("[a](docs/reference/data.md#b)", "dev/contributing.md", written_in="")
        == "[a](../reference/data.md#b)"
    )


def test_a_figure_is_that_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"method": "a", "seed": 0, "x": 1.0}, {"method": "a", "seed": 1, "x": -4.0}, {"method": "b", "x": None}]
    (tmp_path / "r.json").write_text(json.dumps({"rows": rows, "ece": {"depth": 0.25}}))
    monkeypatch.setattr(figures, "RESULTS", tmp_path)
    figures._read.cache_clear()
    assert figures.figure("r.json", {"method": "a"}, "x", 2) == "−1.50"
    assert figures.figure("r.json", {"method": "a", "seed": 0}, "x", 1, sign=True) == "+1.0"
    assert figures.figure("r.json", {}, "ece.depth", 0, scale=100) == "25"
    assert figures.seeds("r.json", {"method": "a"}) == 2
    for file, chosen, column in (
        ("none.json", {"method": "a"}, "x"), ("r.json", {"method": "c"}, "x"), ("r.json", {"method": "a"}, "y"),
        ("r.json", {"method": "b"}, "x"), ("r.json", {}, "ece.normals"),
    ):  # fmt: skip
        with pytest.raises(figures.FigureError):
            figures.figure(file, chosen, column)
    (tmp_path / "two.json").write_text(json.dumps({"rows": [{"seed": 0, "x": 1}, {"seed": 0, "x": 2}]}))
    with pytest.raises(figures.FigureError, match="more than their seeds"):
        figures.figure("two.json", {"seed": 0}, "x")
    figures._read.cache_clear()


def test_every_setting_is_in_the_tables_and_described() -> None:
    page = settings_tables.settings_page()
    for section, cls in {"data": DATA_SETTINGS["folder"], "method": METHOD_SETTINGS["htt"]}.items():
        for name in cls.model_fields:
            assert f"`{section}.{name}" in page or name in ("kind", "name"), (section, name)
    for section in ("model", "optim", "run"):
        settings = Config.model_fields[section].annotation
        assert settings is not None
        for name in settings.model_fields:
            assert f"| `{section}.{name}" in page
    assert f"| `optim.lr` | number, > 0 | `{OptimSettings().lr}` |" in page
    for kind in DATA_SETTINGS:
        assert f"## `data.kind: {kind}`" in page
    for cls in [*DATA_SETTINGS.values(), *METHOD_SETTINGS.values()]:
        assert list(settings_tables.undescribed(cls)) == [], cls


def test_every_verb_is_on_its_page() -> None:
    page = verbs.verbs_page()
    for verb in ("demo", "train", "check", "evaluate", "predict", "explain", "discover", "init", "rooms", "prepare"):
        assert f"## `{verb}`" in page
    assert "| `--full-size` |" in page
    assert "## `review export`" in page
    assert "tasktokens predict MODEL INPUTS... [OPTIONS]" in page


def test_a_notebook_becomes_a_page(tmp_path: Path) -> None:
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": ["\x1b[31mred\x1b[0m\n"]},
        {"output_type": "display_data", "data": {"image/png": "iVBORw0=", "text/plain": "x"}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title"]},
        {"cell_type": "code", "source": ["print(1)"], "outputs": outputs},
    ]
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": cells}))
    text, pictures = notebooks.to_markdown(tmp_path / "n.ipynb")
    assert text.startswith("# Title\n\n[Download")
    assert "```python\nprint(1)\n```\n\n```text\nred\n```" in text
    assert list(pictures) == ["n-1-1.png"]
    assert "(n-1-1.png)" in text


def literals() -> str:
    """All text of the package, with … in place of what is filled in."""
    found = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [each.value if isinstance(each, ast.Constant) else "…" for each in node.values]
                found.append("".join(str(part) for part in parts))
    return "\n".join(found)


def test_troubleshooting_quotes_messages_that_exist() -> None:
    text = (ROOT / "docs/operate/troubleshooting.md").read_text(encoding="utf-8")
    said = literals()
    theirs = ("operator torchvision::nms does not exist", "No module named 'tasktokens'")
    quoted = [piece for line in re.findall(r"^\| (`.*?) \|", text, re.M) for piece in re.findall(r"`([^`]+)`", line)]
    assert len(quoted) > 60
    assert [piece for piece in quoted if piece.strip() not in said and piece not in theirs] == []


def test_troubleshooting_has_every_sort_of_error() -> None:
    text = (ROOT / "docs/operate/troubleshooting.md").read_text(encoding="utf-8")
    sorts = [name for name, each in vars(errors).items() if isinstance(each, type) and name.endswith("Error")]
    assert [name for name in sorts if f"`{name}`" not in text and name != "TaskTokensError"] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tables_have_the_figures_of_their_files(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    checked = check_tables(text)
    assert bool(checked) == ("<!-- figures:" in text)


def test_a_wrong_figure_or_row_is_found() -> None:
    table = "<!-- figures: accuracy_nyud.json labels=one -->\n\n| | mIoU |\n|---|---|\n| HTT, {} | {} |\n"
    assert check_tables(table.format("`htt`", "**36.73**")) == 1
    for name, figure in (("`htt`", "36.74"), ("`hat`", "36.73"), ("two stages", "36.73"), ("`htt`, seed 0", "36.73")):
        with pytest.raises(figures.FigureError):
            check_tables(table.format(name, figure))


def test_the_readme_fits_the_first_screens() -> None:
    assert len(re.findall(r"\w+", (ROOT / "README.md").read_text(encoding="utf-8"))) <= 600


def test_pages_that_code_names_exist() -> None:
    missing = []
    for folder in ("src", "benchmarks", "examples", "configs", "tests"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".yaml", ".j2", ".md") and path.name != "test_site.py":
                for page in re.findall(r"\bdocs/[\w/-]+\.md\b", path.read_text(encoding="utf-8")):
                    if not (ROOT / page).exists():
                        missing.append(f"{path.relative_to(ROOT)}: {page}")
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_paragraphs_are_short(page: Path) -> None:
    assert longest_paragraph(page.read_text(encoding="utf-8")) <= 6, "at most six lines of 110 characters"


def test_every_public_name_is_on_the_page_of_the_api() -> None:
    text = (ROOT / "docs/reference/api.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^::: tasktokens\.(\w+)", text, re.M))
    assert sorted(set(tasktokens.__all__) - shown - {"Config", "data", "datasets"}) == []


def test_the_site_asks_no_other_server_for_anything() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in text
    assert "https://" not in text + (ROOT / "docs/assets/site.css").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_items_of_a_list_stay_one_list(page: Path) -> None:
    """What follows an item's further paragraphs is an item again."""
    markdown = pytest.importorskip("markdown")
    text = re.sub(r"^---\n.*?^---\n", "", page.read_text(encoding="utf-8"), count=1, flags=re.M | re.S)
    html = markdown.markdown(indent_paragraphs(text), extensions=["tables", "pymdownx.superfences"])
    html = re.sub(r"<pre.*?</pre>", "", html, flags=re.S)
    assert not re.search(r"^- ", html, re.M), "an item went on as text"


def test_code_in_an_item_moves_with_it() -> None:
    text = "- one\n\n  more\n\n  ```\n  code\n    deeper\n  ```\n- two\n\nend\n\n  no item\n"
    moved = "- one\n\n    more\n\n    ```\n    code\n      deeper\n    ```\n\n- two\n\nend\n\n  no item\n"
    assert indent_paragraphs(text) == moved
