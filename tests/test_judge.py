"""A method that reads ids, groups, order, frames, closures or the batch gains nothing."""

import sys
from collections import deque
from dataclasses import replace
from functools import lru_cache
from types import FrameType, FunctionType, ModuleType

import numpy as np
import pytest

from ramer.conditions import all_conditions, condition_mask, random_masks
from ramer.data.clips import Clips
from ramer.data.datasets import load_dataset
from ramer.evaluation.protocol import Protocol, batch_effect, judge_under, make_judge, veil
from ramer.methods.base import Method
from ramer.methods.registry import METHODS, configure, make_method
from ramer.runs.training import fit_shared

REAL = ("ravdess", "ravdess-goemotions", "ravdess-frames", "mosi")


@lru_cache
def parts(name, fold=0):
    try:
        return load_dataset(name).parts(fold)
    except FileNotFoundError:
        pytest.skip(f"the files of {name!r} are not present")


def accuracy(judged):
    return float((judged.predicted == judged.labels).mean())


def chance(test):
    "What guessing by the true frequencies would not exceed, by four standard errors."
    majority = np.bincount(test.labels).max() / len(test)
    return majority + 4 * np.sqrt(majority * (1 - majority) / len(test))


def certain(labels, classes):
    return np.eye(len(classes))[np.asarray(labels, int)]


EMOTION = {"01": 0, "02": 1, "03": 2, "04": 3, "05": 4, "06": 5, "07": 6, "08": 7}


def reads_ids(test):
    "Knows which label each true id has: what an id that holds the emotion tells."
    label_of = dict(zip(test.ids.tolist(), test.labels.tolist()))

    def answer(clips, mask):
        return certain([label_of.get(name, 0) for name in clips.ids.tolist()], clips.classes)

    return answer


def reads_groups(test):
    "Knows the commonest label of each true group, where a group is a clip or a video."
    label_of = {g: np.bincount(test.labels[test.groups == g]).argmax() for g in set(test.groups)}

    def answer(clips, mask):
        return certain([label_of.get(name, 0) for name in clips.groups.tolist()], clips.classes)

    return answer


def reads_order(test):
    "Knows the labels in the file's order."

    def answer(clips, mask):
        return certain(test.labels, clips.classes)

    return answer


def reads_id_order(test):
    "Sorts the ids that it is shown, and knows the labels in the order of the true ids."
    in_order = test.labels[np.argsort(test.ids)]

    def answer(clips, mask):
        place = np.argsort(np.argsort([int(name.split("-")[-1]) for name in clips.ids.tolist()]))
        return certain(in_order[place], clips.classes)

    return answer


def reads_sorted_classes(test):
    "Takes the clips as sorted by label, in blocks of the true sizes."

    def answer(clips, mask):
        return certain(np.sort(test.labels), clips.classes)

    return answer


READERS = (reads_ids, reads_groups, reads_order, reads_id_order, reads_sorted_classes)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("reader", READERS)
def test_who_reads_ids_groups_or_order_scores_at_chance(reader, name):
    _, test = parts(name)
    if reader is reads_sorted_classes:
        test = test[np.argsort(test.labels, kind="stable")]
    answer = reader(test)
    mask = condition_mask("a", len(test), test.modalities)
    if reader in (reads_ids, reads_order, reads_sorted_classes):
        # what the names and the order would have told
        assert accuracy(judge_under(answer, test, mask, veiled=False)) == 1
    for condition in ("a", "".join(test.modalities)):
        assert accuracy(make_judge(test)(answer, condition)) <= chance(test)


def test_ravdess_ids_hold_the_emotion_and_none_is_shown():
    _, test = parts("ravdess")
    codes = [name.split("-")[2] for name in test.ids.tolist()]
    label_of = dict(zip(codes, test.labels.tolist()))
    assert [label_of[code] for code in codes] == test.labels.tolist()
    shown, _ = veil(test)
    assert not any(str(name).count("-") > 1 for name in shown.ids)


def test_order_depends_on_the_run_and_on_no_label():
    _, test = parts("gaussian")
    seen = {}

    def look(clips, mask):
        seen["features"] = clips.features["a"]
        return np.full((len(clips), 6), 1 / 6)

    def order(clips, key, condition="al"):
        make_judge(clips, key)(look, condition)
        return [row.tobytes() for row in seen["features"]]

    first = order(test, "run 0")
    assert first == order(test, "run 0")
    other_labels = np.random.default_rng(0).permutation(test.labels)
    assert first == order(replace(test, labels=other_labels), "run 0")
    assert first != order(test, "run 1")
    assert first != order(test, "run 0", "a")
    assert sorted(first) == sorted(order(test, "run 1"))


def test_seeds_and_folds_are_shown_other_names():
    dataset = load_dataset("gaussian")
    names = {}
    for fold, seed in ((0, 0), (0, 1), (1, 0)):
        protocol = Protocol(dataset, fold, seed)

        def look(clips, mask, key=(fold, seed)):
            names[key] = set(clips.ids)
            return np.full((len(clips), 6), 1 / 6)

        protocol.judge(look, "a")
    first, second, third = names.values()
    assert not first & second and not first & third


# ---- frames, closures, attributes


def held_by(thing):
    "What can be reached from a thing in one step by attributes, items, closures and frames."
    if isinstance(thing, FrameType):
        return [thing.f_back, thing.f_locals, thing.f_globals]
    if isinstance(thing, FunctionType):
        cells = [cell.cell_contents for cell in thing.__closure__ or () if filled(cell)]
        return [*cells, thing.__defaults__, thing.__globals__, thing.__dict__]
    if isinstance(thing, np.ndarray):
        return [thing.base]
    if isinstance(thing, dict):
        return list(thing.values())
    if isinstance(thing, (list, tuple, set, frozenset)):
        return list(thing)
    if isinstance(thing, ModuleType):
        return list(vars(thing).values()) if thing.__name__.startswith("ramer") else []
    if isinstance(thing, type(pytest.mark)):  # it makes a mark of whatever is asked for
        return []
    found = [getattr(thing, "__self__", None), getattr(thing, "__func__", None)]
    found += [getattr(thing, "func", None), getattr(thing, "args", None)]
    slots = getattr(type(thing), "__slots__", ())
    for name in slots if isinstance(slots, tuple) else ():
        found.append(getattr(thing, name, None))
    return [*found, getattr(thing, "__dict__", None)]


def filled(cell):
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def is_secret(thing, digest):
    "Whether an array holds the digest's labels in some order of clips: it counts them alike."
    if not isinstance(thing, np.ndarray) or thing.dtype.kind not in "iu" or thing.ndim != 1:
        return False
    return len(thing) == sum(digest) and thing.min() >= 0 and tuple(np.bincount(thing)) == digest


def search(start, digest, most=400_000):
    "Every array like the labels that a walk from `start` reaches, and how many things it saw."
    waiting, seen, kept, found = deque([start]), set(), [], []  # what is near comes first
    while waiting and len(seen) < most:
        thing = waiting.popleft()
        if thing is None or id(thing) in seen or isinstance(thing, (str, bytes, int, float)):
            continue
        seen.add(id(thing))
        kept.append(thing)  # an id is only its own while the thing lives
        if is_secret(thing, digest):
            found.append(thing)
        try:
            waiting += held_by(thing)
        except Exception:
            continue
    return found, len(seen)


class Adversary(Method):
    "Walks everything that it can reach while it is fitted and while it answers."

    parameters = 0

    def look(self, *given):
        found, size = search([sys._getframe(), *given, self], self.digest)
        self.found += found
        self.sizes.append(size)

    def fit(self, train, dev):
        self.look(train, dev)
        self.classes = len(train.classes)
        return self

    def predict_proba(self, clips, mask):
        self.look(clips, mask)
        return np.full((len(clips), len(clips.classes)), 1 / len(clips.classes))

    def state(self):
        return {}, {}

    def restore(self, tensors, facts, folder):
        pass


def adversary(digest):
    method = Adversary(configure("gaussian", "prior"))
    method.digest, method.found, method.sizes = digest, [], []
    return method


def digest_of(test):
    return tuple(np.bincount(test.labels).tolist())


def direct(method, test):
    "As a judge without protection would call it: its own frame holds the labels."
    return method.predict_proba(test.without_labels(), test.present)


@pytest.mark.parametrize("name", ("gaussian", "ravdess"))
def test_no_frame_closure_or_attribute_leads_to_a_label(name):
    _, test = parts(name)
    method = adversary(digest_of(test))
    direct(method, test)
    assert method.found  # the walk finds labels where they can be reached
    method = adversary(digest_of(test))
    protocol = Protocol(load_dataset(name))
    for condition in all_conditions(test.modalities):
        protocol.judge(method.predict_proba, condition)
    assert not method.found
    assert min(method.sizes) > 1000  # it did walk


def test_while_fitted_in_a_run_no_frame_leads_to_a_label(monkeypatch):
    _, test = parts("gaussian")
    protocol = Protocol(load_dataset("gaussian"))
    method = adversary(digest_of(test))
    method.fit(protocol.train, protocol.dev)
    assert method.found  # this frame has `test`, and the protocol's judge
    again = adversary(digest_of(test))
    monkeypatch.setattr("ramer.runs.training.make_method", lambda config: again)
    fit_shared(again.config, protocol.train, protocol.dev, {})
    assert again.sizes and not again.found


def test_what_is_learned_from_is_no_view_of_what_holds_test_labels():
    for name in ("gaussian", *REAL):
        parts(name)
        protocol = Protocol(load_dataset(name))
        for clips in (protocol.train, protocol.dev):
            held = [clips.labels, clips.ids, clips.groups, *clips.features.values()]
            assert all(x.base is None or len(x.base) <= len(x) for x in held), name


# ---- the batch

CHEAP = {"epochs": 1, "gate_steps": 60}


@lru_cache
def fitted(name):
    protocol = Protocol(load_dataset("gaussian"))
    train, dev = protocol.train[:150], protocol.dev[:60]
    labels = np.where(np.arange(150) < 110, train.labels, -1)  # some methods store unlabelled clips
    train = replace(train, labels=labels)
    return make_method(configure("gaussian", name, **CHEAP)).fit(train, dev)


PUBLISHED = [name for name in METHODS if name.endswith("-published")]  # the same, trained longer


@pytest.mark.parametrize("name", [name for name in METHODS if name not in PUBLISHED])
def test_an_answer_depends_on_its_own_clip_or_the_method_says_so(name):
    _, test = parts("gaussian")
    clips, mask = test[:24], random_masks(24, 3, np.random.default_rng(0))
    effect = batch_effect(fitted(name).predict_proba, clips, mask)
    assert (effect > 1e-5) == fitted(name).transductive, effect


def test_who_uses_the_batch_is_found_out():
    "Such a method may gain, which no veil prevents; but it does not pass for another one."
    _, test = parts("gaussian")
    mask = condition_mask("a", len(test))

    def ranks(clips, mask):
        place = np.argsort(np.argsort(clips.features["a"][:, 0])) * 6 // len(clips)
        return certain(place, clips.classes)

    assert batch_effect(ranks, test, mask) == 1


def test_a_clip_may_be_an_answer_of_its_own():
    _, test = parts("gaussian")
    one = test[:1]
    assert isinstance(one, Clips)
    judged = judge_under(fitted("prior").predict_proba, one, np.ones((1, 3), bool))
    assert judged.order.tolist() == [0]
