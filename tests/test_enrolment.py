"What enrolled clips say: of their speakers alone, nothing of themselves, until they go."

import copy
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from ramer.conditions import condition_mask
from ramer.data.worlds import WORLDS, sample
from ramer.methods.registry import configure, load_method, make_method
from ramer.models import forget
from ramer.methods.base import copy_of

pytest.importorskip("tabm", reason="ramer-pooled needs ramer[compare]")


def spoken(clips, prefix, n, seed):
    "Clips as if n speakers took turns, each with an audio of its own."
    numbers = np.arange(len(clips)) % n
    own = np.random.default_rng(seed).normal(size=(n, clips.dims["a"]))
    audio = clips.features["a"] + 2 * clips.features["a"].std() * own[numbers]
    groups = np.array([f"{prefix} {number}" for number in numbers])
    return replace(clips.with_features(a=audio), groups=groups)


@pytest.fixture(scope="module")
def parts():
    clips = sample(WORLDS["gaussian"], 520, seed=0)
    train = spoken(clips[np.arange(300)], "train", 20, seed=0)
    dev = spoken(clips[np.arange(300, 420)], "dev", 8, seed=1)
    return train, dev, spoken(clips[np.arange(420, 520)], "new", 4, seed=2)


@pytest.fixture(scope="module")
def fitted(parts):
    train, dev, _ = parts
    config = configure("gaussian", "ramer-pooled", epochs=3, gate_steps=50)
    return make_method(config).fit(train, dev)


@pytest.fixture
def method(fitted):
    return copy_of(fitted)


@pytest.fixture(scope="module")
def enrolled(parts):
    new = parts[2]
    return new[np.arange(60)]


@pytest.fixture(scope="module")
def asked(parts):
    new = parts[2]
    return new[np.arange(60, 100)]


def every(clips, condition="a"):
    return condition_mask(condition, len(clips))


def test_the_pool_answers_other_speakers_as_before(method, enrolled, asked):
    mask = every(asked)
    before = method.first_answers(asked, mask)
    one = asked.groups == asked.groups[0]
    method.enrol(enrolled[enrolled.groups == asked.groups[0]])
    after = method.first_answers(asked, mask)
    assert_array_equal(after[~one], before[~one])
    assert np.abs(after[one] - before[one]).max() > 1e-3


def test_what_a_speaker_has_not_shown_is_answered_as_before(method, enrolled, asked):
    mask = every(asked)
    before = method.first_answers(asked, mask)
    method.enrol(enrolled.hide(every(enrolled, "vl")))
    assert_array_equal(method.first_answers(asked, mask), before)


def test_the_order_of_enrolment_does_not_matter(method, enrolled, asked):
    halves = enrolled[np.arange(30)], enrolled[np.arange(30, 60)]
    other = copy_of(method)
    method.enrol(halves[0]).enrol(halves[1])
    other.enrol(halves[1]).enrol(halves[0])
    answers = [each.predict_proba(asked, every(asked)) for each in (method, other)]
    assert_allclose(*answers, atol=1e-6)


def test_the_label_of_an_enrolled_clip_does_not_move_the_clip(method, enrolled):
    clip, mask = enrolled[[0]], every(enrolled[[0]])
    method.enrol(enrolled)
    answers = []
    for label in range(len(enrolled.classes)):
        method.store.update(clip.ids, labels=[label])
        answers.append(method.first_answers(clip, mask))
    for answer in answers[1:]:
        assert_allclose(answer, answers[0], atol=1e-6)


def test_a_corrected_label_changes_the_offset(method, enrolled, asked):
    method.enrol(enrolled)
    mask = every(asked)
    before = method.first_answers(asked, mask)
    wrong = (enrolled.labels + 1) % len(enrolled.classes)
    method.store.update(enrolled.ids, labels=wrong)
    assert np.abs(method.first_answers(asked, mask) - before).max() > 1e-3


@pytest.mark.parametrize("name", ["clips", "speakers"])
def test_what_is_forgotten_is_gone_from_memory_and_disk(name, method, enrolled, asked, tmp_path):
    mask = every(asked)
    before = method.predict_proba(asked, mask)
    method.enrol(enrolled)
    assert np.abs(method.predict_proba(asked, mask) - before).max() > 1e-3
    if name == "clips":
        forget(method, ids=enrolled.ids.tolist())
    else:
        forget(method, groups=np.unique(enrolled.groups).tolist())
    assert len(method.own) == 0
    assert_allclose(method.predict_proba(asked, mask), before, atol=1e-6)
    method.save(tmp_path / "model")
    assert not (tmp_path / "model" / "own").exists()


def test_clips_that_left_the_store_by_another_way_are_not_saved(method, enrolled, tmp_path):
    method.enrol(enrolled)
    method.store.remove(enrolled.ids[:50])
    method.save(tmp_path / "model")
    assert sorted(load_method(tmp_path / "model").own.ids) == sorted(enrolled.ids[50:])


def test_a_clip_may_be_enrolled_again_after_it_left(method, enrolled):
    method.enrol(enrolled)
    method.store.remove(enrolled.ids)
    method.enrol(enrolled)
    assert len(method.own) == len(enrolled)


def test_a_refused_enrolment_changes_nothing(method, enrolled, asked):
    method.enrol(enrolled)
    kept = copy.copy(method.own.ids)
    with pytest.raises(ValueError, match="stored"):
        method.enrol(enrolled[:1])
    assert_array_equal(method.own.ids, kept)


def test_an_explanation_adds_up_for_a_speaker_that_is_known(method, enrolled, asked):
    method.enrol(enrolled)
    explained = method.explain(asked, "a")
    shares = np.zeros((len(asked), len(asked.classes)))
    for c in range(len(asked.classes)):
        shares[:, c] = np.where(explained.labels == c, explained.shares, 0).sum(1)
    total = shares + np.sum(list(explained.parts.values()), 0)
    assert_allclose(total, method.predict_proba(asked, every(asked)), atol=1e-5)
