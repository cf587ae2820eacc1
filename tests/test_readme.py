"""What the README shows runs, and what it quotes is what the results say."""

import re
from pathlib import Path

import pandas as pd
import pytest

from ramer.runs.grids import SYNTHETIC

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
README = (ROOT / "README.md").read_text()
PAGE = (RESULTS / "README.md").read_text()


def numbers(text):
    return [float(number) for number in re.findall(r"\d+\.\d+", text)]


def test_it_is_one_page_and_opens_with_what_can_be_run():
    assert len(README.encode()) < 10_000
    assert "make results" in "\n".join(README.splitlines()[:25])


def test_what_changed_is_what_the_ledger_and_the_studies_say():
    assert README.count("**What changed in the answer**") == 1
    ledger = pd.read_csv(RESULTS / "claims.csv").set_index(["claim", "dataset"]).verdict
    assert ledger["RAMER is better than AE", "ravdess-goemotions"] != "supported"
    retrieval = "Retrieval compensates for what is missing"
    assert ledger[retrieval, "ravdess-goemotions"] == "supported"
    leaks = pd.read_csv(RESULTS / "leaks" / "inflation.csv")
    real = ~leaks.dataset.isin(SYNTHETIC)
    leaks = leaks[real & (leaks.method == "ramer") & (leaks.condition == "missing")]
    by_leak = leaks.pivot(index="dataset", columns="leak", values=["difference", "low"])
    released = by_leak.xs("recipe-first-dropped", axis=1, level="leak").dropna()
    clear = released.low > 0
    most, share = 100 * released.difference.max(), f"clearly on {clear.sum()} of {len(clear)}"
    assert README.count(f"is worth up to {most:.0f} points on real sets, {share}, mostly by") == 1
    assert {"crema-d", "twitter-absa-2015"} < {*clear.index[~clear]}
    by_stage1 = by_leak.difference.stage1[clear.index[clear]]
    assert (by_stage1 > released.difference[clear] / 2).all() and len(by_stage1)
    parts = pd.read_csv(RESULTS / "studies" / "experts" / "table.csv")
    votes = parts[(parts.arm == "without neighbours") & (parts.condition == "missing")]
    assert (votes.low <= 0).all() and (votes.high >= 0).all()
    known = pd.read_csv(RESULTS / "studies" / "centring" / "table.csv")
    known = known[(known.arm == "ramer-pooled, as dev says") & (known.condition == "missing")]
    helped = known.set_index("dataset").low > 0
    tested = helped[~helped.index.str.contains("@")]  # not the folds that it was designed on
    acted = ["crema-d", "ravdess", "ravdess-goemotions"]
    assert sorted(tested.index[tested]) == acted
    ours = ledger["ramer-pooled is better than the opponent that dev chose"]
    assert (ours[["ravdess", "ravdess-goemotions", "stressid"]] == "supported").all()


def test_its_table_of_notebooks_leads_to_each_of_them_once():
    rows = re.findall(r"^\| \[(\d\d)\]\((\S+)\)–(\d\d) \|", README, re.M)
    assert all(Path(path).name.startswith(first) for first, path, _ in rows)
    listed = [number for first, _, last in rows for number in range(int(first), int(last) + 1)]
    there = [int(path.name[:2]) for path in (ROOT / "nbs").rglob("[0-9][0-9]_*.ipynb")]
    assert listed == sorted(there)


def test_its_example_gives_the_output_that_it_shows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ((example, shown),) = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", README, re.S)
    assert len([line for line in example.splitlines() if line.strip()]) <= 8
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    words = re.compile(r"[a-z]+")
    assert words.findall(printed) == words.findall(shown)
    assert numbers(printed) == pytest.approx(numbers(shown), abs=0.025)  # other processors round


@pytest.mark.parametrize(
    "path", ["README.md", "results/README.md", "CONTRIBUTING.md", "docs/tutorial.md"]
)
def test_links_lead_somewhere(path):
    page = ROOT / path
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_its_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in (README, PAGE, (ROOT / "CONTRIBUTING.md").read_text()):
        assert set(re.findall(r"(?:^|`)make ([a-z]+)", page, re.M)) <= targets


def test_its_commands_exist():
    from typer.testing import CliRunner

    from ramer.cli import app

    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", README, re.M | re.S))
    commands = re.findall(r"^(?:RAMER_DATA=\. )?ramer ([a-z]+)(?: ([a-z]+))?", blocks, re.M)
    assert len(commands) > 4
    for command, sub in commands:
        words = [command, sub] if command == "data" else [command]
        assert CliRunner().invoke(app, [*words, "--help"]).exit_code == 0, words


def test_the_page_of_results_names_the_sets_that_were_tuned():
    (tuned,) = re.findall(r"Tuned: (.*?)\. ", PAGE, re.S)
    files = sorted(path.stem for path in (RESULTS / "tuning").glob("*.csv"))
    assert re.findall(r"`([\w-]+)`", tuned) == files
