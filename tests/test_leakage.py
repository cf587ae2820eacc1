"""No clip that is judged is learned from, and no train clip finds itself."""

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pytest
from method_kinds import CLASSICAL, NETWORKS, POOLED, RETRIEVING
from numpy.testing import assert_array_equal

from ramer.conditions import all_conditions, condition_name, random_masks
from ramer.data.clips import Clips, Scaler
from ramer.data.datasets import DATASETS, data_root, load_dataset
from ramer.data.folders import Corpus, write_folder
from ramer.data.worlds import WORLDS, sample
from ramer.evaluation.audit import find_leaks
from ramer.evaluation.protocol import AS_IT_IS, Protocol
from ramer.methods.base import Method
from ramer.methods.config import OPTIONS
from ramer.methods.pretraining import pretrain
from ramer.methods.registry import METHODS, configure, make_method
from ramer.report.tables import conditions_table, show_table
from ramer.runs.judging import judge_run, judge_runs
from ramer.runs.results import collect, read_results
from ramer.runs.training import train_run, train_runs
from ramer.runs.tuning import grid

STORING = (*RETRIEVING, "ramer-medium", "ramer-large", "ramer-turbo")
VECTORS = (*NETWORKS, *CLASSICAL)
OURS = ("ramer-gated", *POOLED)
ANSWERING = ("prior", "zero", "mean", "distilled", *STORING, *VECTORS, *OURS, "bayes")


LACKING = {"stressid", "twitter-absa-2015", "twitter-absa-2017"}  # modalities, by nature
KNOWN = {
    "stressid": {"availability"},  # which modalities there are tells the kind of task
    "mosi": {"extractor-v"},
    "twitter-absa-2015": {"one-feature"},  # "a man in a suit" is the caption of many images
    # and one dev tweet has the text of a train tweet and the caption of another
    "twitter-absa-2017": {"one-feature", "same-features"},
}


class Spy(Method):
    "Answers with equal probabilities and keeps what it was given."

    given = {}
    parameters = 0

    def fit(self, train, dev):
        self.given.update(train=train, dev=dev, judged={})
        return self

    def predict_proba(self, clips, mask):
        same = (mask == mask[0]).all()
        condition = condition_name(np.array(clips.modalities)[mask[0]]) if same else AS_IT_IS
        self.given["judged"][condition] = (clips, mask)
        return np.full((len(clips), len(clips.classes)), 1 / len(clips.classes))

    def state(self):
        return {}, {}

    def restore(self, tensors, facts, folder):
        pass


@lru_cache
def dataset(name):
    try:
        return load_dataset(name)
    except FileNotFoundError:
        pytest.skip(f"the files of {name!r} are not present")


@lru_cache
def fold(name, number=0, seed=0):
    return dataset(name).parts(number), Protocol(dataset(name), number, seed)


@lru_cache
def spied(name):
    "What a method receives of fold 0 under every condition, and the clips it is judged on."
    (_, test), protocol = fold(name)
    spy = Spy(None).fit(protocol.train, protocol.dev)
    judged = {c: protocol.judge(spy.predict_proba, c) for c in protocol.conditions}
    shown = {c: np.flatnonzero(p.among)[p.order] for c, p in judged.items()}
    return dict(spy.given, shown=shown), test


def overlap(a, b):
    return bool(set(a) & set(b))


@pytest.mark.parametrize("name", DATASETS)
def test_fit_sees_no_test_clip_and_no_test_group(name):
    seen, test = spied(name)
    for part in (seen["train"], seen["dev"]):
        assert not overlap(part.ids, test.ids)
        assert not overlap(part.groups, test.groups)


@pytest.mark.parametrize("name", DATASETS)
def test_predict_sees_no_label_and_nothing_of_a_missing_modality(name):
    seen, test = spied(name)
    lacking = {AS_IT_IS} if name in LACKING else set()
    assert set(seen["judged"]) == set(all_conditions(test.modalities)) | lacking
    for condition, (clips, mask) in seen["judged"].items():
        assert (clips.labels == -1).all()
        assert not overlap(clips.ids, test.ids)
        assert not overlap(clips.groups, test.groups)
        assert set(clips.features) == set(test.features)
        rows = seen["shown"][condition]
        for m, available in zip(clips.modalities, mask.any(0)):
            expected = test.features[m][rows] if available else 0
            assert_array_equal(clips.features[m], expected, err_msg=f"{m} under {condition}")


@pytest.mark.parametrize("name", DATASETS)
def test_no_id_group_or_feature_is_in_two_parts(name):
    for k in range(min(2, dataset(name).folds)):
        (_, test), protocol = fold(name, k, seed=k)
        found = find_leaks(protocol.train, test)
        found += find_leaks(protocol.dev, test)
        found += find_leaks(protocol.train, protocol.dev)
        assert {finding.name for finding in found} <= KNOWN.get(name, set()), found
        assert not protocol.leaks


def raw_columns(name):
    "The columns of a file of features."
    try:
        return np.load(data_root() / f"{name}.npz")
    except FileNotFoundError:
        pytest.skip(f"{name}.npz is not present")


def raw(name):
    "(learnable, test) of a fold, straight from a file of features that no loader is asked for."
    columns = raw_columns(name)
    known, names = RAW[name]
    features = {m: columns[column].astype(np.float32) for m, column in known.items()}
    ids, groups = (columns[column].astype(str) for column in names)
    present = columns["here"] if "here" in columns else None
    clips = Clips(ids, features, columns["y"], columns["class_names"], groups, present=present)
    is_test = columns["fold"] == 0
    return clips[~is_test], clips[is_test]


RAW = {
    "crema_d_votes": ({"a": "A", "v": "V"}, ("name", "actor")),
    "stressid": ({"a": "A", "v": "V", "p": "P"}, ("name", "subject")),
    "twitter_absa": ({"l": "L", "c": "C", "v": "V"}, ("row", "group")),
}
BY_NATURE = {
    "mosi": {"extractor-v"},
    "stressid": {"availability"},
}  # found where nothing is planted


@lru_cache
def two_parts(name):
    if name == "twitter_absa":  # its two years number their rows alike
        learnable, test = raw_twitter()
    else:
        learnable, test = raw(name) if name in RAW else fold(name)[0]
    return learnable, test


def raw_twitter():
    columns = raw_columns("twitter_absa")
    rows = np.flatnonzero(columns["year"] == 2017)
    features = {m: columns[c][rows].astype(np.float32) for m, c in RAW["twitter_absa"][0].items()}
    groups, present = columns["group"][rows].astype(str), columns["here"][rows]
    labels, classes = columns["y"][rows], columns["class_names"]
    clips = Clips(rows.astype(str), features, labels, classes, groups, present=present)
    is_test = columns["fold"][rows] == 0
    return clips[~is_test], clips[is_test]


def with_copies(learnable, test, change, n=60):
    "The learnable clips and n of the test clips, changed and under other names."
    drawn = np.random.default_rng(0).permutation(len(test))[:n]
    some = test[np.sort(drawn)]
    features = {}
    for m, has in zip(test.modalities, test.present.T):
        features[m] = change(some.features[m], test.features[m][has])
    parts = {m: np.concatenate([x, features[m]]) for m, x in learnable.features.items()}
    known = Clips(
        [*learnable.ids, *(f"copy of {name}" for name in some.ids)],
        parts,
        [*learnable.labels, *some.labels],
        learnable.classes,
        [*learnable.groups, *(f"copy of {name}" for name in some.groups)],
        lengths={m: [*length, *some.lengths[m]] for m, length in learnable.lengths.items()},
        present=np.concatenate([learnable.present, some.present]),
    )
    return known, test


def spread_of(every):
    "The deviation of each column, over clips and frames."
    return every.reshape(-1, every.shape[-1]).std(0)


def with_noise(share):
    def change(x, every):
        noise = np.random.default_rng(1).normal(size=x.shape)
        return x + share * spread_of(every) * noise

    return change


COPIES = {
    "copies": ("same-features", lambda x, every: x),
    "noise of 1 %": ("same-features", with_noise(0.01)),
    "noise of 10 %": ("same-features", with_noise(0.1)),
    "gain": ("rescaled-features", lambda x, every: 2.5 * x),
    "gain and offset": ("rescaled-features", lambda x, every: 0.5 * x + x.std()),
    "permuted columns": ("permuted-features", lambda x, every: x[..., ::-1]),
    "permuted columns with gain": ("permuted-features", lambda x, every: 2 * x[..., ::-1]),
}
AUDITED = ("gaussian", "prototypes", "ravdess", "ravdess-goemotions", "mosi", *RAW)


@pytest.mark.parametrize("name", (*DATASETS, *RAW))
def test_on_clean_sets_the_audit_finds_nothing(name):
    found = {finding.name for finding in find_leaks(*two_parts(name))}
    assert found == BY_NATURE.get(name, set())


@pytest.mark.parametrize("planted", COPIES)
@pytest.mark.parametrize("name", AUDITED)
def test_planted_copies_are_found_in_every_disguise(name, planted):
    if (name, planted) == ("crema_d_votes", "noise of 10 %"):
        pytest.skip("votes of other clips are as near as these copies")
    expected, change = COPIES[planted]
    found = {f.name: f for f in find_leaks(*with_copies(*two_parts(name), change))}
    severe = {f.name for f in found.values() if f.severity == "severe"}
    assert severe & set(DISGUISED), found
    touched = sum(found[kind].clips for kind in severe)
    assert touched >= 54, found
    assert expected in severe or name in RAW


DISGUISED = ("same-features", "rescaled-features", "permuted-features")


@pytest.mark.parametrize(
    "spell", [str.upper, lambda s: s.replace("_", " "), lambda s: s.replace("_", " - "), str.title]
)
def test_groups_in_another_spelling_are_found(spell):
    learnable, test = two_parts("gaussian")
    learnable = replace(learnable, groups=[f"speaker_{i}" for i in range(len(learnable))])
    others = replace(test, groups=[f"guest_{i}" for i in range(len(test))])
    assert not find_leaks(learnable, others)
    groups = [spell(f"speaker_{i}") if i < 40 else f"guest_{i}" for i in range(len(test))]
    (finding,) = find_leaks(learnable, replace(test, groups=groups))
    assert (finding.name, finding.severity, finding.clips) == ("spelled-group", "severe", 40)


def test_groups_that_differ_by_more_than_spelling_are_not_found():
    learnable, test = two_parts("gaussian")
    learnable = replace(learnable, groups=[f"1_1{i}" for i in range(len(learnable))])
    assert not find_leaks(learnable, replace(test, groups=[f"11_{i}" for i in range(len(test))]))


def with_column(parts, code):
    "Both parts with the labels' codes in one column of the first modality."
    changed = []
    for clips in parts:
        m, column = clips.modalities[0], code(clips.labels)
        x = clips.features[m].copy()
        x[..., 3] = column if x.ndim == 2 else column[:, None]
        changed.append(clips.with_features(**{m: x}))
    return changed


CODES = {
    "label": lambda labels: labels,
    "permutation": lambda labels: (5 * labels + 2) % 13,
    "noise": lambda labels: labels + 0.1 * np.random.default_rng(0).normal(size=len(labels)),
}


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("name", AUDITED)
def test_a_column_that_tells_the_label_is_found(name, code):
    parts = with_column(two_parts(name), CODES[code])
    found = {finding.name: finding.severity for finding in find_leaks(*parts)}
    assert found[f"label-{parts[0].modalities[0]}"] == "severe"


def over_all(parts, fitted):
    "Both parts with every modality changed by what `fitted` makes of all clips that have it."
    learnable, test = parts
    features = {}
    for column, m in enumerate(learnable.modalities):
        has = np.concatenate([learnable.present[:, column], test.present[:, column]])
        x = np.concatenate([learnable.features[m], test.features[m]]).astype(float)
        x[has] = fitted(x[has])
        features[m] = x
    n = len(learnable)
    return (
        learnable.with_features(**{m: x[:n] for m, x in features.items()}),
        test.with_features(**{m: x[n:] for m, x in features.items()}),
    )


def components(x):
    x = x - x.mean(0)
    return x @ np.linalg.svd(x, full_matrices=False)[2].T


STATISTICS = {
    "z-score": lambda x: (x - x.mean(0)) / np.maximum(x.std(0), 1e-12),
    "min-max": lambda x: (x - x.min(0)) / np.maximum(np.ptp(x, axis=0), 1e-12),
    "PCA": components,
}


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize("name", AUDITED)
def test_statistics_over_all_clips_are_found(name, statistic):
    parts = over_all(two_parts(name), STATISTICS[statistic])
    found = {finding.name for finding in find_leaks(*parts)}
    first = parts[0].modalities[0]
    if statistic == "min-max" and name == "crema_d_votes":
        assert f"statistics-{first}" not in found  # shares lie between 0 and 1 by nature
    else:
        assert f"statistics-{first}" in found


@pytest.mark.parametrize("name", ("gaussian", "ravdess", "mosi"))
def test_the_same_statistics_of_the_learnable_clips_are_no_finding(name):
    learnable, test = two_parts(name)
    for m, x in learnable.features.items():
        mean, deviation = x.mean(0), np.maximum(x.std(0), 1e-12)
        learnable = learnable.with_features(**{m: (x - mean) / deviation})
        test = test.with_features(**{m: (test.features[m] - mean) / deviation})
    found = {finding.name for finding in find_leaks(learnable, test)}
    assert found == BY_NATURE.get(name, set())


@pytest.mark.parametrize("name", DATASETS)
def test_every_clip_is_tested_once_over_the_folds(name):
    """Rotations test every clip; an official split tests what it says; the folds of a world are
    draws, of which no two share a clip."""
    folds = 2 if name in WORLDS else dataset(name).folds
    parts = [dataset(name).parts(number) for number in range(folds)]
    tested = np.concatenate([test.ids for _, test in parts])
    learnable = np.concatenate([learned.ids for learned, _ in parts])
    assert len(set(tested)) == len(tested)
    if len(parts) > 1 and name not in WORLDS:
        assert set(tested) == {*learnable, *tested}
    if dataset(name).folds == 1:
        assert not overlap(tested, learnable)


def test_a_whole_run_hands_on_what_the_protocol_does_and_no_more(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "spy", (Spy, {}))
    config = configure("gaussian", "spy")
    _, protocol = fold("gaussian")
    expected, _ = spied("gaussian")
    train_run(config, protocol, tmp_path, {})
    for condition in ("l", "av"):
        judge_run(config, condition, protocol, tmp_path)
        clips, _ = Spy.given["judged"][condition]
        assert clips.hash() == expected["judged"][condition][0].hash()
    for part in ("train", "dev"):
        assert Spy.given[part].hash() == expected[part].hash()


@pytest.fixture(scope="module")
def parts():
    "Train clips of 20 speakers, the last 40 clips unlabelled, and dev clips."
    _, protocol = fold("gaussian")
    train = protocol.train[:140]
    speakers = [f"speaker{i % 20}" for i in range(len(train))]
    labels = np.where(np.arange(len(train)) < 100, train.labels, -1)
    return replace(train, groups=speakers, labels=labels), protocol.dev[:50]


@pytest.fixture(scope="module")
def stage1(parts):
    return pretrain(*parts, configure("gaussian", "ramer", epochs=1))


STILL = {"dropout": 0.0, "learning_rate": 1e-12}  # encoders in training answer as before it


@pytest.fixture(scope="module")
def still(parts):
    return pretrain(*parts, configure("gaussian", "ramer", epochs=1, dropout=0.0))


@pytest.fixture(scope="module")
def fit(parts, stage1):
    "Fit a method for one epoch on the parts, once for each name."

    @lru_cache
    def fitted(name):
        shared = None if name == "ramer-released" else stage1
        return make_method(configure("gaussian", name, epochs=1, gate_steps=60), shared).fit(*parts)

    return fitted


@pytest.fixture(scope="module")
def clips():
    return sample(WORLDS["gaussian"], 30, seed=2, prefix="test")


@pytest.fixture(scope="module")
def mask():
    return random_masks(30, 3, np.random.default_rng(0))


@pytest.mark.parametrize("name", STORING)
def test_the_store_holds_train_clips_only(name, fit, parts):
    train, dev = parts
    store = fit(name).store
    assert len(store)
    assert not overlap(store.ids, dev.ids)
    stores_unlabelled = name in ("ramer-medium", "ramer-large", "ramer-turbo")
    allowed = train if stores_unlabelled else train.labelled()
    assert set(store.ids) <= set(allowed.ids)


@pytest.mark.parametrize("name", ANSWERING)
def test_answers_depend_on_no_label_id_or_group_of_the_query(name, fit, parts, clips, mask):
    "But ours answer a group that they were given labelled clips of by these, as they say."
    method = fit(name)
    answer = method.predict_proba(clips, mask)
    order = np.random.default_rng(0).permutation(30)
    known = parts[0][:30]  # ids and groups that the store holds
    groups = clips.ids[order] if name in OURS else known.groups
    changes = (
        {"labels": clips.labels[order]},
        {"labels": 5 - clips.labels},
        {"groups": groups},
        {"ids": known.ids},
    )
    for change in changes:
        assert_array_equal(method.predict_proba(replace(clips, **change), mask), answer)


@pytest.mark.parametrize("name", ANSWERING)
def test_other_test_clips_do_not_change_an_answer(name, fit, clips, mask):
    is_kept = np.arange(30)[:, None] < 10
    far = {m: np.where(is_kept, x, 50 * x[::-1] + 7) for m, x in clips.features.items()}
    answer = fit(name).predict_proba(clips.with_features(**far), mask)
    assert_array_equal(answer[:10], fit(name).predict_proba(clips, mask)[:10])


@pytest.mark.parametrize("name", [n for n in ANSWERING if n not in ("prior", "bayes")])
def test_the_scaler_is_that_of_the_labelled_train_clips(name, fit, parts):
    expected = Scaler.fit(parts[0].labelled())
    method = fit(name)
    scaler = method.scaler if name in (*VECTORS, *POOLED) else method.stage1.scaler
    for m in parts[0].modalities:
        assert_array_equal(scaler.mean[m], expected.mean[m])
        assert_array_equal(scaler.deviation[m], expected.deviation[m])


class Found(NamedTuple):
    "What one search found for train clips: their ids and groups (B,), ids of their hits (B, K)."

    code: int
    ids: np.ndarray
    groups: np.ndarray
    hits: np.ndarray


def training_hits(train, dev, stage1, name="ramer", **changes):
    "What fitting found for its own train clips: a `Found` for each search."
    found = []
    method = make_method(configure("gaussian", name, epochs=1, batch=40, **changes), stage1)
    search = method.neighbours

    def listen(queries, code, ids=None, groups=None):
        hits = search(queries, code, ids, groups)
        if ids is not None:
            found.append(Found(code, ids, groups, hits.ids))
        return hits

    method.neighbours = listen
    method.fit(train, dev)
    return found


def finds_itself(ids, hits):
    "Whether each query is among its hits: (B,) bool. ids: (B,), hits: (B, K) ids."
    return (hits == ids[:, None]).any(1)


def finds_its_group(found, train):
    "Whether each query found a clip of its own group: (B,) bool."
    group_of = dict(zip(train.ids, train.groups)) | {"": None}
    groups = np.vectorize(group_of.get, otypes=[object])(found.hits)
    return (groups == np.asarray(found.groups, object)[:, None]).any(1)


@pytest.mark.parametrize(
    "name, query",
    [("ramer", "stage1"), ("ramer", "live"), ("ramer-raw", "stage1"), ("random", "stage1")],
)
@pytest.mark.parametrize("policy", OPTIONS["policy"])
def test_no_train_clip_finds_itself_or_its_group(policy, name, query, parts, stage1):
    train, _ = parts
    found = training_hits(*parts, stage1, name, policy=policy, query=query)
    for search in found:
        assert not finds_itself(search.ids, search.hits).any(), search.code
        assert not finds_its_group(search, train).any(), search.code
    queries = np.concatenate([search.ids for search in found])
    assert set(queries) <= set(train.labelled().ids)
    assert {search.code for search in found} == set(range(1, 7))
    if query == "stage1":
        assert len(queries) == 100 * 6  # every condition, in a table
    else:
        assert len(queries) > 70  # one condition for each clip


@pytest.mark.parametrize("policy", OPTIONS["policy"])
def test_excluding_the_id_leaves_the_group_to_be_found(policy, parts, stage1):
    found = training_hits(*parts, stage1, policy=policy, exclude="id")
    assert not any(finds_itself(search.ids, search.hits).any() for search in found)
    assert any(finds_its_group(search, parts[0]).any() for search in found)


@pytest.mark.parametrize("query", OPTIONS["query"])
@pytest.mark.parametrize("policy", OPTIONS["policy"])
def test_with_nothing_excluded_a_train_clip_finds_itself(policy, query, parts, still):
    "So the ids that go with the queries are theirs, in training too."
    found = training_hits(*parts, still, policy=policy, query=query, exclude="none", **STILL)
    assert found
    assert all(finds_itself(search.ids, search.hits).all() for search in found)


def cross_fitted(train, dev):
    return make_method(configure("gaussian", "ramer-crossfit", epochs=3)).fit(train, dev)


@pytest.mark.parametrize("code", range(1, 7))
def test_a_cross_fitted_clip_finds_the_same_whatever_the_labels_of_its_fold(code, parts):
    "No model that it searches with has seen its label, or that of its speaker."
    train, dev = parts
    method = cross_fitted(train, dev)
    held = np.isin(train.ids, train.labelled().ids[method.fold == 0])
    other = cross_fitted(replace(train, labels=np.where(held, 5 - train.labels, train.labels)), dev)
    hits, others = [m.hits_in_training(train, code).ids for m in (method, other)]
    assert_array_equal(others[method.fold == 0], hits[method.fold == 0])
    assert (others[method.fold != 0] != hits[method.fold != 0]).any()


def test_a_cross_fitted_clip_finds_no_clip_of_its_fold_and_unlabelled_ones_of_the_rest(parts):
    train, dev = parts
    turbo = configure("gaussian", "ramer-crossfit", epochs=1, database="turbo", exclude="none")
    method = make_method(turbo).fit(train, dev)
    labelled = train.labelled()
    fold_of = dict(zip(labelled.groups, method.fold))
    group_of = dict(zip(train.ids, train.groups))
    found = method.hits_in_training(train, 4).ids
    lies_in = np.vectorize(lambda name: fold_of[group_of[name]])(found)
    assert (lies_in != method.fold[:, None]).all()
    assert np.isin(found, train.ids[train.labels < 0]).any()


def test_an_excluding_search_still_finds_k_clips(parts, stage1):
    for search in training_hits(*parts, stage1, k=7):
        assert search.hits.shape[1] == 7
        assert (search.hits != "").all()


def test_dropping_the_first_hit_as_released_may_leave_the_clip_itself(parts, stage1):
    "Of two train clips with the same features, the first hit may be the other one."
    train, dev = parts
    first_of_two = np.arange(len(train)) // 2 * 2
    twins = train.with_features(**{m: x[first_of_two] for m, x in train.features.items()})
    stage1 = replace(stage1, learned_from=twins.labelled().hash())
    dropped = training_hits(twins, dev, stage1, exclude="first")
    assert any(finds_itself(search.ids, search.hits).any() for search in dropped)
    excluded = training_hits(twins, dev, stage1)
    assert not any(finds_itself(search.ids, search.hits).any() for search in excluded)


def test_a_query_at_test_time_may_find_any_clip(fit, parts):
    "Exclusion is for training: a fitted method finds a stored clip that is a query."
    train = parts[0].labelled()
    assert finds_itself(train.ids, fit("ramer").explain(train, "l").ids).all()


def leaking_corpus():
    "A folder's corpus whose 20 unlabelled clips are its test clips under another group."
    generator, n = np.random.default_rng(0), 80
    features = {m: generator.normal(size=(n, 3)) for m in "al"}
    clips = Clips(
        [*(f"c{i}" for i in range(n)), *(f"again{i}" for i in range(60, n))],
        {m: np.concatenate([x, x[60:]]) for m, x in features.items()},
        [*(np.arange(n) % 2), *[-1] * 20],
        ("calm", "glad"),
        [*(f"p{i // 4}" for i in range(n)), *["pool"] * 20],
    )
    return Corpus(clips, split=["train"] * 60 + ["test"] * 20 + ["unlabelled"] * 20)


def test_a_leak_stops_a_run_and_if_allowed_marks_its_every_line(tmp_path, monkeypatch):
    monkeypatch.setenv("RAMER_DATA", str(tmp_path / "data"))
    write_folder(leaking_corpus(), tmp_path / "data" / "mine")
    message = "20 of 20 test clips have the features of a clip that is learned from"
    with pytest.raises(ValueError, match=message):
        train_runs(grid("mine", ["prior"], [0], [0]), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
    configs = grid("mine", ["prior", "knn"], [0], [0], allow_leak="same-features")
    train_runs(configs, tmp_path / "runs")
    for condition in ("a", "l", "al"):
        lines = judge_runs(configs, condition, tmp_path / "runs")
        assert all(line["leaky"] == "same-features" for line in lines)
    collect(tmp_path / "runs", tmp_path)
    table = conditions_table(read_results(tmp_path))
    marked = {"prior (leaky: same-features)", "knn (leaky: same-features)"}
    assert set(table.method) == marked
    assert table.leaky.all()
    assert "(leaky: same-features)" in show_table(table)
