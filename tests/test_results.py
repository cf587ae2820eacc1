"""What is committed under results/ is what its lines say, and says what must be said."""
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ramer.metrics import METRICS
from ramer.report import MISSING, read_results, read_table

RESULTS = Path(__file__).parents[1]/"results"
pytestmark = pytest.mark.skipif(not (RESULTS/"runs").exists(), reason="results/ holds no runs yet")
LINES = [json.loads(row) for path in sorted(RESULTS.glob("runs/*/*.jsonl")) if path.stem != "clips" for row in path.read_text().splitlines()]
REQUIRED = ("zero", "mean", "random", "prior", "ramer")


@pytest.fixture(scope="module")
def table(): return read_table(RESULTS)


def test_every_mean_in_the_table_follows_from_the_confusion_matrices(table):
    "Folds are pooled, seeds averaged, as the protocol column says; recomputed here without the report's code."
    assert table.protocol.str.endswith("-pooled").all()
    lines = pd.DataFrame(LINES)
    pooled = lines.groupby(["dataset", "method", "condition", "seed"]).confusion.apply(lambda c: np.sum(list(map(np.array, c)), axis=0))
    rows = table[table.metric.isin(METRICS) & (table.condition != MISSING)]
    expected = [np.mean([METRICS[r.metric](c) for c in pooled[r.dataset, r.method, r.condition]]) for r in rows.itertuples()]
    np.testing.assert_allclose(rows["mean"], expected, atol=1e-6)


def test_the_mean_over_missing_conditions_is_that_of_its_cells(table):
    rows = table[table.metric.isin(METRICS)]
    complete = rows.groupby("dataset").condition.transform(lambda names: max((n for n in names if n != MISSING), key=len))
    parts = rows[(rows.condition != MISSING) & (rows.condition != complete)].groupby(["dataset", "method", "metric"])["mean"].mean()
    whole = rows[rows.condition == MISSING].set_index(["dataset", "method", "metric"])["mean"]
    np.testing.assert_allclose(whole, parts[whole.index], atol=1e-6)


def test_predictions_give_the_stored_confusion_matrices():
    for results in read_results(RESULTS).values():
        for method in results.lines:
            for condition in results.conditions(method): results.confusions(method, condition, results.folds(method))


def test_required_columns_methods_and_conditions_are_there(table):
    assert {"dataset", "protocol", "method", "condition", "metric", "mean", "low", "high", "n", "selection", "leaky", "n_models", "mask_protocol"} <= set(table)
    for dataset, rows in table.groupby("dataset"):
        if dataset == "mer2024-shaped": continue
        single = [c for c in set(rows.condition) if len(c) == 1]
        for method in REQUIRED: assert set(rows[rows.method == method].condition) == set(rows.condition), (dataset, method)
        assert len(set(rows.condition)) == 2 ** len(single)                       # every condition, and the mean in place of none
    assert {"gaussian", "prototypes"} <= set(table.dataset)


def test_every_required_method_has_five_folds_by_two_seeds_or_five_seeds():
    for (dataset, method), lines in pd.DataFrame(LINES).groupby(["dataset", "method"]):
        if method in REQUIRED: assert lines.seed.nunique() >= 5 or (lines.fold.nunique() >= 5 and lines.seed.nunique() >= 2), (dataset, method)


def test_no_row_is_leaky_and_every_set_says_what_it_is(table):
    assert not table.leaky.any() and (table.selection.isin(["dev UA over all conditions", "none"])).all()
    notes = table.drop_duplicates("dataset").set_index("dataset").note
    assert notes.str.len().min() > 3
    if "ravdess-goemotions" in notes: assert notes["ravdess-goemotions"] == "class-paired text"
    assert all("s" in notes[d] and ("synthetic" in notes[d] or "simulated" in notes[d]) for d in ("gaussian", "prototypes", "mer2024-shaped"))


def test_intervals_hold_their_means_and_worlds_stay_below_the_best_possible(table):
    assert (table.low <= table.high).all() and ((table["mean"] > table.low - .03) & (table["mean"] < table.high + .03)).all()
    wa = table[(table.metric == "WA")].set_index(["dataset", "method", "condition"])["mean"]
    best = {(d, c): v for (d, m, c), v in wa.items() if m == "bayes"}
    for (d, m, c), value in wa.items(): assert value <= best.get((d, c), 1) + .02, (d, m, c)


def test_on_gaussian_every_learned_method_lies_between_the_class_prior_and_the_best_possible(table):
    wa = table[(table.metric == "WA") & (table.dataset == "gaussian")].pivot(index="method", columns="condition", values="mean")
    learned = wa.drop(index=["prior", "bayes"])
    assert len(learned) >= 5 and (learned > wa.loc["prior"] + .05).all(axis=None) and (learned <= wa.loc["bayes"] + .005).all(axis=None)


@pytest.mark.parametrize("dataset", sorted({r["dataset"] for r in LINES}))
def test_every_line_has_the_config_that_its_trials_chose(dataset):
    from ramer.experiment import grid
    from ramer.protocol import load_dataset
    try: load_dataset(dataset)
    except FileNotFoundError as error: pytest.skip(f"{dataset} is not here: {error}")
    held = {(r["method"], r["fold"], r["seed"]): r["config_hash"] for r in LINES if r["dataset"] == dataset}
    wanted = {(c.method, c.fold, c.seed): c.hash for c in grid(dataset, *(sorted(set(names)) for names in zip(*held)), RESULTS/"tuning")}
    assert held.items() <= wanted.items()


OPPONENTS = {"ae", "cra", "mmin", "if-mmin", "cif-mmin", "distilled", "transformer", "shaspec", "momke", "m3care", "logistic", "knn", "impute-logistic", "impute-boosting", "boosting"}


@pytest.mark.parametrize("dataset", ["gaussian", "prototypes", "mosi", "ravdess", "ravdess-frames", "ravdess-goemotions"])
def test_the_opponents_are_in_the_table_with_all_folds_and_what_they_cost(dataset, table):
    rows = table[(table.dataset == dataset) & table.method.isin(OPPONENTS)]
    assert set(rows.method) == OPPONENTS and rows.runs.min() >= 5
    assert rows[["parameters", "seconds", "n_models", "uses_missing_targets", "selection"]].notna().all(axis=None)
    assert set(rows[rows.n_models > 1].method) == {"logistic"}


def test_the_ledger_is_that_of_the_lines_and_forgets_a_run_that_is_gone():
    from ramer.claims import UNDECIDED, claimed_studies, ledger
    written, found = pd.read_csv(RESULTS/"claims.csv"), read_results(RESULTS)
    again = ledger(found, claimed_studies(RESULTS))
    assert written.verdict.tolist() == again.verdict.tolist()
    np.testing.assert_allclose(written[["measured", "low", "high"]], again[["measured", "low", "high"]], atol=1e-3)
    gaussian = found["gaussian"]
    lines = {m: [r for r in rows if (m, r["fold"], r["seed"]) != ("ramer", 2, 0)] for m, rows in gaussian.lines.items()}
    without = ledger({"gaussian": replace(gaussian, lines=lines)})
    assert set(without.verdict[without.claim.str.startswith("ramer-e2e with neighbours drawn")]) == {UNDECIDED}           # a study's, which was not handed over
    mentions_ramer = without.quantity.str.contains("RAMER|its WA") & (without.verdict != "cannot be tested here")
    assert mentions_ramer.sum() > 5 and (without.verdict[mentions_ramer] == UNDECIDED).all() and without.measured[mentions_ramer].isna().all()


def rerun(method, folder, dataset="gaussian", condition="l"):
    "(a fresh line, the committed line) of fold 0 and seed 0."
    from ramer.experiment import grid, judge_runs, train_runs
    config, = grid(dataset, [method], [0], [0], RESULTS/"tuning")
    committed = next(r for r in LINES if (r["dataset"], r["method"], r["fold"], r["seed"], r["condition"]) == (dataset, method, 0, 0, condition))
    train_runs([config], folder)
    again = judge_runs([config], condition, folder)[0]
    for name in ("config_hash", "data_hash", "mask_hash"): assert again[name] == committed[name], name
    return again, committed


@pytest.mark.parametrize("dataset, method", [("gaussian", "prior"), ("gaussian", "bayes"), ("prototypes", "prior"), ("prototypes", "bayes")])
def test_what_is_not_trained_comes_out_as_committed_on_any_machine(dataset, method, tmp_path):
    again, committed = rerun(method, tmp_path, dataset)
    assert again["predicted"] == committed["predicted"] and again["confusion"] == committed["confusion"]


def test_what_is_trained_comes_out_within_the_committed_interval_on_any_machine(tmp_path):
    "To the bit on the same processor (17_experiment); on another one rounding differs and training amplifies it."
    from ramer.report import compare_cell
    again, committed = rerun("zero", tmp_path)
    published = read_results(RESULTS)["gaussian"]
    fresh = replace(published, lines={"zero": [again]})
    assert compare_cell(fresh, published, "zero", "l")["verdict"] in ("identical", "within")
    assert np.mean([a == b for a, b in zip(again["predicted"], committed["predicted"])]) > .75


def test_figures_and_tables_exist_for_every_set(table):
    for dataset in set(table.dataset): assert (RESULTS/"figures"/f"{dataset}.png").stat().st_size > 5000
    assert len(read_table(RESULTS, "differences")) and len(read_table(RESULTS, "calibration")) and len(read_table(RESULTS, "variants"))
