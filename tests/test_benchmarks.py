"""Benchmarks and tools can be imported, and small forms of them run."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import house
import numpy as np
import pandas as pd
import pytest

from ramer.data.worlds import MER2024_COUNTS

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))  # as when one of them is run
SCRIPTS = sorted([*ROOT.glob("benchmarks/*.py"), *ROOT.glob("tools/*.py")])


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_it_is_imported_without_running(path):
    assert callable(house.imported(path)["main"])


def imported(name):
    "The names that a benchmark defines."
    return house.imported(f"benchmarks/{name}")


def run_benchmark(name, *options):
    "Run a benchmark with some options in a process of its own."
    command = [sys.executable, "-W", "ignore", str(ROOT / "benchmarks" / name)]
    subprocess.run([*command, *map(str, options)], check=True, capture_output=True)


def test_the_simulated_train_split_has_mer2024s_class_counts():
    parts = imported("mer2024.py")
    small = replace(parts["WORLD"], dims={"a": 16, "v": 16, "l": 16})
    parts["blocks_of"].__globals__["WORLD"] = small
    blocks = list(parts["blocks_of"](0, "train", 5030))
    labels = np.concatenate([clips.labels for clips in blocks])
    assert tuple(np.bincount(labels, minlength=6)) == MER2024_COUNTS
    ids = np.concatenate([clips.ids for clips in blocks])
    assert len(set(ids)) == 5030
    assert sum(map(len, parts["blocks_of"](3, "unlabelled", 5000))) == 5000
    assert sum(parts["SPLITS"].values()) - 1169 - 1170 == 120_625


def test_each_modality_of_the_simulated_mer2024_is_about_as_hard_as_published():
    "F1 on MER2023-SEMI of one extractor's features; notebook 05_worlds has the source."
    alone = pd.read_csv(ROOT / "results" / "bench" / "mer2024-alone.csv").set_index("modality").F1
    for modality, published in {"a": 0.8511, "v": 0.6068, "l": 0.4632}.items():
        assert abs(alone[modality] - published) < 0.05


@pytest.mark.slow
def test_the_whole_way_runs_on_a_hundredth(tmp_path):
    options = ["--share", 0.01, "--epochs", 1, "--work", tmp_path / "work", "--out", tmp_path]
    run_benchmark("mer2024.py", *options)
    assert len(pd.read_csv(tmp_path / "mer2024-accuracy.csv")) == 10
    assert not (tmp_path / "work").exists()
    assert pd.read_csv(tmp_path / "mer2024.csv").clips.max() > 1200
    assert pd.read_csv(tmp_path / "mer2024-alone.csv").F1.between(0.1, 1).all()


def test_the_contest_holds_ours_against_zero_fill_and_ramer(tmp_path):
    sizes = ["--clips", 120, "--widths", 1]
    times = ["--repeats", 1, "--rounds", 2, "--epochs", 1]
    run_benchmark("contest.py", "--out", tmp_path, *sizes, *times)
    table = pd.read_csv(tmp_path / "contest.csv").set_index(["stage", "method"])
    methods = "zero", "ramer", "ramer-gated", "ramer-pooled"
    stages = ("training", "an answer")
    assert list(table.index) == list(product(stages, methods))
    at_most = table["at most"].groupby("stage").unique().to_dict()
    assert at_most == {"training": [3], "an answer": [1.5]}
    assert (table.labelled == 120).all()
    assert (table.widths == "128 96 640").all()
    ratios = table[["seconds ratio", "cpu ratio"]]
    assert (ratios.loc[[("training", "zero"), ("an answer", "ramer")]] == 1).all(axis=None)
    assert (ratios.loc["training", "ramer-gated"] > 1).all()  # one that trains more costs more
    for name in ("seconds", "cpu", "seconds ratio", "cpu ratio"):
        assert (table[f"{name} min"] <= table[name]).all()
        assert (table[name] <= table[f"{name} max"]).all()


SHAPES = {  # shape: effects, and how often the interval that was replaced held
    "5 folds, 24 actors": ((4, 2, 4), "too rarely"),
    "5 folds, 90 videos": ((2, 2, 8), "too rarely"),
    "5 draws": ((1, 1, 0), "too often"),
    "10 draws": ((3, 1, 0), "too often"),
    "one split, 200 groups": ((0, 1, 8), "too often"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_an_interval_of_each_shape_of_data_holds_the_truth_95_times_in_100(name):
    parts = imported("coverage.py")
    shapes = {shape.name: shape for shape in (*parts["SETS"], *parts["WORLDS"], *parts["SPLITS"])}
    effects, was = SHAPES[name]
    rng = np.random.default_rng(0)
    for row in parts["coverage"](shapes[name], parts["Effects"](*effects), 1500, rng):
        assert 0.93 <= row["coverage"] <= 0.97, row
        assert row["old coverage"] < 0.935 if was == "too rarely" else row["old coverage"] > 0.965


def test_the_committed_coverage_is_of_the_whole_grid_and_between_93_and_97():
    table = pd.read_csv(ROOT / "results" / "bench" / "coverage.csv")
    parts = imported("coverage.py")
    assert len(table) == len(parts["GRID"]) * len(parts["TRUTH"])
    assert set(table["shape"]) == {shape.name for shape, _ in parts["GRID"]}
    assert table.coverage.between(0.93, 0.97).all()
    assert table["old coverage"].min() < 0.6 and table["old coverage"].max() > 0.99


@pytest.mark.slow
def test_a_first_answer_is_measured_in_every_way(tmp_path):
    options = ["--dataset", "gaussian", "--repeats", 1, "--epochs", 2, "--out", tmp_path / "t.csv"]
    run_benchmark("first_answer.py", *options)
    table = pd.read_csv(tmp_path / "t.csv").set_index("way")
    assert table["times as long"]["scikit-learn"] == 1
    assert (table["accuracy, complete"] > 0.3).all() and table.lines.between(8, 20).all()


def test_the_committed_first_answers_are_of_the_programs_that_are_there():
    table = pd.read_csv(ROOT / "benchmarks" / "first-answer.csv")
    lines_of = imported("first_answer.py")["lines_of"]
    assert [lines_of(way) for way in table.way] == table.lines.tolist()


@pytest.mark.slow
def test_a_search_is_held_against_raw_ones_and_changes_against_a_search(tmp_path):
    run_benchmark("search.py", "--clips", 600, "--out", tmp_path / "search.csv")
    table = pd.read_csv(tmp_path / "search.csv")
    assert set(table.of) == {"a matrix product", "a raw search", "a search", "the rows"}
    assert (table.ratio > 0).all() and set(table.clips) == {600}
    has_target = table.target.notna()
    holds = np.where(table.ratio <= table.target + 0.005, "yes", "no")  # two digits are written
    assert (holds[has_target] == table.holds[has_target]).mean() > 0.9


@pytest.mark.slow
def test_engines_are_compared_on_features_of_a_trained_model(tmp_path):
    options = ["--clips", 1200, 2400, "--epochs", 1, "--engines", "ivf", "--out", tmp_path]
    run_benchmark("engines.py", *options)
    table = pd.read_csv(tmp_path / "engines.csv")
    assert set(table.clips) == {1200, 2400} and table.growth.notna().any()
    assert (table.recall > 0.9).all() and (table["times faster"] > 0).all()
    built = pd.read_csv(tmp_path / "engines-built.csv")
    assert (built["bytes a clip"] > 0).all()


@pytest.mark.slow
def test_a_kept_store_is_held_against_one_in_memory(tmp_path):
    run_benchmark("kept.py", "--clips", 300, "--out", tmp_path / "kept.csv")
    table = pd.read_csv(tmp_path / "kept.csv").set_index("what")
    assert table.loc["bytes on disk", "holds"] == "yes"
    assert (table.ratio[["add a clip", "correct a clip", "remove a clip"]] > 1).all()
    assert "processor" in json.loads((tmp_path / "machine.json").read_text())["kept.csv"]


@pytest.mark.slow
def test_other_libraries_find_the_same_neighbours(tmp_path):
    options = ["--clips", 300, "--only", "sklearn", "--out", tmp_path / "beside.csv"]
    run_benchmark("beside.py", *options)
    table = pd.read_csv(tmp_path / "beside.csv")
    assert (table.recall.dropna() == 1).all()
    assert table.what.str.contains("released loop").sum() == 3


@pytest.mark.slow
def test_stages_are_held_against_the_same_without_retrieval(tmp_path):
    sizes = ["--clips", 5030, "--epochs", 1, "--repeats", 1]
    run_benchmark("stages.py", *sizes, "--out", tmp_path / "stages.csv")
    table = pd.read_csv(tmp_path / "stages.csv")
    assert table.holds.isin(["yes", "no"]).sum() == 5


@pytest.mark.slow
def test_onnxruntime_is_held_against_torch_and_gives_the_same(tmp_path):
    options = ["--repeats", 2, "--batches", 1, 3, "--out", tmp_path / "onnx.csv"]
    run_benchmark("onnx_speed.py", *options)
    assert_of_onnx(pd.read_csv(tmp_path / "onnx.csv"), [1, 3])


def assert_of_onnx(table, batches):
    "The table has every part at every batch, close to torch."
    assert table.groupby("what").batch.apply(list).map(lambda found: found == batches).all()
    assert table.what.nunique() == 6
    assert (table["largest difference"] < 1e-4).all()
    ratio = table["torch by onnxruntime"]
    assert (table.least <= ratio).all() and (ratio <= table.most).all() and (ratio > 0).all()


def test_the_committed_speed_of_onnxruntime_is_of_every_part():
    pytest.importorskip("onnxruntime")
    batches = list(imported("onnx_speed.py")["BATCHES"])
    assert_of_onnx(pd.read_csv(ROOT / "results" / "bench" / "onnx.csv"), batches)


def test_the_page_of_targets_shows_what_was_measured():
    folder = ROOT / "results" / "bench"
    assert (folder / "README.md").read_text() == imported("targets.py")["page"](folder)


def test_the_page_of_stores_has_what_was_measured():
    page = (ROOT / "docs" / "stores.md").read_text()
    assert page == imported("scale.py")["page"](page, ROOT / "results" / "bench")


def test_two_machines_agree_as_the_page_of_results_says():
    cells = pd.read_csv(ROOT / "results/bench/machines.csv")
    assert (cells.here != cells.there).all()  # with other versions
    assert set(cells.verdict) <= {"identical", "within"}
    others = cells[cells.verdict == "within"]
    assert set(others.method) <= {"rbf"} and len(others) < len(cells) / 10
