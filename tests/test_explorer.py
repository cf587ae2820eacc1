"The page of results: its numbers are those of the tables, and in a browser its filters work."

import csv
import json
import re
import shlex
import shutil

import numpy as np
import pandas as pd
import pytest
from house import ROOT, page_blocks

from ramer.cli import main
from ramer.data.datasets import load_dataset
from ramer.data.folders import Corpus, write_folder
from ramer.evaluation.protocol import Protocol
from ramer.methods.registry import configure, make_method
from ramer.report.tables import is_synthetic, read_table

pytest.importorskip("plotly", reason="plotly is not installed (pip install 'ramer[explore]')")
RESULTS = ROOT / "results"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
BLOCKS = page_blocks("docs/explore.md", "sh")
pytestmark = pytest.mark.skipif(not (RESULTS / "runs").exists(), reason="results/ holds no runs")


def ended(*arguments):
    "The exit code of a command, in this process."
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    return stopped.value.code or 0


def run_block(folder, block):
    "Run a command of docs/explore.md in a folder."
    _, *arguments = shlex.split(block, comments=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert ended(*arguments) == 0


METHODS = ("prior", "zero", "random", "ramer", "mmin", "ae-published", "boosting", "bayes")
SETS = ("prototypes", "gaussian", "mosi")


def copied(home, *names, sets=("gaussian",)):
    "A results folder with some methods of some data sets, as far as they are there."
    for dataset in sets:
        lines = home / "results" / "runs" / dataset
        lines.mkdir(parents=True)
        for path in (RESULTS / "runs" / dataset).glob("*.jsonl"):
            if path.stem in (*names, "clips"):
                shutil.copyfile(path, lines / path.name)
    return home / "results"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "The folder that the first command of docs/explore.md makes, of some of the committed lines."
    home = tmp_path_factory.mktemp("explorer")
    copied(home, *METHODS, sets=SETS)
    run_block(home, BLOCKS[0])
    return home / "page"


@pytest.fixture(scope="module")
def held(made):
    "What the page holds."
    page = (made / "index.html").read_text()
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])


def frame(held, name):
    "A table of the page."
    return pd.DataFrame(**held["frames"][name])


def of_page(name):
    "A committed table, of what the page holds."
    table = read_table(RESULTS, name)
    others = {"method", "reference"} & set(table)
    kept = table.dataset.isin(SETS)
    for column in others:
        kept &= table[column].isin(METHODS)
    return table[kept]


KEYS = {
    "scores": ["dataset", "method", "condition", "metric"],
    "differences": ["dataset", "method", "condition", "metric", "reference"],
    "calibration": ["dataset", "method", "condition"],
    "reliability": ["dataset", "method", "condition", "confidence"],
}


def check_equal(shown, committed, keys):
    "Every row of a table is there, and its numbers are those committed, to six digits."
    assert len(shown) == len(committed) > 0
    both = shown.round(6).merge(committed, on=keys, suffixes=("", " committed"))
    assert len(both) == len(committed)
    numbers = [each for each in shown if f"{each} committed" in both]
    assert len(numbers) >= 2
    for each in numbers:
        ours, theirs = both[each].astype(float), both[f"{each} committed"].astype(float)
        np.testing.assert_allclose(ours, theirs, atol=2e-6, rtol=0, err_msg=each)


@pytest.mark.parametrize("name", KEYS)
def test_its_numbers_are_those_of_the_committed_tables(held, name):
    committed = of_page({"scores": "conditions"}.get(name, name))
    check_equal(frame(held, name), committed, KEYS[name])


@pytest.mark.slow
def test_all_numbers_are_those_of_the_committed_tables():
    from ramer.report.explorer import page_data

    data = page_data(RESULTS)
    for name, keys in KEYS.items():
        committed = read_table(RESULTS, {"scores": "conditions"}.get(name, name))
        check_equal(frame(data, name), committed, keys)


def test_signs_and_marks_are_those_of_the_tables(held):
    sure = of_page("differences").p_holm < 0.05
    assert frame(held, "differences").sign.ne("").sum() == sure.sum() > 0
    facts = of_page("conditions").drop_duplicates(["dataset", "method"])
    marks = frame(held, "methods").mark
    assert marks.str.contains("✗").sum() == (facts.collapsed > 0).sum() > 0
    assert marks.str.contains("○").sum() == (facts.unfinished > 0).sum() > 0
    older = marks.str.contains("older rule").sum()
    assert older == (facts.unfinished.isna() & (facts.runs > 0)).sum()


def test_every_set_says_what_it_is_and_which_commit_made_its_lines(held):
    names = [of_set["name"] for of_set in held["sets"]]
    assert names == ["mosi", "gaussian", "prototypes"]  # real ones first
    for of_set in held["sets"]:
        assert of_set["title"].endswith("(synthetic)") == is_synthetic(of_set["name"])
        path = RESULTS / "runs" / of_set["name"] / "zero.jsonl"
        assert json.loads(path.read_text().splitlines()[0])["commit"] in of_set["commits"]
    assert set(frame(held, "neighbours").id.str.split("-").str[0]) == {"gaussian"}


def test_the_folder_is_whole_and_asks_no_network(made):
    assert sorted(path.name for path in made.iterdir()) == ["index.html", "plotly.min.js"]
    page = (made / "index.html").read_text()
    assert "default-src 'none'" in page and not re.search(r"https?://", page)
    assert re.findall(r'(?:src|href)="([^"]+)"', page) == ["#results", "plotly.min.js"]
    assert str(ROOT) not in page and str(made.parent) not in page


def test_bad_input_is_one_line_and_writes_nothing(made, tmp_path, capsys):
    out = tmp_path / "page"
    for arguments, said in (
        ((str(tmp_path), "--out", str(out)), "holds no results"),
        ((str(RESULTS), "--out", str(made)), "exists"),
        ((str(RESULTS), "--out", str(tmp_path), "--replace"), "holds no plotly.min.js"),
        ((str(RESULTS), "--out", str(out), "--model", "model"), "both, or neither"),
        (
            (str(RESULTS), "--out", str(out), "--model", "x", "--clips", "y"),
            "holds no saved method",
        ),
    ):
        assert ended("explore", *arguments) == 2
        error = capsys.readouterr().err
        assert said in error and len(error.splitlines()) == 1, error
    assert not list(tmp_path.iterdir())


def test_neighbours_may_be_those_of_a_model_and_clips_of_ones_own(tmp_path, capsys):
    protocol = Protocol(load_dataset("gaussian"))
    method = make_method(configure("gaussian", "ramer-gated", epochs=2, gate_steps=20))
    method.fit(protocol.train[:200], protocol.dev[:60]).save(tmp_path / "model")
    clips = protocol.dev[60:64]
    hidden = np.array([[True, True, True], [True, False, True], [True, True, True], [False] * 3])
    write_folder(Corpus(clips.hide(hidden)), tmp_path / "my-features")
    copied(tmp_path, "prior")  # no method that others are compared with
    run_block(tmp_path, BLOCKS[1])
    assert "no answer for 1 clips" in capsys.readouterr().err
    page = (tmp_path / "mine" / "index.html").read_text()
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
    rows = frame(data, "neighbours")
    assert set(rows.id) == set(clips.ids[:3]) and rows.share.notna().all()
    assert set(rows[rows.id == clips.ids[1]].condition) == {"a", "l", "al"}
    assert (
        "Clips of my-features, answered by the model model (ramer-gated)" in data["neighboursAbout"]
    )


@pytest.fixture(scope="module")
def browser():
    "A browser without a window."
    playwright = pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, made):
    "Open the page from disk, with a hash; what it asked of a network, or complained of, is kept."
    asked, problems, pages = [], [], []

    def open_page(view="", folder=made, width=1280):
        page = browser.new_page(viewport={"width": width, "height": 900})
        pages.append(page)
        page.route(
            re.compile("^(?!file|blob|data)"), lambda r: (asked.append(r.request.url), r.abort())
        )
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: problems.append(said.text) if said.type == "error" else 0)
        page.goto(f"{(folder / 'index.html').as_uri()}{view}")
        page.wait_for_selector("#neighbours tbody tr")
        return page

    yield open_page
    assert not asked and not problems
    for page in pages:
        page.close()


SMALL = "#sets=mosi&sets=gaussian&methods=zero&methods=ramer&methods=mmin&conditions=missing"


def cells(page, table, column):
    "The text of a column of a table."
    return page.eval_on_selector_all(
        f"#{table} tbody tr", f"rows => rows.map(row => row.cells[{column}].textContent)"
    )


def test_filters_change_the_table_and_the_dots(opened):
    page = opened(SMALL)
    assert cells(page, "scores", 0) == ["mosi"] * 3 + ["gaussian (synthetic)"] * 3
    assert cells(page, "scores", 1)[:3] == ["zero", "ramer", "mmin"]
    committed = read_table(RESULTS).set_index(["dataset", "method", "condition", "metric"])
    expected = committed.loc[("mosi", "ramer", "missing", "WA")]
    shown = [cells(page, "scores", column)[1] for column in (3, 4, 5)]
    assert shown == [f"{100 * expected[name]:.1f}" for name in ("mean", "low", "high")]
    assert page.locator("#plots figure").count() == 2
    page.uncheck("input[name=sets][value=gaussian]")
    page.check("input[name=conditions][value=avl]")
    assert page.locator("#plots figure").count() == 1
    assert cells(page, "scores", 2) == ["avl", "missing"] * 3
    assert page.inner_text("#said").startswith("6 rows")
    before = cells(page, "scores", 3)
    page.select_option("#metric", "UA")
    assert cells(page, "scores", 3) != before
    page.select_option("#baseline", "zero")
    assert cells(page, "scores", 6)[:2] == ["", ""] and "+" in "".join(cells(page, "scores", 6))
    page.select_option("#fold", "1")
    assert page.locator("#scores thead th").count() == 5
    page.click("button[aria-label='none: Data sets']")
    assert "choose at least one data set" in page.inner_text("#said")


def test_a_heading_sorts_by_keyboard_and_a_view_is_linked(opened):
    page = opened(SMALL)
    page.focus("#scores thead button[value='WA in %']")
    page.keyboard.press("Enter")
    rising = [float(text.split()[0]) for text in cells(page, "scores", 3)]
    assert rising == sorted(rising) and page.locator("th[aria-sort=ascending]").count() == 1
    page.keyboard.press("Enter")
    falling = [float(text.split()[0]) for text in cells(page, "scores", 3)]
    assert falling == sorted(falling, reverse=True)
    page.select_option("#baseline", "ramer")
    page.select_option("#part", "av")
    again = opened(page.evaluate("location.hash"))
    assert cells(again, "scores", 7) == cells(page, "scores", 7)
    assert again.input_value("#part") == "av" and again.input_value("#baseline") == "ramer"
    again.evaluate("location.hash = 'sets=mosi&methods=zero&metric=none&fold=77'")
    again.wait_for_function("document.querySelectorAll('#scores tbody tr').length === 1")
    assert again.input_value("#metric") == "WA" and again.input_value("#fold") == "mean"


def test_calibration_and_neighbours_appear_and_follow_what_is_chosen(opened):
    page = opened(SMALL)
    calibrated = read_table(RESULTS, "calibration").set_index(["dataset", "method", "condition"])
    page.select_option("#set", "gaussian")
    page.select_option("#given", "al")
    assert page.locator("#reliability .scatterlayer .trace").count() == 4  # and the diagonal
    ece = calibrated.ece[("gaussian", "ramer", "al")]
    assert cells(page, "calibration", 1)[1] == f"{ece:.3f}"
    page.select_option("#set", "prototypes")
    said = page.inner_text("#calibrated")
    assert said.startswith("1 curve ") and said.endswith("keep no confidences: zero, ramer.")
    before = cells(page, "neighbours", 1)
    assert len(before) == 5
    page.select_option("#clip", index=3)
    assert cells(page, "neighbours", 1) != before
    said = re.fullmatch(r"From (\w+) alone, the answer is .+", page.inner_text("#answered"))
    assert said and said[1] == page.input_value("#part")


def test_the_rows_that_are_shown_are_downloaded(opened):
    page = opened(SMALL + "&baseline=zero")
    with page.expect_download() as waiting:
        page.click("#download")
    with open(waiting.value.path(), encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == cells(page, "scores", 1)
    assert [f"{100 * float(row['WA']):.1f}" for row in rows] == cells(page, "scores", 3)


def test_what_is_read_aloud_has_names_and_a_narrow_window_does_not_scroll(opened):
    page = opened(width=400)
    unnamed = page.evaluate(
        """[...document.querySelectorAll("select, input, button")].filter((each) =>
        !each.labels?.length && !each.textContent.trim() && !each.ariaLabel).length"""
    )
    assert unnamed == 0 and page.locator("html[lang=en]").count() == 1
    for table in ("scores", "calibration", "neighbours", "sources"):
        heads = page.locator(f"#{table} thead th")
        assert heads.count() == page.locator(f"#{table} thead th[scope=col]").count() > 3
        assert page.locator(f"#{table} tbody th[scope=row]").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


def test_names_are_shown_as_text(opened, tmp_path):
    results = copied(tmp_path, "zero", "ramer")
    evil = "<img src=x onerror=alert(1)></script>"
    for path in results.rglob("ramer.jsonl"):
        rows = [json.loads(row) | {"method": evil} for row in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert ended("explore", str(results), "--out", str(tmp_path / "page")) == 0
    page = opened("#conditions=a", tmp_path / "page")
    page.click("summary:has-text('others')")
    page.click("button[aria-label='all: others']")
    assert evil in cells(page, "scores", 1) and page.locator("img").count() == 0
