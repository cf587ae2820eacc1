"""What is committed under results/ is what its lines say, and says what must be said."""

import ast
import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ramer.evaluation.metrics import METRICS
from ramer.evaluation.protocol import AS_IT_IS
from ramer.report.scores import MISSING
from ramer.report.tables import PEOPLE, by_earlier_rule, read_table
from ramer.runs.grids import CLASSICAL, INCOMPLETE, NETWORKS, RECENT, SYNTHETIC, methods_of
from ramer.runs.results import read_results

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
pytestmark = pytest.mark.skipif(
    not (RESULTS / "runs").exists(), reason="results/ holds no runs yet"
)
PATHS = [path for path in sorted(RESULTS.glob("runs/*/*.jsonl")) if path.stem != "clips"]
LINES = [json.loads(row) for path in PATHS for row in path.read_text().splitlines()]
REQUIRED = ("zero", "mean", "random", "prior", "ramer")
COLUMNS = {"dataset", "protocol", "method", "condition", "metric", "mean", "low", "high", "n"}
FACTS = {"selection", "leaky", "n_models", "mask_protocol"}


@pytest.fixture(scope="module")
def table():
    return read_table(RESULTS)


def summed(matrices):
    return np.sum(list(map(np.array, matrices)), axis=0)


def test_every_mean_in_the_table_follows_from_the_confusion_matrices(table):
    "Folds are pooled, seeds averaged, as the protocol says; recomputed without the report's code."
    lines = pd.DataFrame(LINES)
    folds = lines.groupby("dataset").fold.nunique()
    of_several = table[table.dataset.map(folds) > 1]
    assert of_several.protocol.str.endswith("-pooled").all()
    runs = lines.groupby(["dataset", "method", "condition", "seed"])
    pooled = runs.confusion.apply(summed)
    rows = table[table.metric.isin(METRICS) & (table.condition != MISSING)]
    rows = rows[rows.method != PEOPLE]
    expected = []
    for row in rows.itertuples():
        matrices = pooled[row.dataset, row.method, row.condition]
        expected.append(np.mean([METRICS[row.metric](matrix) for matrix in matrices]))
    np.testing.assert_allclose(rows["mean"], expected, atol=1e-6)


def test_what_people_reach_follows_from_what_raters_answered(table):
    people = table[(table.method == PEOPLE) & (table.metric == "WA")].set_index("dataset")
    assert len(people)
    for dataset, rows in people.groupby("dataset"):
        tested = {line["fold"] for line in LINES if line["dataset"] == dataset}
        clips = map(json.loads, (RESULTS / f"runs/{dataset}/clips.jsonl").read_text().splitlines())
        raters = [fold["raters"] for fold in clips if fold["fold"] in tested]
        for row in rows[rows.condition != MISSING].itertuples():
            right, given = (
                sum(sum(fold[row.condition][name]) for fold in raters)
                for name in ("right", "given")
            )
            assert row.mean == pytest.approx(right / given, abs=1e-6)


def test_the_mean_over_missing_conditions_is_that_of_its_cells(table):
    rows = table[table.metric.isin(METRICS)]
    cells = rows[~rows.condition.isin([MISSING, AS_IT_IS])]
    complete = cells.groupby("dataset").condition.transform(lambda names: max(names, key=len))
    incomplete = cells[cells.condition != complete]
    parts = incomplete.groupby(["dataset", "method", "metric"])["mean"].mean()
    whole = rows[rows.condition == MISSING].set_index(["dataset", "method", "metric"])["mean"]
    np.testing.assert_allclose(whole, parts[whole.index], atol=1e-6)


def test_predictions_give_the_stored_confusion_matrices():
    for results in read_results(RESULTS).values():
        for method in results.lines:
            for condition in results.conditions(method):
                results.confusions(method, condition, results.folds(method))


def test_required_columns_methods_and_conditions_are_there(table):
    assert COLUMNS | FACTS <= set(table)
    assert {"gaussian", "prototypes"} <= set(table.dataset)
    for dataset, rows in table[table.dataset != "mer2024-shaped"].groupby("dataset"):
        conditions = set(rows.condition)
        single = [name for name in conditions if len(name) == 1]
        # every condition, and the mean in place of none
        assert len(conditions - {"as-it-is"}) == 2 ** len(single)
        for method in REQUIRED:
            assert set(rows[rows.method == method].condition) == conditions, (dataset, method)


def test_every_required_method_has_five_draws_of_a_world_and_seeds_enough_on_a_real_set():
    for name, lines in pd.DataFrame(LINES).groupby(["dataset", "method"]):
        folds, seeds = lines.fold.nunique(), lines.seed.nunique()
        if name[1] not in REQUIRED:
            continue
        if name[0] in SYNTHETIC:
            assert folds >= 5, name  # a draw is the unit
        else:
            assert seeds >= 5 or (folds >= 5 and seeds >= 2), name


def test_no_row_is_leaky_and_every_set_has_a_note(table):
    assert not table.leaky.any()
    assert set(table.selection) <= {"dev UA over all conditions", "none"}
    notes = table.drop_duplicates("dataset").set_index("dataset").note
    assert notes.str.len().min() > 3
    assert notes.get("ravdess-goemotions", "class-paired text") == "class-paired text"
    for dataset in SYNTHETIC:
        assert "synthetic" in notes[dataset] or "simulated" in notes[dataset]


def test_intervals_hold_their_means_and_worlds_stay_below_the_best_possible(table):
    assert (table.low <= table.high).all()
    assert (table["mean"] > table.low - 0.03).all() and (table["mean"] < table.high + 0.03).all()
    wa = table[table.metric == "WA"].set_index(["dataset", "method", "condition"])["mean"]
    best = wa.xs("bayes", level="method")
    for (dataset, method, condition), value in wa.items():
        bound = best.get((dataset, condition), 1)
        assert value <= bound + 0.02, (dataset, method, condition)


def test_on_gaussian_every_learned_method_lies_between_the_class_prior_and_the_best_possible(table):
    rows = table[(table.metric == "WA") & (table.dataset == "gaussian")]
    wa = rows.pivot(index="method", columns="condition", values="mean")
    learned = wa.drop(index=["prior", "bayes"])
    assert len(learned) >= 5
    assert (learned > wa.loc["prior"] + 0.05).all(axis=None)
    assert (learned <= wa.loc["bayes"] + 0.005).all(axis=None)


@pytest.mark.parametrize("dataset", sorted({line["dataset"] for line in LINES}))
def test_every_line_has_the_config_that_its_trials_chose(dataset):
    from ramer.data.datasets import load_dataset
    from ramer.runs.tuning import grid

    try:
        load_dataset(dataset)
    except FileNotFoundError as error:
        pytest.skip(f"the files of {dataset} are not here: {error}")
    lines = [line for line in LINES if line["dataset"] == dataset]
    held = {(line["method"], line["fold"], line["seed"]): line["config_hash"] for line in lines}
    methods, folds, seeds = (sorted(set(names)) for names in zip(*held))
    configs = grid(dataset, methods, folds, seeds, RESULTS / "tuning")
    wanted = {(config.method, config.fold, config.seed): config.hash for config in configs}
    assert held.items() <= wanted.items()


NOT_WHOLE = {"nuisance", "ravdess-frames"}  # as the README's limits say
COSTS = ["parameters", "seconds", "n_models", "uses_missing_targets", "selection"]


@pytest.mark.parametrize("dataset", sorted({line["dataset"] for line in LINES}))
def test_every_method_of_the_grid_is_in_the_table_with_what_it_costs(dataset, table):
    rows = table[(table.dataset == dataset) & (table.method != PEOPLE)]
    missing = set(methods_of(dataset)) - set(rows.method)
    assert bool(missing) == (dataset in NOT_WHOLE)
    assert set(rows.method) <= set(methods_of(dataset)) and rows.runs.min() >= 5
    assert rows[COSTS].notna().all(axis=None)


@pytest.mark.parametrize("dataset", sorted({line["dataset"] for line in LINES}))
def test_the_methods_of_several_models_say_so(dataset, table):
    rows = table[(table.dataset == dataset) & table.method.isin([*NETWORKS, *RECENT, *CLASSICAL])]
    several = {"logistic", "lda", "rbf"} & set(rows.method)
    assert set(rows[rows.n_models > 1].method) == several


def without_run(lines, method, fold, seed):
    "{method: lines} without those of one run."

    def kept(name, line):
        return (name, line["fold"], line["seed"]) != (method, fold, seed)

    return {name: [line for line in rows if kept(name, line)] for name, rows in lines.items()}


def test_the_ledger_forgets_a_run_that_is_gone():
    from ramer.report.claims import UNDECIDED, ledger

    results = read_results(RESULTS)
    gaussian = results["gaussian"]
    lines = without_run(gaussian.lines, "ramer", 2, 0)
    without = ledger({"gaussian": replace(gaussian, lines=lines)})
    of_a_study = without.claim.str.startswith("ramer-gated with neighbours drawn")
    assert set(without.verdict[of_a_study]) == {UNDECIDED}  # the study was not handed over
    tested = without.verdict != "cannot be tested here"
    rests_on_ramer = without.quantity.str.contains("RAMER|its WA") & tested
    assert rests_on_ramer.sum() > 5
    assert (without.verdict[rests_on_ramer] == UNDECIDED).all()
    assert without.measured[rests_on_ramer].isna().all()


@pytest.fixture(scope="module")
def claims():
    return pd.read_csv(RESULTS / "claims.csv").fillna({"comparator": "", "counts": ""})


def git(*arguments):
    found = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        pytest.skip(f"no clone with its history: {found.stderr}")
    return found.stdout


def test_the_ledger_names_the_commit_of_the_rules():
    from ramer.report.rules import rules_hash, rules_text

    (named, digits) = re.findall(
        r"`ramer/rules.toml`, commit (\w+), hash (\w+)", (RESULTS / "claims.md").read_text()
    )[0]
    assert digits == rules_hash(), "the rules changed: run make publish"
    assert git("show", f"{named}:ramer/rules.toml") == rules_text()


def test_no_number_of_a_rule_stands_in_the_code_of_the_claims():
    from ramer.report.rules import RULES

    code = (ROOT / "ramer" / "report" / "claims.py").read_text()
    numbers = {node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)}
    assert not numbers & {*RULES.thresholds.values(), RULES.margin["points"], RULES.level} - {2}
    assert not numbers & {RULES.alpha, RULES.correction["rate"], RULES.seeds["real"]}


def test_what_is_not_measured_lacks_a_run_that_the_reason_names(claims):
    unmeasured = claims[claims.measured.isna() & (claims.verdict == "undecided")]
    known = r"^no run of |collapsed in fold|keep no dev score|was trained by an earlier rule"
    odd = unmeasured[~unmeasured.reason.str.contains(known)]
    assert odd.empty, odd[["claim", "dataset", "reason"]].to_string()
    studies = unmeasured.reason.str.extract(r"^no run of the study (.+)").squeeze()
    for study, dataset in zip(studies.dropna(), unmeasured.dataset[studies.notna()]):
        assert not (RESULTS / "studies" / study / f"{dataset}.jsonl").exists(), (study, dataset)


def test_no_verdict_rests_on_a_training_that_an_earlier_rule_ended(claims):
    earlier = claims[claims.reason.str.contains("by an earlier rule", na=False)]
    assert earlier.measured.isna().all() and (earlier.verdict == "undecided").all()
    studied = {path for path in (RESULTS / "studies").glob("*/*.jsonl") if is_of_earlier_rule(path)}
    for _, row in earlier.iterrows():
        assert row.dataset in {path.stem for path in studied}, (row.claim, row.dataset)


def is_of_earlier_rule(path):
    "Whether a file has lines that do not say how a training ended."
    rows = map(json.loads, path.read_text().splitlines())
    return any("method" in row and by_earlier_rule(row) for row in rows)


def test_no_line_of_the_tables_is_of_an_earlier_rule():
    assert LINES and not any(map(by_earlier_rule, LINES))


def test_gains_are_counted_over_the_mask_wherever_clips_lack_modalities_by_nature(claims):
    over_mask = claims[claims.claim.str.endswith("gains over the mask alone")]
    measured = over_mask.groupby("dataset").measured.count()
    incomplete = measured.index.isin(INCOMPLETE)
    assert incomplete.any() and (measured[incomplete] == 3).all()
    assert (measured[~incomplete] == 0).all()


def test_every_verdict_says_what_it_rests_on(claims):
    measured = claims[claims.measured.notna()]
    assert len(measured) > 150 and measured.p.between(0, 1).all()
    assert (measured.seeds >= 1).all() and measured.units.str.contains(
        "draws|folds|runs|one split"
    ).all()
    compared = ~measured.quantity.str.contains("median of|agreement")
    assert (measured.comparator[compared] != "").all() and measured.margin.notna().sum() > 20
    assert set(measured.rule) == {"interval", "non-inferiority", "equivalence"}
    chosen = measured[measured.quantity.str.contains("best dev score")]
    assert chosen.chosen.str.startswith("highest dev UA of").all() and len(chosen) > 3
    assert not chosen.comparator.str.contains("ramer|bayes|prior").any()


def test_the_correction_over_the_ledger_counts_a_corpus_once(claims):
    from scipy.stats import false_discovery_control

    counted = claims[claims.counts == claims.dataset]
    np.testing.assert_allclose(counted.q, false_discovery_control(counted.p), atol=1e-3)
    of_ravdess = counted[counted.dataset.str.startswith("ravdess")]
    assert not of_ravdess.claim.duplicated().any()
    decided = counted[counted.over_all != "undecided"]
    assert (decided.q < 0.05).all() and (decided.over_all == decided.verdict).all()
    assert len(decided) < (counted.verdict != "undecided").sum()  # some verdicts fall


def test_nothing_is_decided_by_a_run_that_collapsed():
    from ramer.report.claims import UNDECIDED, ledger

    gaussian = read_results(RESULTS)["gaussian"]
    fallen = [line | {"collapsed": line["fold"] == 3} for line in gaussian.lines["zero"]]
    rows = ledger({"gaussian": replace(gaussian, lines=gaussian.lines | {"zero": fallen})})
    against = rows[rows.quantity.str.contains("minus zero-fill")]
    of_runs = against[~against.reason.str.contains("study|speaker of its own|no run of")]
    assert len(of_runs) >= 3 and (of_runs.verdict == UNDECIDED).all()
    assert of_runs.reason.str.contains("zero collapsed in fold 3").all()
    assert (rows[rows.claim == "RAMER is better than MMIN"].verdict != UNDECIDED).all()


def rerun(method, folder, dataset="gaussian", condition="l"):
    "(a fresh line, the committed line) of fold 0 and seed 0."
    from ramer.runs.judging import judge_runs
    from ramer.runs.training import train_runs
    from ramer.runs.tuning import grid

    (config,) = grid(dataset, [method], [0], [0], RESULTS / "tuning")
    table = pd.DataFrame(LINES)
    same = (table.dataset == dataset) & (table.method == method) & (table.condition == condition)
    ((row,),) = np.nonzero((same & (table.fold == 0) & (table.seed == 0)).to_numpy())
    committed = LINES[row]
    train_runs([config], folder)
    again = judge_runs([config], condition, folder)[0]
    for name in ("config_hash", "data_hash", "mask_hash"):
        assert again[name] == committed[name], name
    return again, committed


@pytest.mark.parametrize("method", ["prior", "bayes"])
@pytest.mark.parametrize("dataset", ["gaussian", "prototypes"])
def test_what_is_not_trained_comes_out_as_committed_on_any_machine(dataset, method, tmp_path):
    again, committed = rerun(method, tmp_path, dataset)
    assert again["predicted"] == committed["predicted"]
    assert again["confusion"] == committed["confusion"]


@pytest.mark.parametrize("method", ["shaspec", pytest.param("ramer", marks=pytest.mark.slow)])
def test_what_is_trained_comes_out_within_the_committed_interval(method, tmp_path):
    "To the bit on the same processor; on another one rounding differs and training amplifies it."
    from ramer.report.comparison import compare_cell

    again, committed = rerun(method, tmp_path)
    published = read_results(RESULTS)["gaussian"]
    fresh = replace(published, lines={method: [again]})
    assert compare_cell(fresh, published, method, "l")["verdict"] in ("identical", "within")
    same = [ours == theirs for ours, theirs in zip(again["predicted"], committed["predicted"])]
    assert np.mean(same) > 0.75


def test_figures_and_tables_exist_for_every_set(table):
    for dataset in set(table.dataset):
        assert (RESULTS / "figures" / f"{dataset}.png").stat().st_size > 5000
    for name in ("differences", "calibration", "variants"):
        assert len(read_table(RESULTS, name))
