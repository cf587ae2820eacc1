"""What the README shows runs, and what it quotes is what the results say."""
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT/"README.md").read_text()


def test_its_example_runs_as_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    example, = re.findall(r"```python\n(.*?)```", README, re.S)
    exec(compile(example, "README.md", "exec"), {})
    said = capsys.readouterr().out
    assert "clip" in said and (tmp_path/"my-model"/"store"/"manifest.json").exists()
    assert len([line for line in example.splitlines() if line.strip()]) <= 15


def test_its_links_lead_somewhere():
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README): assert (ROOT/target).exists(), target


def test_its_make_targets_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT/"Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.M)) <= targets


def test_its_results_block_is_the_generated_one():
    from ramer.claims import claimed_studies, ledger, results_block
    from ramer.report import BEGIN, END, read_results
    if not (ROOT/"results"/"tables").exists(): pytest.skip("results/ holds no tables yet")
    block = README[README.index(BEGIN):README.index(END) + len(END)]
    assert block == results_block(ROOT/"results", ledger(read_results(ROOT/"results"), claimed_studies(ROOT/"results"))), "run make publish"


def test_its_block_on_leaks_is_the_generated_one():
    from ramer.leaks import BEGIN, END, inflation_table, leaks_block, read_leaks
    if not (found := read_leaks(ROOT/"results")): pytest.skip("results/ holds no leaks yet")
    assert README[README.index(BEGIN):README.index(END) + len(END)] == leaks_block(inflation_table(found)), "run make leaks ARGS=--publish"


def test_its_block_on_studies_is_the_generated_one():
    from ramer.gains import STUDIES
    from ramer.studies import BEGIN, END, studies_block
    block = README[README.index(BEGIN):README.index(END) + len(END)]
    assert set(re.findall(r"^\| \[([\w-]+)\]", block, re.M)) <= set(STUDIES)
    assert block == studies_block(ROOT/"results"), "run make studies ARGS=--publish"


def test_it_says_which_sets_were_tuned():
    said, = re.findall(r"^- Tuned: (.*?)\. ", README, re.M)
    assert re.findall(r"`([\w-]+)`", said) == sorted(path.stem for path in (ROOT/"results"/"tuning").glob("*.csv"))
