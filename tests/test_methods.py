"""What every method promises, whatever it does inside."""
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from ramer.conditions import all_conditions, code_masks, condition_mask, mask_codes, random_masks
from ramer.controls import configure, load_method, make_method
from ramer.data import Clips
from ramer.protocol import Protocol, load_dataset
from ramer.training import pretrain
from ramer.worlds import WORLDS, World, sample

CONTROLS, RETRIEVING = ("prior", "bayes"), ("store-mean", "random", "ramer", "ramer-raw", "ramer-released")
FILLING = ("zero", "mean", "distilled", "ramer-e2e", *RETRIEVING)
IMAGINING = ("ae", "cra", "mmin", "if-mmin", "if-mmin-1", "cif-mmin", "ae-lineage", "transformer", "shaspec", "momke", "m3care")
CLASSICAL = ("logistic", "knn", "impute-logistic", "impute-boosting", "boosting")
TRAINED = (*FILLING, *IMAGINING)
BRIEF = {"ramer-released": {"epochs": 1}, **dict.fromkeys(IMAGINING, {"epochs": 15, "learning_rate": 4e-3})}   # no stage 1 to start from
LEARNING = (*TRAINED, *CLASSICAL)
METHODS = (*CONTROLS, *LEARNING)
CONDITIONS = tuple(all_conditions())
same = {"rtol": 0, "atol": 1e-5}                     # rows of other batches are rounded otherwise


def config_of(name, **changes):
    return configure("gaussian", name, **{"epochs": 2} | BRIEF.get(name, {}) | changes)


def fit(name, train, dev, **changes):
    return make_method(config_of(name, **changes)).fit(train, dev)


def noise(shape): return np.random.default_rng(9).normal(0, 30, shape)


@pytest.fixture(scope="session")
def parts():
    protocol = Protocol(load_dataset("gaussian"))
    return protocol.train[:160], protocol.dev[:60]


@pytest.fixture(scope="session")
def clips(): return sample(WORLDS["gaussian"], 40, seed=3)


@pytest.fixture(scope="session")
def mask(clips): return random_masks(len(clips), 3, np.random.default_rng(0))


@pytest.fixture(scope="session")
def fitted(parts):
    stage1 = pretrain(*parts, config_of("ramer"))
    return {name: make_method(config_of(name), None if name == "ramer-released" else stage1).fit(*parts) for name in METHODS}


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("name", METHODS)
def test_absent_features_never_matter(name, condition, fitted, clips):
    mask = condition_mask(condition, len(clips))
    absent = set(clips.modalities) - set(condition)
    expected = fitted[name].predict_proba(clips, mask)
    for other in (noise, np.zeros):
        spoiled = clips.with_features(**{m: other(clips.features[m].shape) for m in absent})
        assert_array_equal(fitted[name].predict_proba(spoiled, mask), expected)


@pytest.mark.parametrize("name", [m for m in METHODS if m != "prior"])
def test_available_features_matter(name, fitted, clips, mask):
    spoiled = clips.with_features(**{m: noise(x.shape) for m, x in clips.features.items()})
    assert np.abs(fitted[name].predict_proba(spoiled, mask) - fitted[name].predict_proba(clips, mask)).max() > .01


@pytest.mark.parametrize("condition", CONDITIONS[:-1])
def test_what_fills_a_missing_slot_matters(condition, fitted, clips):
    "The methods of one stage 1 differ by nothing else."
    names = [name for name in FILLING if name != "ramer-released"]
    answers = [fitted[name].predict_proba(clips, condition_mask(condition, len(clips))) for name in names]
    assert all(np.abs(one - other).max() > 1e-4 for one, other in combinations(answers, 2))


@pytest.mark.parametrize("condition", CONDITIONS[:-1])
@pytest.mark.parametrize("name", ["random", "ramer", "ramer-raw", "ramer-released"])
def test_an_explanation_names_the_neighbours_behind_the_answer(name, condition, fitted, clips, monkeypatch):
    method, found = fitted[name], []
    explained, search = method.explain(clips, condition), method.neighbours
    monkeypatch.setattr(method, "neighbours", lambda *asked: found.append(search(*asked)) or found[-1])
    method.predict_proba(clips, condition_mask(condition, len(clips)))
    assert len(found) == 1 and explained.ids.shape == (len(clips), 5)
    assert_array_equal(found[0].ids, explained.ids)


@pytest.mark.parametrize("name", METHODS)
def test_answers_are_probabilities(name, fitted, clips, mask):
    answer = fitted[name].predict_proba(clips, mask)
    assert answer.shape == (len(clips), 6) and np.isfinite(answer).all() and (answer >= 0).all()
    assert_allclose(answer.sum(1), 1, atol=1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_each_row_of_a_mixed_mask_is_answered_as_under_its_constant_condition(name, fitted, clips, mask):
    mixed = fitted[name].predict_proba(clips, mask)
    for code in np.unique(mask_codes(mask)):
        rows, constant = mask_codes(mask) == code, code_masks([code] * len(clips), 3)
        assert_allclose(mixed[rows], fitted[name].predict_proba(clips, constant)[rows], **same)


@pytest.mark.parametrize("name", [m for m in METHODS if m != "random"])
def test_the_order_of_clips_does_not_matter(name, fitted, clips, mask):
    order = np.random.default_rng(1).permutation(len(clips))
    assert_allclose(fitted[name].predict_proba(clips[order], mask[order]), fitted[name].predict_proba(clips, mask)[order], **same)


def test_random_neighbours_belong_to_the_row_and_not_to_the_clip(fitted, clips):
    order = np.arange(len(clips))[::-1]
    drawn = fitted["random"].explain(clips, "l").ids
    assert_array_equal(fitted["random"].explain(clips[order], "l").ids, drawn)
    assert (drawn != drawn[order]).any() and (drawn != fitted["random"].explain(clips, "a").ids).any()


@pytest.mark.parametrize("name", METHODS)
def test_one_clip_is_answered_as_among_others(name, fitted, clips, mask):
    assert_allclose(fitted[name].predict_proba(clips[:1], mask[:1]), fitted[name].predict_proba(clips, mask)[:1], **same)


@pytest.mark.parametrize("name", METHODS)
def test_asking_twice_gives_the_same_and_leaves_clips_and_mask_alone(name, fitted, clips, mask):
    before, kept = clips.hash(), mask.copy()
    assert_array_equal(fitted[name].predict_proba(clips, mask), fitted[name].predict_proba(clips, mask))
    assert clips.hash() == before and np.array_equal(mask, kept)


@pytest.mark.parametrize("name", METHODS)
def test_a_loaded_method_gives_identical_answers(name, fitted, clips, mask, tmp_path):
    fitted[name].save(tmp_path/"model")
    loaded = load_method(tmp_path/"model")
    assert type(loaded) is type(fitted[name]) and loaded.config == fitted[name].config
    assert_array_equal(loaded.predict_proba(clips, mask), fitted[name].predict_proba(clips, mask))


@pytest.mark.parametrize("name", METHODS)
def test_equal_configs_give_equal_answers(name, fitted, parts, clips, mask):
    "Whatever chance outside does; the second fit trains its own stage 1, so this also says that sharing one changes nothing."
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        again = fit(name, *parts)
    assert_array_equal(again.predict_proba(clips, mask), fitted[name].predict_proba(clips, mask))


@pytest.mark.parametrize("name", TRAINED)
def test_another_seed_gives_other_answers(name, fitted, parts, clips, mask):
    other = fit(name, *parts, seed=1)
    assert np.abs(other.predict_proba(clips, mask) - fitted[name].predict_proba(clips, mask)).max() > 1e-3
    first_trained = lambda method: next((method.stage1.network.heads if name in FILLING else method.network).parameters())
    weights = [first_trained(method) for method in (other, fitted[name])]
    assert not torch.allclose(*weights, atol=1e-3)


SPOILED = {"a column less": (lambda mask: mask[:, :2], "expected bool"), "a row less": (lambda mask: mask[:-1], "expected bool"),
           "one row": (lambda mask: mask[0], "expected bool"), "float": (lambda mask: mask.astype(float), "float64"),
           "int": (lambda mask: mask.astype(int), "int64"),
           "nothing": (lambda mask: mask & (np.arange(len(mask)) != 7)[:, None], "row 7")}


@pytest.mark.parametrize("how", SPOILED)
@pytest.mark.parametrize("name", METHODS)
def test_a_mask_that_does_not_fit_is_refused(name, how, fitted, clips, mask):
    spoil, message = SPOILED[how]
    with pytest.raises(ValueError, match=message): fitted[name].predict_proba(clips, spoil(mask))


@pytest.mark.parametrize("name", LEARNING)
def test_features_of_other_widths_are_refused(name, fitted, clips, mask):
    with pytest.raises(ValueError, match="expected .*'a': 32.* as in training"):
        fitted[name].predict_proba(clips.with_features(a=clips.features["a"][:, 1:]), mask)


@pytest.mark.parametrize("name", METHODS)
def test_the_order_of_modalities_is_refused_or_does_not_matter(name, fitted, clips):
    "A mask's columns follow the clips' modalities; a method that reads them in another order would look at what is missing."
    turned, mask = replace(clips, features=dict(reversed(clips.features.items()))), condition_mask("a", len(clips))
    try: answer = fitted[name].predict_proba(turned, mask[:, ::-1])
    except ValueError as error: assert "modalit" in str(error)
    else: assert_allclose(answer, fitted[name].predict_proba(clips, mask), **same)


@pytest.mark.parametrize("modalities", [("a", "l"), ("audio", "face", "text", "pulse")], ids="+".join)
@pytest.mark.parametrize("name", METHODS)
def test_other_sets_of_modalities_work_from_fit_to_load(name, modalities, tmp_path, monkeypatch):
    world = World("gaussian", dims=dict.fromkeys(modalities, 24), signal=dict.fromkeys(modalities, .8))
    monkeypatch.setitem(WORLDS, "gaussian", world)                                     # whose posterior `bayes` answers with
    train, dev, clips = (sample(world, n, seed, f"part{seed}") for seed, n in enumerate((70, 30, 12)))
    method = fit(name, train, dev, epochs=1)
    method.save(tmp_path/"model")
    answers = [[m.predict_proba(clips, condition_mask(c, len(clips), modalities)) for c in all_conditions(modalities)]
               for m in (method, load_method(tmp_path/"model"))]
    assert_array_equal(*answers)
    assert len(np.unique(np.round(answers[0], 9), axis=0)) == (1 if name == "prior" else 2 ** len(modalities) - 1)


def with_frames(clips, padding, frames=6):
    "The clips with `a` as a sequence of one to six frames, and this in every element of the padding."
    lengths = 1 + np.arange(len(clips)) % frames
    steps = clips.features["a"][:, None] * np.linspace(.5, 1.5, frames)[:, None]
    steps[np.arange(frames) >= lengths[:, None]] = padding
    return replace(clips, features=clips.features | {"a": steps}, lengths={"a": lengths})


@pytest.mark.parametrize("name", ["prior", *LEARNING])
def test_padding_of_sequences_never_matters(name, parts, clips, mask, tmp_path):
    zero, wild = ([with_frames(part, padding) for part in (*parts, clips)] for padding in (0, 1e4))
    method = fit(name, *zero[:2], epochs=1)
    expected = method.predict_proba(zero[2], mask)
    assert_array_equal(method.predict_proba(wild[2], mask), expected)
    assert_array_equal(fit(name, *wild[:2], epochs=1).predict_proba(zero[2], mask), expected)
    method.save(tmp_path/"model")
    assert_array_equal(load_method(tmp_path/"model").predict_proba(wild[2], mask), expected)
    rows = zero[2].lengths["a"] <= 3
    short = zero[2][rows].with_features(a=zero[2].features["a"][rows, :3])             # padded to less
    if name != "random": assert_allclose(method.predict_proba(short, mask[rows]), expected[rows], **same)


@pytest.mark.parametrize("name", ["prior", *LEARNING])
def test_a_class_absent_from_train_keeps_its_column(name, parts, clips, mask):
    train, dev = parts
    answer = fit(name, train[train.labels != 5], dev, **{"epochs": 1} | BRIEF.get(name, {})).predict_proba(clips, mask)
    assert answer.shape == (len(clips), 6) and np.isfinite(answer).all()
    assert_allclose(answer.sum(1), 1, atol=1e-9)
    assert answer[:, 5].mean() < answer[:, :5].mean()


@pytest.fixture(scope="session")
def half_labelled(parts):
    "Train clips of which every other one is new, far from all others and unlabelled."
    train, new = parts[0], sample(WORLDS["gaussian"], len(parts[0]), seed=5, prefix="new")
    order = np.arange(2 * len(train)).reshape(2, -1).T.ravel()
    join = lambda a, b: np.concatenate([a, b])[order]
    features = {m: join(x, 20 + new.features[m]) for m, x in train.features.items()}
    return Clips(join(train.ids, new.ids), features, join(train.labels, np.full(len(new), -1)), train.classes)


@pytest.mark.parametrize("name", METHODS)
def test_unlabelled_train_clips_are_ignored(name, half_labelled, fitted, parts, clips, mask):
    assert_array_equal(fit(name, half_labelled, parts[1]).predict_proba(clips, mask), fitted[name].predict_proba(clips, mask))


@pytest.mark.parametrize("name, labelled, unlabelled",
                         [("ramer", 160, 0), ("ramer-medium", 0, 80), ("ramer-large", 0, 160), ("ramer-turbo", 160, 160)])
def test_a_larger_database_holds_the_unlabelled_train_clips(name, labelled, unlabelled, half_labelled, parts):
    labels = fit(name, half_labelled, parts[1], epochs=1).store.labels
    assert ((labels >= 0).sum(), (labels < 0).sum()) == (labelled, unlabelled)


def accuracy(method, clips, condition):
    return (method.predict_proba(clips, condition_mask(condition, len(clips), clips.modalities)).argmax(1) == clips.labels).mean()


BY_HEART = {"epochs": 150, "patience": 150, "batch": 64, "dropout": 0., "head_dropout": 0., "weight_decay": 0.}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LEARNING if name not in ("ramer-released", "mean", "store-mean")])
def test_sixty_four_clips_are_learned_by_heart(name, parts):
    "A network that cannot is broken. Of the neighbours' vote it is true with one neighbour: the clip itself."
    few = parts[0][:64]
    assert accuracy(fit(name, few, few, **({"k": 1} if name == "knn" else BY_HEART)), few, "avl") >= .95


@pytest.mark.slow
@pytest.mark.parametrize("name", ["if-mmin-1", "ae-lineage", "distilled", "zero", "ramer", "impute-logistic"])
def test_where_all_modalities_say_the_same_one_is_nearly_enough(name):
    "The five systems and the modern ones are asked in 12_baselines and 13_modern."
    same = World("same", dims=dict.fromkeys("avl", 16), signal=dict.fromkeys("avl", 1.), correlation=1., noise=.1, nuisance=(0, 0.))
    parts = [sample(same, n, seed, f"part{seed}") for seed, n in ((1, 600), (2, 200), (3, 400))]
    train, dev, new = (clips.with_features(a=clips.features["l"], v=clips.features["l"]) for clips in parts)
    method = fit(name, train, dev, epochs=40)
    complete = accuracy(method, new, "avl")
    assert complete > .7 and min(accuracy(method, new, m) for m in "avl") >= .95 * complete
