"Every link of pages and notebooks leads somewhere, and the documentation site is built of them."

import json
import re
from types import SimpleNamespace

import pytest
from house import NOTEBOOKS, PATHS, ROOT, imported, source

documentation = SimpleNamespace(**imported("tools/documentation.py"))
HEADING = re.compile(r"^#+ (.*)$", re.M)


def anchor(heading):
    "The name that a forge gives a heading."
    words = re.sub(r"[^\w\s-]", "", heading.lower()).strip()
    return re.sub(r"\s", "-", words)


def prose(path):
    "The Markdown of a page or of a notebook."
    if path.suffix == ".md":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n\n".join(source(cell) for cell in cells if cell["cell_type"] == "markdown")


def wrong_links(path):
    "The links of a page to files or headings that are not there."
    text = re.sub(r"^```.*?^```", "", prose(path), flags=re.M | re.S)
    found = re.findall(r"\[[^\]]*\]\((?!https?:|mailto:)([^)\s]*)\)", text)
    wrong = []
    for link in found:
        name, _, heading = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists():
            wrong.append(link)
        elif heading and heading not in map(anchor, HEADING.findall(prose(target))):
            wrong.append(link)
    return wrong


def test_links_of_pages_lead_somewhere():
    pages = [*documentation.page_paths(), *(ROOT / "nbs").rglob("*.ipynb")]
    assert len(pages) > 100
    wrong = {str(path.relative_to(ROOT)): wrong_links(path) for path in pages}
    assert {path: links for path, links in wrong.items() if links} == {}


def test_a_link_that_leads_nowhere_is_found(tmp_path):
    (tmp_path / "there.md").write_text("# A heading, of sorts\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](there.md#a-heading-of-sorts) [b](there.md#gone) [c](gone.md) [d](https://x)"
    )
    assert wrong_links(page) == ["there.md#gone", "gone.md"]


def test_every_page_and_how_to_is_in_the_menu():
    index = (ROOT / "docs" / "index.md").read_text()
    menu = "\n".join(re.findall(r"```\{toctree\}\n(.*?)```", index, re.S))
    for page in (ROOT / "docs").glob("*.md"):
        assert page.stem == "index" or re.search(rf"^{page.stem}$", menu, re.M), page.name


def test_notebooks_are_shown_without_directives_and_with_links():
    names = documentation.known_names()
    assert names["RetrievalStore"] == "ramer.retrieval.store.RetrievalStore"
    cells = [{"cell_type": "code", "source": ["#| hide\n", "x = 1"]}]
    cells += [{"cell_type": "code", "source": ["#| export\n", "x = 1"]}]
    cells += [{"cell_type": "markdown", "source": ["`RetrievalStore`, `nothing` (22_store)"]}]
    shown = [documentation.shown_cell(cell, names, {"22_store": "/nbs/22_store"}) for cell in cells]
    assert shown[0] is None and shown[1]["source"] == "x = 1"
    assert shown[2]["source"] == (
        "{py:obj}`RetrievalStore <ramer.retrieval.store.RetrievalStore>`, `nothing` "
        "({doc}`22_store </nbs/22_store>`)"
    )


def test_every_name_at_the_top_and_every_command_is_described():
    import ramer

    table = documentation.public_names()
    rows = re.findall(r"^\| (?:\{py:obj\})?`(\w+)[^|]*\| *(\S.*?) *\|$", table, re.M)
    assert {name for name, _ in rows} - {"ramer"} == set(ramer.__all__)
    assert ["data", "inspect"] in documentation.commands()
    assert "--given" in documentation.command_help(["predict"])


def test_the_gallery_has_every_figure():
    figures = {path for path, _, _ in documentation.captioned_figures()}
    results = ROOT / "results"
    there = {path.relative_to(results) for path in results.rglob("*.png")}
    assert there <= figures


def test_a_folder_that_holds_no_site_is_kept(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(SystemExit):
        documentation.main(["--out", str(tmp_path)])
    assert "holds no site" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").exists()


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_asks_for_nothing_from_outside(tmp_path):
    assert documentation.main(["--out", str(tmp_path / "site")]) == 0
    html = tmp_path / "site" / "html"
    pages = {path.stem for path in (html / "nbs").rglob("*.html")}
    assert pages >= set(NOTEBOOKS) and len(PATHS) == len(NOTEBOOKS)
    for page in html.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img)[^>]* src=\"(https?:[^\"]*)\"", page.read_text())
        loaded += re.findall(
            r"<link[^>]* rel=\"stylesheet\"[^>]* href=\"(https?:[^\"]*)\"", page.read_text()
        )
        assert not loaded, page
