"""Clips that lack modalities by nature are learned from, stored and judged with what they have."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from method_kinds import CLASSICAL, COMPLETE_ONLY, NETWORKS, POOLED, RETRIEVING
from numpy.testing import assert_array_equal
from typer.testing import CliRunner

from ramer.cli import app
from ramer.conditions import (
    Condition,
    all_conditions,
    condition_mask,
    mask_codes,
    random_masks,
    within,
)
from ramer.data.clips import Clips
from ramer.data.datasets import load_dataset
from ramer.data.folders import Corpus, write_folder
from ramer.data.worlds import WORLDS, World, sample
from ramer.evaluation.audit import find_leaks
from ramer.evaluation.protocol import Protocol
from ramer.methods.pretraining import pretrain
from ramer.methods.registry import configure, load_method, make_method
from ramer.report.claims import ledger
from ramer.report.confidence import confidence_tables
from ramer.report.tables import conditions_table, differences_table
from ramer.runs.judging import judge_runs
from ramer.runs.results import collect, read_results
from ramer.runs.training import left_out, train_runs
from ramer.runs.tuning import grid

LEARNING = (
    *("prior", "zero", "mean", "distilled", *RETRIEVING, "ramer-whitened", "ramer-supervised"),
    *("ramer-gated", *POOLED, "average-momke", "gated-zero", "gated-cif-mmin"),
    *(*NETWORKS, *CLASSICAL, "availability"),
)


def fit(name, train, dev, **changes):
    return make_method(
        configure("gaussian", name, **{"epochs": 2, "gate_steps": 60} | changes)
    ).fit(train, dev)


def some_present(clips, seed, chance=0.7):
    "A random presence table, with some complete clips and none that has nothing."
    present = np.random.default_rng(seed).random((len(clips), len(clips.modalities))) < chance
    present[~present.any(1)] = True
    return present


def with_garbage(clips, present, garbage):
    "The clips as if they lacked what is not present, with garbage in its place."
    features = {}
    for i, (m, x) in enumerate(clips.features.items()):
        features[m] = np.where(present[:, [i]], x, garbage)
    return replace(clips, features=features, present=present)


def three_parts(*sizes):
    "Train, dev and new clips of the gaussian world, of these sizes."
    world = WORLDS["gaussian"]
    return [sample(world, n, seed, f"part{seed}-") for seed, n in enumerate(sizes, 1)]


@pytest.fixture(scope="module")
def world():
    return three_parts(160, 70, 40)


@pytest.fixture(scope="module")
def parts(world):
    return [clips.hide(some_present(clips, seed)) for seed, clips in enumerate(world[:2])]


def few(name, clips):
    "The clips that a method learns from here: trees take their time."
    return [part[:50] for part in clips] if "boosting" in name else clips


@pytest.fixture(scope="module")
def fitted(parts):
    "A method by name, fitted once on the parts that lack modalities."
    return lru_cache(lambda name: fit(name, *few(name, parts)))


@pytest.mark.parametrize("name", LEARNING)
def test_what_a_clip_lacks_never_matters(name, fitted, parts, world, tmp_path):
    method = fitted(name)
    new = world[2]
    mask = random_masks(len(new), 3, np.random.default_rng(0))
    answer = method.predict_proba(new, mask)
    assert np.isfinite(answer).all()
    for garbage in (np.nan, 1e6):
        pairs = zip(few(name, world), few(name, parts))
        spoiled = [with_garbage(clips, part.present, garbage) for clips, part in pairs]
        assert [part.hash() for part in spoiled] == [part.hash() for part in few(name, parts)]
    assert_array_equal(fit(name, *spoiled).predict_proba(new, mask), answer)
    lacking = new.hide(some_present(new, 5))
    everything = condition_mask("avl", len(new))  # a mask may claim more than a clip has
    answer_of_lacking = method.predict_proba(lacking, everything)
    assert_array_equal(answer_of_lacking, method.predict_proba(new, lacking.present))
    method.save(tmp_path / "model")
    loaded = load_method(tmp_path / "model")
    expected = method.predict_proba(lacking, lacking.present)
    assert_array_equal(loaded.predict_proba(lacking, lacking.present), expected)


@pytest.mark.parametrize("name", LEARNING)
def test_all_clips_are_learned_from_unless_a_method_needs_complete_ones(name, fitted, parts, world):
    train, dev = few(name, parts)
    new = world[2]
    mask = random_masks(len(new), 3, np.random.default_rng(0))
    method = fitted(name)
    answer = method.predict_proba(new, mask)
    assert bool(left_out(method, train)) == (name in COMPLETE_ONLY)
    of_complete = fit(name, train.complete(), dev.complete()).predict_proba(new, mask)
    if name in COMPLETE_ONLY:
        assert_array_equal(of_complete, answer)
    else:
        assert np.abs(of_complete - answer).max() > 1e-3


@pytest.mark.parametrize("name", ["zero", "ramer", "ramer-gated", "momke", "mmin", "knn"])
def test_a_presence_table_that_lacks_nothing_changes_nothing(name, world):
    train, dev, new = world
    mask = random_masks(len(new), 3, np.random.default_rng(0))
    tabled = [replace(clips, present=np.ones((len(clips), 3), bool)) for clips in (train, dev)]
    assert [clips.hash() for clips in tabled] == [train.hash(), dev.hash()]
    answer = fit(name, *tabled).predict_proba(new, mask)
    assert_array_equal(answer, fit(name, train, dev).predict_proba(new, mask))


def mean_accuracy(method, clips):
    "WA, averaged over all conditions."
    right = []
    for condition in all_conditions():
        answer = method.predict_proba(clips, condition_mask(condition, len(clips)))
        right.append((answer.argmax(1) == clips.labels).mean())
    return np.mean(right)


@pytest.mark.parametrize("name", ["zero", "ramer", "ramer-gated", "transformer", "logistic"])
def test_where_most_clips_lack_something_all_are_better_than_the_complete_ones(name):
    train, dev, new = three_parts(400, 100, 300)
    only_one = np.tile([True, False, False], (400, 1))
    shuffled = np.random.default_rng(0).permuted(only_one, axis=1)
    is_complete = np.arange(400) % 8 == 0
    lacking = train.hide(np.where(is_complete[:, None], True, shuffled))
    learned = {}
    for which, clips in {"all": lacking, "complete": lacking.complete()}.items():
        learned[which] = mean_accuracy(fit(name, clips, dev, epochs=8), new)
    assert learned["all"] > learned["complete"] + 0.02


@pytest.mark.parametrize("name", ["ramer", "random", "ramer-raw", "ramer-released"])
def test_a_slot_is_filled_by_clips_that_have_it_and_all_that_the_query_has(name, parts, world):
    train, dev = parts
    method = make_method(configure("gaussian", name, epochs=1))
    seen = []
    search = method.neighbours

    def listen(queries, code, ids=None, groups=None, also=()):
        hits = search(queries, code, ids, groups, also)
        seen.append((code, also, hits))
        return hits

    method.neighbours = listen
    method.fit(train, dev)
    in_training = len(seen)
    method.predict_proba(world[2], condition_mask("a", len(world[2])))
    assert in_training
    assert len(seen) == in_training + 2  # one search for each missing slot
    present = dict(zip(train.ids, train.present))
    for code, (also,), hits in seen:
        found = np.array([present[clip] for clip in hits.ids[hits.found]])
        assert found[:, "avl".index(also)].all()
        searched = found[:, Condition.from_code(code, "avl").mask]
        if name == "ramer-released":  # its policy uses one modality's list
            assert searched.any(1).all()
        elif name != "random":
            assert searched.all(1).all()
    store = method.store
    assert not store.present.all()
    assert (store.features["v"][~store.present[:, 1]] == 0).all()


def test_a_filter_judges_a_stored_clip_by_what_it_has(parts):
    train, dev = parts
    stage1 = pretrain(train, dev, configure("gaussian", "ramer", epochs=12))
    for keep in ("agreeing", "pure", "distinct", "confident"):
        method = make_method(configure("gaussian", "ramer", epochs=12, keep=keep), stage1)
        method.remember(train)
        store = method.store
        assert 0 < len(store) <= len(train)
        if keep == "agreeing":
            assert (store.present.sum(1) >= 2).all()


def test_only_clips_that_have_all_of_a_condition_can_be_explained_under_it(parts, world):
    lacking = world[2].hide(condition_mask("al", len(world[2])))
    for name in ("ramer", "ramer-gated"):
        method = fit(name, *parts)
        assert len(method.explain(lacking, "a").ids) == len(lacking)
        with pytest.raises(ValueError, match="lacks a part of condition 'av'"):
            method.explain(lacking, "av")


def test_a_modality_that_no_clip_has_and_a_method_that_needs_complete_clips_are_named(world):
    train, dev, _ = world
    no_face = [clips.hide(condition_mask("al", len(clips))) for clips in (train, dev)]
    one_each = [clips.hide(np.eye(3, dtype=bool)[np.arange(len(clips)) % 3]) for clips in world[:2]]
    with pytest.raises(ValueError, match="none of 160 clips to learn from has 'v'"):
        fit("zero", *no_face)
    none = (
        "none of 160 labelled clips has all modalities, and 'mmin' learns from complete clips only"
    )
    with pytest.raises(ValueError, match=none):
        fit("mmin", *one_each)
    never_seen_together = condition_mask("av", len(train))
    answer = fit("ramer", *one_each).predict_proba(train, never_seen_together)
    assert answer.shape == (160, 6)
    with pytest.raises(ValueError, match="of one class only, had all of 'av'"):
        fit("logistic", *one_each).predict_proba(train, never_seen_together)


@pytest.mark.parametrize("name", ["ramer", "ramer-gated", *POOLED, "logistic", "rbf", "knn"])
def test_a_modality_that_two_train_clips_have_is_learned_from(name, world):
    train, dev, new = world
    first = train[np.argsort(train.labels, kind="stable")]  # the two are of different classes
    has_face = np.isin(np.arange(len(first)), [0, len(first) - 1])
    present = np.stack([np.ones(len(first), bool), has_face, np.ones(len(first), bool)], 1)
    answer = fit(name, first.hide(present), dev).predict_proba(new, condition_mask("v", len(new)))
    assert np.isfinite(answer).all()
    with pytest.raises(ValueError, match="too few train clips, .* had all of 'v'"):
        fit("lda", first.hide(present), dev).predict_proba(new, condition_mask("v", len(new)))


def test_what_is_left_of_a_drawn_condition_is_never_empty_and_never_more_than_there_is():
    rng = np.random.default_rng(0)
    present = rng.random((500, 4)) < 0.4
    present[~present.any(1)] = True
    left = within(random_masks(500, 4, rng), present)
    assert left.any(1).all()
    assert not (left & ~present).any()
    assert len(np.unique(mask_codes(left[present.all(1)]))) > 5


@pytest.fixture
def folder(tmp_path, monkeypatch):
    "A user's data set in which three of five clips lack a modality, and two lack everything."
    monkeypatch.setenv("RAMER_DATA", str(tmp_path / "data"))
    world = World("mine", dims=dict.fromkeys("avl", 8), signal=dict.fromkeys("avl", 1.0))
    clips = sample(world, 200, 0)
    groups = [f"p{i // 10}" for i in range(200)]
    grouped = Clips(clips.ids, clips.features, clips.labels, clips.classes, groups)
    present = ~(np.arange(200)[:, None] % 5 == [[0, 1, 2]])
    present[[7, 8]] = False
    corpus = Corpus(grouped.hide(present), fold=np.arange(200) // 100)
    write_folder(corpus, tmp_path / "data" / "mine")
    return tmp_path


def judged_rows(line, condition, dataset):
    "Which test clips of a line's fold have all of the condition: (N,) bool."
    _, test = dataset.parts(line["fold"])
    if condition == "as-it-is":
        return np.full(len(test), True)
    return (test.present | ~condition_mask(condition, 1)).all(1)


def test_a_folder_whose_clips_lack_modalities_is_run_judged_and_tabled(folder):
    chosen = load_dataset("mine")
    note = "your own; 119 of 198 clips lack a modality; 2 clips that have none are left out"
    assert chosen.note == note
    configs = grid("mine", ["zero", "ramer", "mmin"], [0, 1], [0], epochs=2)
    train_runs(configs, folder / "runs")
    conditions = Protocol(chosen).conditions
    assert conditions == [*all_conditions(), "as-it-is"]
    for condition in conditions:
        for line in judge_runs(configs, condition, folder / "runs"):
            judged = judged_rows(line, condition, chosen)
            assert line.get("judged", len(judged)) == judged.sum() == np.sum(line["confusion"])
            is_left_out = [predicted == "-" for predicted in line["predicted"]]
            assert is_left_out == (~judged).tolist()
    collect(folder / "runs", folder / "results")
    results = read_results(folder / "results")
    table = conditions_table(results).query("metric == 'WA' and method == 'ramer'")
    table = table.set_index("condition")
    is_complete = np.concatenate([chosen.parts(fold)[1].present.all(1) for fold in (0, 1)])
    assert table.n["as-it-is"] == 198
    assert table.n["avl"] == is_complete.sum()
    assert table["mean"].notna().all()
    assert np.isnan(table.lacks["as-it-is"] or np.nan)
    incomplete = list(all_conditions())[:-1]
    assert np.isclose(table["mean"]["missing"], table["mean"][incomplete].mean())
    assert set(differences_table(results).condition) == {*conditions, "missing"}
    assert len(confidence_tables(results)["reliability"])
    assert len(ledger(results))


def test_a_run_from_the_command_line_names_the_clips_that_it_leaves_out(folder):
    command = ["run", "--dataset", "mine", "--method", "mmin", "--runs", str(folder / "cli")]
    done = CliRunner().invoke(app, [*command, "--set", '{"epochs": 1}'])
    assert done.exit_code == 0
    reason = "lack a modality and were left out, because mmin learns from what it declares missing"
    assert reason in done.stderr
    _, test = load_dataset("mine").parts(0)
    assert f"{len(test.complete())} of {len(test)} clips, which have all of it" in done.stdout


def test_copies_of_clips_that_lack_a_modality_are_found(world):
    train, _, test = world
    lacking = test.hide(condition_mask("al", len(test)))
    copied = Clips(
        [*train.ids, *(f"copy of {clip}" for clip in test.ids)],
        {m: np.concatenate([train.features[m], x]) for m, x in test.features.items()},
        [*train.labels, *test.labels],
        train.classes,
    )
    found = [(finding.name, finding.clips) for finding in find_leaks(copied, lacking)]
    assert found == [("same-features", len(test))]
    assert find_leaks(train.hide(condition_mask("al", len(train))), lacking) == []
