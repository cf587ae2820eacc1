"""Benchmarks and tools can be imported, and small forms of them run."""
import runpy
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("path", sorted([*ROOT.glob("benchmarks/*.py"), *ROOT.glob("tools/*.py")]), ids=lambda p: p.stem)
def test_it_is_imported_without_running(path): assert callable(runpy.run_path(str(path), run_name="imported")["main"])


def test_the_simulated_train_split_has_mer2024s_class_counts():
    parts = runpy.run_path(str(ROOT/"benchmarks"/"mer2024.py"), run_name="imported")
    from ramer.worlds import MER2024_COUNTS
    small = parts["WORLD"].__class__(**{**vars(parts["WORLD"]), "dims": {"a": 16, "v": 16, "l": 16}})
    parts["blocks_of"].__globals__["WORLD"] = small
    blocks = list(parts["blocks_of"](0, "train", 5030))
    assert tuple(sum(pd.Series(clips.labels).value_counts().reindex(range(6), fill_value=0) for clips in blocks)) == MER2024_COUNTS
    assert sum(map(len, parts["blocks_of"](3, "unlabelled", 5000))) == 5000 and len({name for clips in blocks for name in clips.ids}) == 5030
    assert sum(parts["SPLITS"].values()) - 1169 - 1170 == 120_625


def test_each_modality_of_the_simulated_mer2024_is_about_as_hard_as_published():
    "F1 on MER2023-SEMI of one extractor's features; notebook 03_worlds has the source."
    alone = pd.read_csv(ROOT/"results"/"bench"/"mer2024-alone.csv").set_index("modality").F1
    assert all(abs(alone[m] - published) < .05 for m, published in {"a": .8511, "v": .6068, "l": .4632}.items())


@pytest.mark.slow
def test_the_whole_way_runs_on_a_hundredth(tmp_path):
    command = [sys.executable, "-W", "ignore", str(ROOT/"benchmarks"/"mer2024.py"), "--share", ".01", "--epochs", "1", "--work", str(tmp_path/"work"), "--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    assert len(pd.read_csv(tmp_path/"mer2024-accuracy.csv")) == 10 and not (tmp_path/"work").exists()
    assert pd.read_csv(tmp_path/"mer2024.csv").clips.max() > 1200 and pd.read_csv(tmp_path/"mer2024-alone.csv").F1.between(.1, 1).all()


def test_the_contest_holds_ramer_e2e_against_zero_fill_and_ramer(tmp_path):
    command = [sys.executable, "-W", "ignore", str(ROOT/"benchmarks"/"contest.py"), "--out", str(tmp_path), "--clips", "120", "--widths", "1", "--repeats", "1", "--rounds", "2", "--epochs", "1"]
    subprocess.run(command, check=True, capture_output=True)
    table = pd.read_csv(tmp_path/"contest.csv").set_index(["stage", "method"])
    assert list(table.index) == [(stage, method) for stage in ("training", "an answer") for method in ("zero", "ramer", "ramer-e2e")]
    assert table["at most"].groupby("stage").unique().to_dict() == {"training": [3], "an answer": [1.5]} and (table.labelled == 120).all() and (table.widths == "128 96 640").all()
    ratios = table[["seconds ratio", "cpu ratio"]]
    assert (ratios.loc[[("training", "zero"), ("an answer", "ramer")]] == 1).all(axis=None) and (ratios.loc["training", "ramer-e2e"] > 1).all()      # one that trains more costs more
    for name in ("seconds", "cpu", "seconds ratio", "cpu ratio"): assert (table[f"{name} min"] <= table[name]).all() and (table[name] <= table[f"{name} max"]).all()
