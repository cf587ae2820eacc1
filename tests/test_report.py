"""What is committed of results, and of the README, is what the committed lines give."""

import shutil
from pathlib import Path

import pytest

from ramer.cli import main

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
LINES = RESULTS / "runs" / "gaussian"
pytestmark = pytest.mark.skipif(not LINES.exists(), reason="results/ holds no runs yet")


def test_everything_that_is_committed_is_what_its_lines_give():
    from ramer.report.publishing import stale_files

    assert not stale_files(RESULTS, ROOT / "README.md"), "run make report"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    "A results folder of two methods, with all that `ramer report` makes of it."
    folder = tmp_path_factory.mktemp("report") / "results"
    (folder / "runs" / "gaussian").mkdir(parents=True)
    for name in ("prior.jsonl", "zero.jsonl", "clips.jsonl"):
        shutil.copyfile(LINES / name, folder / "runs" / "gaussian" / name)
    main_ends("report", str(folder))
    return folder


def main_ends(*arguments):
    "The exit code of a command, in this process."
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code or 0


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("tables/conditions.csv", "zero", "mean"),
        ("claims.md", "gaussian", "gauss"),
        ("tables/gaussian.tex", "7", "8"),
        ("runs/gaussian/zero.jsonl", '"seconds": ', '"seconds": 9'),
    ],
)
def test_a_single_change_is_found_and_named(written, tmp_path, capsys, name, old, new):
    copy = shutil.copytree(written, tmp_path / "results")
    assert main_ends("report", str(copy), "--check") == 0
    text = (copy / name).read_text()
    assert old in text
    (copy / name).write_text(text.replace(old, new))
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main_ends("report", str(copy), "--check") == 1
    said = capsys.readouterr().out
    made_from = "tables/conditions.csv" if name.endswith(".jsonl") else name
    assert made_from in said and ": line " in said
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_bad_input_is_one_line(tmp_path, capsys):
    assert main_ends("report", str(tmp_path)) == 2
    assert "holds no results" in capsys.readouterr().err
    assert main_ends("report", str(tmp_path), "--check", "--runs", str(tmp_path)) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
