"""What every method promises, whatever it does inside."""

from dataclasses import replace
from functools import cache
from itertools import combinations

import numpy as np
import pytest
import torch
from method_kinds import CLASSICAL, CROSSFITTED, NETWORKS, POOLED, RETRIEVING
from numpy.testing import assert_allclose, assert_array_equal
from pretended_gpu import GPU, pretended_gpu

from ramer.conditions import all_conditions, by_condition, condition_mask, random_masks
from ramer.data.clips import Clips
from ramer.data.datasets import load_dataset
from ramer.data.worlds import WORLDS, World, sample
from ramer.evaluation.protocol import Protocol, cut_dev, judged_conditions
from ramer.methods import classical
from ramer.methods.pretraining import pretrain
from ramer.methods.registry import configure, load_method, make_method
from ramer.methods.training import computing_on

CONTROLS = ("prior", "availability", "bayes")
FILLING = ("zero", "mean", "distilled", "ramer-gated", *RETRIEVING)
IMAGINING = ("if-mmin-1", *NETWORKS)
LINEAR = ("logistic", "impute-logistic", "one-logistic", "inverse-probability", "lda", "rbf")
BLIND = ("prior", "availability")  # features do not matter to them
PAIRS = ("average-momke", "gated-momke", "gated-zero")
TRAINED = (*FILLING, *IMAGINING)
BRIEF = {
    "ramer-released": {"epochs": 1},
    **dict.fromkeys(
        (*IMAGINING, *PAIRS[:2]), {"epochs": 8, "learning_rate": 8e-3}
    ),  # they have no stage 1
    "ae": {"epochs": 15, "learning_rate": 8e-3},
}
LEARNING = (*TRAINED, *CLASSICAL, *PAIRS, *POOLED)
METHODS = (*CONTROLS, *LEARNING)
CONDITIONS = tuple(all_conditions())
SAME = {"rtol": 0, "atol": 1e-5}  # rows of other batches are rounded otherwise


def config_of(name, **changes):
    brief = {"epochs": 2, "gate_steps": 60} | BRIEF.get(name, {})
    return configure("gaussian", name, **brief | changes)


def fit(name, train, dev, **changes):
    return make_method(config_of(name, **changes)).fit(train, dev)


def noise(shape):
    return np.random.default_rng(9).normal(0, 30, shape)


def answer_under(method, clips, condition):
    "The probabilities under one condition for all clips."
    return method.predict_proba(clips, condition_mask(condition, len(clips), clips.modalities))


def largest_difference(one, other):
    return np.abs(one - other).max()


@pytest.fixture(scope="module", autouse=True)
def few_trees():
    "Boosting adds 20 trees a class rather than 100: what every method promises needs no more."
    full = classical.trees
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classical, "trees", lambda config: full(config).set_params(max_iter=20))
        yield


@pytest.fixture(scope="session")
def parts():
    protocol = Protocol(load_dataset("gaussian"))
    return protocol.train[:120], protocol.dev[:60]


@pytest.fixture(scope="session")
def clips():
    return sample(WORLDS["gaussian"], 40, seed=3)


@pytest.fixture(scope="session")
def mask(clips):
    return random_masks(len(clips), 3, np.random.default_rng(0))


@pytest.fixture(scope="module")
def fitted(parts, few_trees):
    stage1 = pretrain(*parts, config_of("ramer"))
    methods = {name: make_method(config_of(name), stage1) for name in METHODS}
    methods["ramer-released"] = make_method(config_of("ramer-released"))  # has another stage 1
    return {name: method.fit(*parts) for name, method in methods.items()}


def brief(name):
    "Fewer epochs, for what needs no learning, where a method is given many."
    return {"epochs": 2} if BRIEF.get(name, {}).get("epochs", 2) > 2 else {}


@pytest.fixture(scope="module")
def begun(fitted, parts):
    "What gives a method that was fitted as `brief` says, once."

    @cache
    def fit_once(name):
        return fit(name, *parts, **brief(name)) if brief(name) else fitted[name]

    return fit_once


@pytest.fixture(scope="session")
def in_groups(parts, clips, mask):
    "Train and dev clips of a few speakers each, their stage 1, and an answer of ramer-gated."
    groups = [np.char.add(p, (np.arange(len(c)) % 8).astype(str)) for p, c in zip("td", parts)]
    train, dev = [replace(part, groups=names) for part, names in zip(parts, groups)]
    stage1 = pretrain(train, dev, config_of("ramer"))
    method = make_method(config_of("ramer-gated"), stage1).fit(train, dev)
    return train, dev, stage1, method.enrol(dev).predict_proba(clips, mask)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("name", METHODS)
def test_absent_features_never_matter(name, condition, fitted, clips):
    absent = set(clips.modalities) - set(condition)
    expected = answer_under(fitted[name], clips, condition)
    for other in (noise, np.zeros):
        spoiled = clips.with_features(**{m: other(clips.features[m].shape) for m in absent})
        assert_array_equal(answer_under(fitted[name], spoiled, condition), expected)


@pytest.mark.parametrize("name", [m for m in METHODS if m not in BLIND])
def test_available_features_matter(name, fitted, clips, mask):
    spoiled = clips.with_features(**{m: noise(x.shape) for m, x in clips.features.items()})
    answer = fitted[name].predict_proba(clips, mask)
    assert largest_difference(fitted[name].predict_proba(spoiled, mask), answer) > 0.01


@pytest.mark.parametrize("condition", CONDITIONS[:-1])
def test_what_fills_a_missing_slot_matters(condition, fitted, clips):
    "The methods of one stage 1 differ by nothing else."
    names = [name for name in FILLING if name != "ramer-released"]
    answers = [answer_under(fitted[name], clips, condition) for name in names]
    assert all(largest_difference(*pair) > 1e-4 for pair in combinations(answers, 2))


@pytest.mark.parametrize("condition", CONDITIONS[:-1])
@pytest.mark.parametrize("name", ["random", "ramer", "ramer-raw", *CROSSFITTED, "ramer-released"])
def test_an_explanation_names_the_neighbours_behind_the_answer(
    name, condition, fitted, clips, monkeypatch
):
    method = fitted[name]
    explained = method.explain(clips, condition)
    search = method.neighbours
    found = []

    def listen(*query):
        found.append(search(*query))
        return found[-1]

    monkeypatch.setattr(method, "neighbours", listen)
    answer_under(method, clips, condition)
    assert len(found) == 1
    assert explained.ids.shape == (len(clips), 5)
    assert_array_equal(found[0].ids, explained.ids)


def assert_probabilities(answer, n):
    assert answer.shape == (n, 6)
    assert np.isfinite(answer).all()
    assert_allclose(answer.sum(1), 1, atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_answers_are_probabilities(name, fitted, clips, mask):
    answer = fitted[name].predict_proba(clips, mask)
    assert_probabilities(answer, len(clips))
    assert (answer >= 0).all()


@pytest.mark.parametrize("name", METHODS)
def test_each_row_of_a_mixed_mask_is_answered_as_under_its_constant_condition(
    name, fitted, clips, mask
):
    mixed = fitted[name].predict_proba(clips, mask)
    for condition, rows in by_condition(mask, clips.modalities):
        constant = fitted[name].predict_proba(clips, condition.masks(len(clips)))
        assert_allclose(mixed[rows], constant[rows], **SAME)


@pytest.mark.parametrize("name", [m for m in METHODS if m != "random"])
def test_the_order_of_clips_does_not_matter(name, fitted, clips, mask):
    order = np.random.default_rng(1).permutation(len(clips))
    answer = fitted[name].predict_proba(clips, mask)
    assert_allclose(fitted[name].predict_proba(clips[order], mask[order]), answer[order], **SAME)


def test_random_neighbours_belong_to_the_row_and_not_to_the_clip(fitted, clips):
    order = np.arange(len(clips))[::-1]
    random = fitted["random"]
    drawn = random.explain(clips, "l").ids
    assert_array_equal(random.explain(clips[order], "l").ids, drawn)
    assert (drawn != drawn[order]).any()
    assert (drawn != random.explain(clips, "a").ids).any()


@pytest.mark.parametrize("name", METHODS)
def test_one_clip_is_answered_as_among_others(name, fitted, clips, mask):
    answer = fitted[name].predict_proba(clips, mask)
    assert_allclose(fitted[name].predict_proba(clips[:1], mask[:1]), answer[:1], **SAME)


@pytest.mark.parametrize("name", METHODS)
def test_answering_twice_gives_the_same_and_leaves_clips_and_mask_alone(name, fitted, clips, mask):
    before, kept = clips.hash(), mask.copy()
    answer = fitted[name].predict_proba(clips, mask)
    assert_array_equal(fitted[name].predict_proba(clips, mask), answer)
    assert clips.hash() == before
    assert_array_equal(mask, kept)


@pytest.mark.parametrize("name", METHODS)
def test_a_loaded_method_gives_identical_answers(name, fitted, clips, mask, tmp_path):
    fitted[name].save(tmp_path / "model")
    loaded = load_method(tmp_path / "model")
    assert type(loaded) is type(fitted[name])
    assert loaded.config == fitted[name].config
    assert_array_equal(loaded.predict_proba(clips, mask), fitted[name].predict_proba(clips, mask))


@pytest.mark.parametrize("name", METHODS)
def test_equal_configs_give_equal_answers(name, begun, parts, clips, mask):
    "The random state outside does not matter, nor does a stage 1 of its own for the second fit."
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        again = fit(name, *parts, **brief(name))
    assert_array_equal(again.predict_proba(clips, mask), begun(name).predict_proba(clips, mask))


@pytest.mark.parametrize("name", PAIRS)
def test_a_pair_trains_its_network_as_that_is_trained_alone(name, fitted, clips, mask):
    alone = fitted[name.partition("-")[2]]
    answer = fitted[name].opponent.predict_proba(clips, mask)
    assert_array_equal(answer, alone.predict_proba(clips, mask))


def test_an_average_is_the_mean_of_its_members(fitted, clips, mask):
    members = [fitted[name].predict_proba(clips, mask) for name in ("momke", "logistic")]
    average = fitted["average-momke"].predict_proba(clips, mask)
    assert_allclose(average, np.mean(members, axis=0), **SAME)


@pytest.mark.parametrize(
    "changes",
    [
        *({"k": 4}, {"penalty": 1.0}, {"smoothed": 0}, {"sharpness": 5.0}, {"smoothing": 50.0}),
        *({"own_speed": 1.0}, {"own_weight": 0.0}, {"own_share": 0.1}, {"pass_steps": 2}),
        *({"pass_clips": 80}, {"queries_each": 1}, {"vote_mixing": 0.5}, {"gate_start": 0.0}),
        *({"gate_penalty": 1.0}, {"gate_rest": 1.0}, {"gate_steps": 20}, {"gate_rate": 0.01}),
        *({"useless_weight": 0.0}, {"enrolled_weight": 0.0}, {"enrolled_halves": 1}),
    ],
    ids=str,
)
def test_every_number_of_the_gated_method_can_be_tuned(changes, in_groups, clips, mask):
    train, dev, stage1, answer = in_groups
    method = make_method(config_of("ramer-gated", **changes), stage1).fit(train, dev)
    tuned = method.enrol(dev).predict_proba(clips, mask)
    assert largest_difference(tuned, answer) > 1e-7


@pytest.mark.parametrize("name", TRAINED)
def test_another_seed_gives_other_answers(name, begun, parts, clips, mask):
    other = fit(name, *parts, seed=1, **brief(name))
    answer = begun(name).predict_proba(clips, mask)
    assert largest_difference(other.predict_proba(clips, mask), answer) > 1e-3

    def first_trained(method):
        part = method.stage1.network.heads if name in FILLING else method.network
        return next(p for p in part.parameters() if p.ndim == 2)

    weights = [first_trained(method) for method in (other, begun(name))]
    assert not torch.allclose(*weights, atol=1e-3)


SPOILED = {
    "a column less": (lambda mask: mask[:, :2], "expected bool"),
    "a row less": (lambda mask: mask[:-1], "expected bool"),
    "one row": (lambda mask: mask[0], "expected bool"),
    "float": (lambda mask: mask.astype(float), "float64"),
    "int": (lambda mask: mask.astype(int), "int64"),
    "nothing": (lambda mask: mask & (np.arange(len(mask)) != 7)[:, None], "row 7"),
}


@pytest.mark.parametrize("how", SPOILED)
@pytest.mark.parametrize("name", METHODS)
def test_a_mask_that_does_not_fit_is_refused(name, how, fitted, clips, mask):
    spoil, message = SPOILED[how]
    with pytest.raises(ValueError, match=message):
        fitted[name].predict_proba(clips, spoil(mask))


@pytest.mark.parametrize("name", LEARNING)
def test_features_of_other_widths_are_refused(name, fitted, clips, mask):
    narrow = clips.with_features(a=clips.features["a"][:, 1:])
    with pytest.raises(ValueError, match="expected .*'a': 32.* as in training"):
        fitted[name].predict_proba(narrow, mask)


@pytest.mark.parametrize("name", METHODS)
def test_the_order_of_modalities_is_refused_or_does_not_matter(name, fitted, clips):
    "A mask's columns follow the clips' modalities; in another order it would name other ones."
    turned = replace(clips, features=dict(reversed(clips.features.items())))
    mask = condition_mask("a", len(clips))
    try:
        answer = fitted[name].predict_proba(turned, mask[:, ::-1])
    except ValueError as error:
        assert "modalit" in str(error)
    else:
        assert_allclose(answer, fitted[name].predict_proba(clips, mask), **SAME)


def answers_under_all(method, clips):
    "The probabilities under every condition, one after the other."
    return [answer_under(method, clips, c) for c in all_conditions(clips.modalities)]


def check_from_fit_to_load(name, modalities, tmp_path, monkeypatch):
    "A method learns clips of these modalities, and answers each condition by itself, also loaded."
    dims, signal = dict.fromkeys(modalities, 24), dict.fromkeys(modalities, 0.8)
    world = World("gaussian", dims=dims, signal=signal)
    monkeypatch.setitem(WORLDS, "gaussian", world)  # whose posterior `bayes` answers with
    sizes = enumerate((70, 30, 12))
    train, dev, clips = [sample(world, n, seed, f"part{seed}") for seed, n in sizes]
    method = fit(name, train, dev, epochs=1)
    method.save(tmp_path / "model")
    answers = answers_under_all(method, clips)
    assert_array_equal(answers_under_all(load_method(tmp_path / "model"), clips), answers)
    different = 1 if name in BLIND else 2 ** len(modalities) - 1
    assert len(np.unique(np.round(answers, 9), axis=0)) == different


@pytest.mark.parametrize(
    "modalities", [("a", "l"), ("audio", "face", "text", "pulse")], ids="+".join
)
@pytest.mark.parametrize("name", METHODS)
def test_other_sets_of_modalities_work_from_fit_to_load(name, modalities, tmp_path, monkeypatch):
    check_from_fit_to_load(name, modalities, tmp_path, monkeypatch)


ALONE = ("random", "ramer", "ramer-gated", *POOLED, "mmin-published", "flex-moe", "logistic")


@pytest.mark.parametrize("name", ALONE)
def test_one_modality_is_enough(name, tmp_path, monkeypatch):
    check_from_fit_to_load(name, ("a",), tmp_path, monkeypatch)


def with_frames(clips, padding, frames=6):
    "The clips with `a` as sequences of one to six frames, and this in every element of padding."
    lengths = 1 + np.arange(len(clips)) % frames
    steps = clips.features["a"][:, None] * np.linspace(0.5, 1.5, frames)[:, None]
    steps[np.arange(frames) >= lengths[:, None]] = padding
    return replace(clips, features=clips.features | {"a": steps}, lengths={"a": lengths})


@pytest.mark.parametrize("name", ["prior", *LEARNING])
def test_padding_of_sequences_never_matters(name, parts, clips, mask, tmp_path):
    zero = [with_frames(part, 0) for part in (*parts, clips)]
    wild = [with_frames(part, 1e4) for part in (*parts, clips)]
    method = fit(name, *zero[:2], epochs=1)
    expected = method.predict_proba(zero[2], mask)
    assert_array_equal(method.predict_proba(wild[2], mask), expected)
    assert_array_equal(fit(name, *wild[:2], epochs=1).predict_proba(zero[2], mask), expected)
    method.save(tmp_path / "model")
    assert_array_equal(load_method(tmp_path / "model").predict_proba(wild[2], mask), expected)
    rows = zero[2].lengths["a"] <= 3
    short = zero[2][rows].with_features(a=zero[2].features["a"][rows, :3])  # padded to less
    if name != "random":
        assert_allclose(method.predict_proba(short, mask[rows]), expected[rows], **SAME)


@pytest.mark.parametrize("name", ["prior", *LEARNING])
def test_a_class_absent_from_train_keeps_its_column(name, parts, clips, mask):
    train, dev = parts
    method = fit(name, train[train.labels != 5], dev, epochs=4 if name in BRIEF else 1)
    answer = method.predict_proba(clips, mask)
    assert_probabilities(answer, len(clips))
    assert answer[:, 5].mean() < answer[:, :5].mean()


@pytest.fixture(scope="session")
def half_labelled(parts):
    "Train clips of which every other one is new, far from all others and unlabelled."
    train, new = parts[0], sample(WORLDS["gaussian"], len(parts[0]), seed=5, prefix="new")
    order = np.arange(2 * len(train)).reshape(2, -1).T.ravel()

    def join(old, added):
        return np.concatenate([old, added])[order]

    ids = join(train.ids, new.ids)
    features = {m: join(x, 20 + new.features[m]) for m, x in train.features.items()}
    labels = join(train.labels, np.full(len(new), -1))
    return Clips(ids, features, labels, train.classes)


@pytest.mark.parametrize("name", METHODS)
def test_unlabelled_train_clips_are_ignored(name, half_labelled, begun, parts, clips, mask):
    answer = fit(name, half_labelled, parts[1], **brief(name)).predict_proba(clips, mask)
    assert_array_equal(answer, begun(name).predict_proba(clips, mask))


@pytest.mark.parametrize(
    "name, labelled, unlabelled",
    [
        ("ramer", 1, 0),
        ("ramer-medium", 0, 0.5),
        ("ramer-large", 0, 1),
        ("ramer-turbo", 1, 1),
    ],
)
def test_a_larger_database_holds_the_unlabelled_train_clips(
    name, labelled, unlabelled, half_labelled, parts
):
    labels = fit(name, half_labelled, parts[1], epochs=1).store.labels
    n = len(parts[0])  # labelled clips, and as many without a label
    assert ((labels >= 0).sum(), (labels < 0).sum()) == (labelled * n, unlabelled * n)


def accuracy(method, clips, condition):
    return (answer_under(method, clips, condition).argmax(1) == clips.labels).mean()


BY_HEART = {
    "epochs": 150,
    "patience": 150,
    "batch": 64,
    "dropout": 0.0,
    "head_dropout": 0.0,
    "weight_decay": 0.0,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [name for name in LEARNING if name not in ("ramer-released", "mean", "store-mean")]
)
def test_sixty_four_clips_are_learned_by_heart(name, parts):
    "A network that cannot is broken. Neighbours vote with one neighbour: the clip itself."
    few = parts[0][:64]
    changes = {"k": 1} if name == "knn" else BY_HEART
    if name in LINEAR:
        changes = {"penalty": 1e-3, "shrinkage": 0.01}
    method = fit(name, few, few, **changes)
    assert accuracy(method, few, "avl") >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["if-mmin-1", "ae-lineage", "distilled", "zero", "ramer", "impute-logistic"]
)
def test_where_all_modalities_hold_the_same_one_is_nearly_enough(name):
    "The five systems and the modern ones are tested in 28_imagination and 29_modern."
    same = World(
        "same",
        dims=dict.fromkeys("avl", 16),
        signal=dict.fromkeys("avl", 1.0),
        correlation=1.0,
        noise=0.1,
        nuisance=(0, 0.0),
    )

    def redundant(n, seed):
        clips = sample(same, n, seed, f"part{seed}")
        return clips.with_features(a=clips.features["l"], v=clips.features["l"])

    method = fit(name, redundant(600, 1), redundant(200, 2), epochs=40)
    new = redundant(400, 3)
    complete = accuracy(method, new, "avl")
    assert complete > 0.7
    assert min(accuracy(method, new, m) for m in "avl") >= 0.95 * complete


def many_modalities(n_modalities, n=90):
    "Clips of many narrow modalities."
    generator = np.random.default_rng(0)
    labels = np.arange(n) % 3
    names = "abcdefghijklmnop"[:n_modalities]
    x = {m: generator.normal(size=(n, 4)) + 0.5 * labels[:, None] for m in names}
    return Clips([f"c{i}" for i in range(n)], x, labels, ("x", "y", "z"))


@pytest.mark.parametrize("name", ["ramer", "ramer-gated", "logistic"])
def test_twelve_modalities_are_learned_under_thirty_one_conditions(name, tmp_path):
    train, dev = cut_dev(many_modalities(12), 0)
    method = make_method(configure("own", name, epochs=1)).fit(train, dev)
    method.save(tmp_path / "model")
    for condition in ("a", "bdfh", "abcdefghijkl"):  # one that is not among them, too
        mask = condition_mask(condition, len(dev), dev.modalities)
        answer = method.predict_proba(dev, mask)
        np.testing.assert_allclose(answer.sum(1), 1, rtol=1e-5)
        np.testing.assert_array_equal(
            load_method(tmp_path / "model").predict_proba(dev, mask), answer
        )
    assert len(judged_conditions(train, dev)) == 31


ON_GPU = ("ramer", "mmin", "dymo")  # fills from a store; a teacher; more to do after training
slow = pytest.mark.slow


@pytest.mark.parametrize(
    "name", [name if name in ON_GPU else pytest.param(name, marks=slow) for name in TRAINED]
)
def test_a_gpu_trains_what_processors_train(name, parts, clips, mask):
    expected = fit(name, *parts, **brief(name)).predict_proba(clips, mask)
    with pretended_gpu() as gpu, computing_on(str(GPU)):
        method = fit(name, *parts, **brief(name))
    assert gpu.count > 1000
    assert_allclose(method.predict_proba(clips, mask), expected, **SAME)  # without the GPU
