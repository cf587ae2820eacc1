"""Nothing that is judged is learned from, and nobody finds itself."""
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from ramer.conditions import random_masks
from ramer.controls import METHODS, configure, make_method
from ramer.data import Scaler
from ramer.experiment import judge_run, train_run
from ramer.fills import Method
from ramer.protocol import DATASETS, Protocol, find_leaks, load_dataset
from ramer.training import OPTIONS, pretrain
from ramer.worlds import WORLDS, sample

RETRIEVING = ("store-mean", "random", "ramer", "ramer-raw", "ramer-medium", "ramer-large", "ramer-turbo", "ramer-released")
VECTORS = ("ae", "cra", "mmin", "if-mmin", "cif-mmin", "ae-lineage", "transformer", "shaspec", "momke", "m3care", "logistic", "knn", "impute-logistic", "boosting")
ANSWERING = ("prior", "zero", "mean", "distilled", *RETRIEVING, *VECTORS, "bayes")


class Spy(Method):
    "Answers with equal probabilities and keeps what it was given."
    given, parameters = {}, 0

    def fit(self, train, dev):
        self.given.update(train=train, dev=dev, asked={})
        return self

    def predict_proba(self, clips, mask):
        self.given["asked"]["".join(np.array(clips.modalities)[mask[0]])] = clips, mask
        return np.full((len(clips), len(clips.classes)), 1 / len(clips.classes))

    def state(self): return {}, {}

    def restore(self, tensors, facts, folder): pass


@lru_cache
def dataset(name):
    try: return load_dataset(name)
    except FileNotFoundError: pytest.skip(f"the files of {name!r} are not here")


@lru_cache
def fold(name, number=0, seed=0): return dataset(name).parts(number), Protocol(dataset(name), number, seed)


@lru_cache
def spied(name):
    "What a method sees of fold 0 under every condition, and the clips it is judged on."
    (_, test), protocol = fold(name)
    spy = Spy(None).fit(protocol.train, protocol.dev)
    for condition in protocol.conditions: protocol.judge(spy.predict_proba, condition)
    return dict(spy.given), test


def share(a, b): return bool(set(a) & set(b))


@pytest.mark.parametrize("name", DATASETS)
def test_fit_sees_no_test_clip_and_no_test_group(name):
    seen, test = spied(name)
    for part in (seen["train"], seen["dev"]): assert not share(part.ids, test.ids) and not share(part.groups, test.groups)


@pytest.mark.parametrize("name", DATASETS)
def test_predict_sees_no_label_and_nothing_of_a_missing_modality(name):
    seen, test = spied(name)
    assert len(seen["asked"]) == 2 ** len(test.modalities) - 1
    for condition, (clips, mask) in seen["asked"].items():
        assert (clips.labels == -1).all() and set(clips.features) == set(test.features)
        for m, available in zip(clips.modalities, mask.all(0)):
            assert_array_equal(clips.features[m], test.features[m] if available else 0, err_msg=f"{m} under {condition}")


@pytest.mark.parametrize("name", DATASETS)
def test_no_id_group_or_feature_is_in_two_parts(name):
    for k in range(2):
        (_, test), protocol = fold(name, k, seed=k)
        found = [*find_leaks(protocol.train, test), *find_leaks(protocol.dev, test), *find_leaks(protocol.train, protocol.dev)]
        assert {f.name for f in found} <= ({"extractor-v"} if name == "mosi" else set()) and not protocol.leaks, found


@pytest.mark.parametrize("name", DATASETS)
def test_every_clip_is_tested_once_over_the_folds(name):
    "Rotations test every clip; the folds of a world are draws, of which no two share a clip."
    parts = [dataset(name).parts(k) for k in range(dataset(name).folds if name not in WORLDS else 2)]
    tested, every = np.concatenate([test.ids for _, test in parts]), np.concatenate([p.ids for pair in parts for p in pair])
    assert len(set(tested)) == len(tested)
    assert name in WORLDS or set(tested) == set(every)


def test_a_whole_run_hands_on_what_the_protocol_does_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "spy", (Spy, {}))
    config, (_, protocol), (expected, _) = configure("gaussian", "spy"), fold("gaussian"), spied("gaussian")
    train_run(config, protocol, tmp_path, {})
    for condition in ("l", "av"):
        judge_run(config, condition, protocol, tmp_path)
        assert Spy.given["asked"][condition][0].hash() == expected["asked"][condition][0].hash()
    assert [Spy.given[part].hash() for part in ("train", "dev")] == [expected[part].hash() for part in ("train", "dev")]


@pytest.fixture(scope="module")
def parts():
    "Train clips of 20 people, the last 40 clips unlabelled, and dev clips."
    train, dev = fold("gaussian")[1].train[:140], fold("gaussian")[1].dev[:50]
    people = [f"person{i % 20}" for i in range(len(train))]
    return replace(train, groups=people, labels=np.where(np.arange(len(train)) < 100, train.labels, -1)), dev


@pytest.fixture(scope="module")
def stage1(parts): return pretrain(*parts, configure("gaussian", "ramer", epochs=1))


STILL = {"dropout": 0., "learning_rate": 1e-12}      # encoders in training answer as before it


@pytest.fixture(scope="module")
def still(parts): return pretrain(*parts, configure("gaussian", "ramer", epochs=1, dropout=0.))


@pytest.fixture(scope="module")
def fit(parts, stage1):
    "Fit a method for one epoch on the parts, once for each name."
    share_it = lambda name: None if name == "ramer-released" else stage1
    return lru_cache(lambda name: make_method(configure("gaussian", name, epochs=1), share_it(name)).fit(*parts))


@pytest.fixture(scope="module")
def clips(): return sample(WORLDS["gaussian"], 30, seed=2, prefix="test")


@pytest.fixture(scope="module")
def mask(): return random_masks(30, 3, np.random.default_rng(0))


@pytest.mark.parametrize("name", RETRIEVING)
def test_the_store_holds_train_clips_only(name, fit, parts):
    store, (train, dev) = fit(name).store, parts
    assert len(store) and set(store.ids) <= set(train.ids) and not share(store.ids, dev.ids)
    rows = train.labels >= 0 if name not in ("ramer-medium", "ramer-large", "ramer-turbo") else train.labels >= -1
    assert set(store.ids) <= set(train.ids[rows])


@pytest.mark.parametrize("name", ANSWERING)
def test_answers_depend_on_no_label_id_or_group_of_what_is_asked(name, fit, parts, clips, mask):
    answer, method, order = fit(name).predict_proba(clips, mask), fit(name), np.random.default_rng(0).permutation(30)
    known = parts[0][:30]                                                              # ids and groups that the store holds
    changes = {"labels": clips.labels[order]}, {"labels": 5 - clips.labels}, {"groups": known.groups}, {"ids": known.ids}
    for change in changes:
        assert_array_equal(method.predict_proba(replace(clips, **change), mask), answer)


@pytest.mark.parametrize("name", ANSWERING)
def test_other_test_clips_do_not_change_an_answer(name, fit, clips, mask):
    far = {m: np.where(np.arange(30)[:, None] < 10, x, 50 * x[::-1] + 7) for m, x in clips.features.items()}
    assert_array_equal(fit(name).predict_proba(clips.with_features(**far), mask)[:10], fit(name).predict_proba(clips, mask)[:10])


@pytest.mark.parametrize("name", [n for n in ANSWERING if n not in ("prior", "bayes")])
def test_the_scaler_is_that_of_the_labelled_train_clips(name, fit, parts):
    expected, method = Scaler.fit(parts[0].labelled()), fit(name)
    scaler = method.scaler if name in VECTORS else method.stage1.scaler
    for m in parts[0].modalities:
        assert_array_equal(scaler.mean[m], expected.mean[m])
        assert_array_equal(scaler.deviation[m], expected.deviation[m])


def training_hits(train, dev, stage1, name="ramer", **changes):
    "What fitting retrieved for its own train clips: [(code, their ids, their groups, ids of their hits)]."
    found, method = [], make_method(configure("gaussian", name, epochs=1, batch=40, **changes), stage1)
    search = method.neighbours

    def listen(queries, code, ids=None, groups=None):
        hits = search(queries, code, ids, groups)
        if ids is not None: found.append((code, ids, groups, hits.ids))
        return hits

    method.neighbours = listen
    method.fit(train, dev)
    return found


def itself(ids, hits): return (hits == ids[:, None]).any(1)


def its_group(groups, hits, train):
    "Whether a query found a clip of its own group. groups: (B,), hits: (B, K) ids."
    group = dict(zip(train.ids, train.groups)) | {"": None}
    return np.array([[group[i] == g for i in row] for row, g in zip(hits, groups)]).any(1)


@pytest.mark.parametrize("name, query", [("ramer", "stage1"), ("ramer", "live"), ("ramer-raw", "stage1"), ("random", "stage1")])
@pytest.mark.parametrize("policy", OPTIONS["policy"])
def test_no_train_clip_finds_itself_or_its_group(policy, name, query, parts, stage1):
    found = training_hits(*parts, stage1, name, policy=policy, query=query)
    for code, ids, groups, hits in found: assert not itself(ids, hits).any() and not its_group(groups, hits, parts[0]).any(), code
    asked = np.concatenate([ids for _, ids, _, _ in found])
    assert set(asked) <= set(parts[0].labelled().ids) and {code for code, *_ in found} == set(range(1, 7))
    assert len(asked) == 100 * 6 if query == "stage1" else len(asked) > 70     # every condition in a table, or one for each clip


@pytest.mark.parametrize("policy", OPTIONS["policy"])
def test_excluding_the_id_leaves_the_group_to_be_found(policy, parts, stage1):
    found = training_hits(*parts, stage1, policy=policy, exclude="id")
    assert not any(itself(ids, hits).any() for _, ids, _, hits in found)
    assert any(its_group(groups, hits, parts[0]).any() for _, _, groups, hits in found)


@pytest.mark.parametrize("query", OPTIONS["query"])
@pytest.mark.parametrize("policy", OPTIONS["policy"])
def test_with_nothing_excluded_a_train_clip_finds_itself(policy, query, parts, still):
    "So the ids that go with the queries are theirs, in training too."
    found = training_hits(*parts, still, policy=policy, query=query, exclude="none", **STILL)
    assert found and all(itself(ids, hits).all() for _, ids, _, hits in found)


def test_an_excluding_search_still_finds_k_clips(parts, stage1):
    for _, _, _, hits in training_hits(*parts, stage1, k=7): assert hits.shape[1] == 7 and (hits != "").all()


def test_dropping_the_first_hit_as_released_may_leave_the_clip_itself(parts, stage1):
    "Where two train clips have the same features, the first hit may be the other one: why ids and groups are excluded instead."
    train, dev = parts
    twins = replace(train, features={m: x[np.arange(len(x)) // 2 * 2] for m, x in train.features.items()})
    stage1 = replace(stage1, learned_from=twins.labelled().hash())
    assert any(itself(ids, hits).any() for _, ids, _, hits in training_hits(twins, dev, stage1, exclude="first"))
    assert not any(itself(ids, hits).any() for _, ids, _, hits in training_hits(twins, dev, stage1))


def test_a_query_at_test_time_may_find_anyone(fit, parts):
    "Exclusion is for training: asked about a stored clip, a fitted method finds it."
    train = parts[0].labelled()
    assert itself(train.ids, fit("ramer").explain(train, "l").ids).all()


def test_a_leak_stops_a_run_and_if_allowed_marks_its_every_line(tmp_path, monkeypatch):
    "A folder whose unlabelled clips are its test clips under other groups."
    from ramer.data import Clips
    from ramer.experiment import collect, grid, judge_runs, train_runs
    from ramer.folders import Corpus, write_folder
    from ramer.report import conditions_table, read_results, show_table
    rng, n = np.random.default_rng(0), 80
    x = {m: rng.normal(size=(n, 3)) for m in "al"}
    twice = {m: np.concatenate([v, v[60:]]) for m, v in x.items()}
    clips = Clips([*(f"c{i}" for i in range(n)), *(f"again{i}" for i in range(60, n))], twice, [*(np.arange(n) % 2), *[-1] * 20], ("calm", "glad"), [*(f"p{i // 4}" for i in range(n)), *["pool"] * 20])
    monkeypatch.setenv("RAMER_DATA", str(tmp_path/"data"))
    write_folder(Corpus(clips, split=["train"] * 60 + ["test"] * 20 + ["unlabelled"] * 20), tmp_path/"data"/"mine")
    with pytest.raises(ValueError, match="20 of 20 test clips have the features of a clip that is learned from"): train_runs(grid("mine", ["prior"], [0], [0]), tmp_path/"runs")
    assert not (tmp_path/"runs").exists()
    configs = grid("mine", ["prior", "knn"], [0], [0], allow_leak="same-features")
    train_runs(configs, tmp_path/"runs")
    for condition in ("a", "l", "al"): assert all(line["leaky"] == "same-features" for line in judge_runs(configs, condition, tmp_path/"runs"))
    collect(tmp_path/"runs", tmp_path)
    table = conditions_table(read_results(tmp_path))
    assert set(table.method) == {"prior (leaky: same-features)", "knn (leaky: same-features)"} and table.leaky.all() and "(leaky: same-features)" in show_table(table)
