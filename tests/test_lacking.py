"""Clips that really lack a modality are learned from and judged with what they have, and nobody looks at the rest."""
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from ramer.conditions import all_conditions, condition_mask, mask_codes, random_masks, within
from ramer.controls import configure, load_method, make_method
from ramer.data import Clips
from ramer.experiment import left_out
from ramer.folders import Corpus, write_folder
from ramer.training import pretrain
from ramer.worlds import WORLDS, World, sample

LEARNING = ("prior", "zero", "mean", "distilled", "store-mean", "random", "ramer", "ramer-raw", "ramer-whitened", "ramer-supervised", "ramer-released", "ramer-e2e", "ae", "cra", "mmin", "if-mmin",
            "cif-mmin", "ae-lineage", "transformer", "shaspec", "momke", "m3care", "logistic", "knn", "impute-logistic", "impute-boosting", "boosting")
COMPLETE_ONLY = ("ae", "cra", "mmin", "if-mmin", "cif-mmin", "ae-lineage")


def fit(name, train, dev, **changes):
    return make_method(configure("gaussian", name, **{"epochs": 2} | changes)).fit(train, dev)


def some_have(clips, seed, chance=.7):
    "A table of who has what, with some complete clips and none that has nothing."
    here = np.random.default_rng(seed).random((len(clips), len(clips.modalities))) < chance
    here[~here.any(1)] = True
    return here


def with_garbage(clips, here, garbage):
    "The clips as if they lacked what is not here, with garbage in its place."
    return replace(clips, features={m: np.where(here[:, [i]], x, garbage) for i, (m, x) in enumerate(clips.features.items())}, here=here)


@pytest.fixture(scope="module")
def world(): return [sample(WORLDS["gaussian"], n, seed, f"part{seed}-") for seed, n in ((1, 160), (2, 70), (3, 40))]


@pytest.fixture(scope="module")
def parts(world): return [clips.hide(some_have(clips, seed)) for seed, clips in enumerate(world[:2])]


@pytest.mark.parametrize("name", LEARNING)
def test_what_is_not_there_never_matters_and_the_rest_is_learned_from(name, parts, world, tmp_path):
    if "boosting" in name: parts, world = [part[:50] for part in parts], [clips[:50] for clips in world]                            # trees take their time
    (train, dev), new = parts, world[2]
    mask = random_masks(len(new), 3, np.random.default_rng(0))
    method = fit(name, train, dev)
    answer = method.predict_proba(new, mask)
    assert np.isfinite(answer).all()
    for garbage in (np.nan, 1e6):
        spoiled = [with_garbage(clips, part.here, garbage) for clips, part in zip(world, parts)]
        assert [part.hash() for part in spoiled] == [part.hash() for part in parts]
    assert_array_equal(fit(name, *spoiled).predict_proba(new, mask), answer)
    lacking = new.hide(some_have(new, 5))
    assert_array_equal(method.predict_proba(lacking, condition_mask("avl", len(new))), method.predict_proba(new, lacking.here))     # a mask may claim more than a clip has
    method.save(tmp_path/"model")
    assert_array_equal(load_method(tmp_path/"model").predict_proba(lacking, lacking.here), method.predict_proba(lacking, lacking.here))
    assert bool(left_out(method, train)) == (name in COMPLETE_ONLY)
    whole = fit(name, train.complete(), dev.complete())
    if name in COMPLETE_ONLY: assert_array_equal(whole.predict_proba(new, mask), answer)
    else: assert np.abs(whole.predict_proba(new, mask) - answer).max() > 1e-3


@pytest.mark.parametrize("name", ["zero", "ramer", "ramer-e2e", "momke", "mmin", "knn"])
def test_saying_that_nothing_is_lacking_changes_nothing(name, world):
    train, dev, new = world
    mask, said = random_masks(len(new), 3, np.random.default_rng(0)), [replace(c, here=np.ones((len(c), 3), bool)) for c in (train, dev)]
    assert [c.hash() for c in said] == [train.hash(), dev.hash()]
    assert_array_equal(fit(name, *said).predict_proba(new, mask), fit(name, train, dev).predict_proba(new, mask))


@pytest.mark.parametrize("name", ["zero", "ramer", "ramer-e2e", "transformer", "logistic"])
def test_where_most_clips_lack_something_all_are_better_than_the_whole_ones(name):
    train, dev, new = (sample(WORLDS["gaussian"], n, seed, f"part{seed}-") for seed, n in ((1, 400), (2, 100), (3, 300)))
    here = np.where((np.arange(400) % 8 == 0)[:, None], True, np.random.default_rng(0).permuted(np.tile([True, False, False], (400, 1)), axis=1))
    lacking = train.hide(here)
    def accuracy(part):
        method = fit(name, part, dev, epochs=15)
        return np.mean([(method.predict_proba(new, condition_mask(c, len(new))).argmax(1) == new.labels).mean() for c in all_conditions()])
    assert accuracy(lacking) > accuracy(lacking.complete()) + .02


@pytest.mark.parametrize("name", ["ramer", "random", "ramer-raw", "ramer-released"])
def test_a_slot_is_filled_by_clips_that_have_it_and_all_that_was_asked_with(name, parts, world):
    train, dev = parts
    method, seen = make_method(configure("gaussian", name, epochs=1)), []
    search = method.neighbours

    def listen(queries, code, ids=None, groups=None, also=()):
        hits = search(queries, code, ids, groups, also)
        seen.append((code, also, hits))
        return hits

    method.neighbours = listen
    method.fit(train, dev)
    fits = len(seen)
    method.predict_proba(world[2], condition_mask("a", len(world[2])))
    assert fits and len(seen) == fits + 2                                           # one search for each missing slot
    here = dict(zip(train.ids, train.here))
    for code, (also,), hits in seen:
        found = np.array([here[name] for name in hits.ids[hits.found]])
        asked = found[:, [i for i in range(3) if code >> i & 1]]
        assert found[:, "avl".index(also)].all() and (name == "random" or (asked.any(1) if name == "ramer-released" else asked.all(1)).all())     # the released policy trusts one modality's list
    assert not method.store.here.all() and (method.store.features["v"][~method.store.here[:, 1]] == 0).all()


def test_a_filter_judges_a_stored_clip_by_what_it_has(parts):
    train, dev = parts
    stage1 = pretrain(train, dev, configure("gaussian", "ramer", epochs=12))
    for keep in ("agreeing", "pure", "distinct", "confident"):
        method = make_method(configure("gaussian", "ramer", epochs=12, keep=keep), stage1)
        method.remember(train)
        store = method.store
        assert 0 < len(store) <= len(train)
        if keep == "agreeing": assert (store.here.sum(1) >= 2).all()


def test_only_clips_that_have_all_of_a_condition_can_be_explained_under_it(parts, world):
    lacking = world[2].hide(condition_mask("al", len(world[2])))
    for name in ("ramer", "ramer-e2e"):
        method = fit(name, *parts)
        assert len(method.explain(lacking, "a").ids) == len(lacking)
        with pytest.raises(ValueError, match="lacks a part of condition 'av'"): method.explain(lacking, "av")


def test_a_modality_that_nobody_has_and_a_method_that_needs_whole_clips_are_said_in_a_sentence(world):
    train, dev, _ = world
    nobody, apart = (clips.hide(condition_mask("al", len(clips))) for clips in (train, dev)), [clips.hide(np.arange(len(clips))[:, None] % 3 == [[0, 1, 2]]) for clips in (train, dev)]
    with pytest.raises(ValueError, match="none of 160 clips to learn from has 'v'"): fit("zero", *nobody)
    with pytest.raises(ValueError, match="none of 160 labelled clips has all modalities, and 'mmin' learns from complete clips only"): fit("mmin", *apart)
    assert fit("ramer", *apart).predict_proba(train, condition_mask("av", len(train))).shape == (160, 6)        # modalities that were never seen together
    with pytest.raises(ValueError, match="no train clips of two classes had all of 'av'"): fit("logistic", *apart).predict_proba(train, condition_mask("av", len(train)))


def test_what_is_left_of_a_drawn_condition_is_never_empty_and_never_more_than_there_is():
    rng = np.random.default_rng(0)
    here = rng.random((500, 4)) < .4
    here[~here.any(1)] = True
    left = within(random_masks(500, 4, rng), here)
    assert left.any(1).all() and not (left & ~here).any() and len(np.unique(mask_codes(left[here.all(1)]))) > 5


@pytest.fixture
def folder(tmp_path, monkeypatch):
    "A data set of one's own in which three of five clips lack a modality, and two lack everything."
    monkeypatch.setenv("RAMER_DATA", str(tmp_path/"data"))
    clips = sample(World("mine", dims=dict.fromkeys("avl", 8), signal=dict.fromkeys("avl", 1.)), 200, 0)
    here = ~(np.arange(200)[:, None] % 5 == [[0, 1, 2]])
    here[[7, 8]] = False
    write_folder(Corpus(Clips(clips.ids, clips.features, clips.labels, clips.classes, [f"p{i // 10}" for i in range(200)]), here, fold=np.arange(200) // 100), tmp_path/"data"/"mine")
    return tmp_path


def test_a_folder_whose_clips_lack_modalities_is_run_judged_and_tabled(folder):
    from typer.testing import CliRunner

    from ramer.cli import app
    from ramer.claims import ledger
    from ramer.experiment import collect, grid, judge_runs, train_runs
    from ramer.protocol import Protocol, load_dataset
    from ramer.report import conditions_table, confidence_tables, differences_table, read_results
    chosen = load_dataset("mine")
    assert chosen.note == "your own; 119 of 198 clips lack a modality; 2 clips that have none are left out"
    configs = grid("mine", ["zero", "ramer", "mmin"], [0, 1], [0], epochs=2)
    train_runs(configs, folder/"runs")
    conditions = Protocol(chosen).conditions
    assert conditions == [*all_conditions(), "as-it-is"]
    for condition in conditions:
        for line in judge_runs(configs, condition, folder/"runs"):
            test = chosen.parts(line["fold"])[1]
            asked = [m in condition for m in "avl"] if condition != "as-it-is" else [False] * 3
            judged = (test.here | ~np.array(asked)).all(1)
            assert line.get("judged", len(test)) == judged.sum() == np.sum(line["confusion"])
            assert [c == "-" for c in line["predicted"]] == (~judged).tolist()
    collect(folder/"runs", folder/"results")
    results = read_results(folder/"results")
    table = conditions_table(results).query("metric == 'WA' and method == 'ramer'").set_index("condition")
    whole = np.concatenate([chosen.parts(fold)[1].here.all(1) for fold in (0, 1)])
    assert table.n["as-it-is"] == 198 and table.n["avl"] == whole.sum() and table["mean"].notna().all() and np.isnan(table.lacks["as-it-is"] or np.nan)
    assert np.isclose(table["mean"]["missing"], table["mean"][list(all_conditions())[:-1]].mean())
    assert set(differences_table(results).condition) == {*conditions, "missing"} and len(confidence_tables(results)["reliability"]) and len(ledger(results))
    said = CliRunner().invoke(app, ["run", "--dataset", "mine", "--method", "mmin", "--runs", str(folder/"cli"), "--set", '{"epochs": 1}'])
    assert said.exit_code == 0 and "lack a modality and were left out, because mmin learns from what it declares missing" in said.stderr
    assert f"{len(chosen.parts(0)[1].complete())} of {len(chosen.parts(0)[1])} clips, which have all of it" in said.stdout


def test_copies_of_clips_that_lack_a_modality_are_found(world):
    from ramer.protocol import find_leaks
    train, _, test = world
    lacking = test.hide(condition_mask("al", len(test)))
    copied = Clips([*train.ids, *(f"copy of {i}" for i in test.ids)], {m: np.concatenate([train.features[m], x]) for m, x in test.features.items()}, [*train.labels, *test.labels], train.classes)
    assert [(f.name, f.clips) for f in find_leaks(copied, lacking)] == [("same-features", len(test))]
    assert find_leaks(train.hide(condition_mask("al", len(train))), lacking) == []
