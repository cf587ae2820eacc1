"What enrolled clips say: of their speakers alone, nothing of themselves, until they go."

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from scipy.special import softmax

from ramer.conditions import Condition, condition_mask
from ramer.data.worlds import WORLDS, sample, with_speakers
from ramer.methods import speakers
from ramer.methods.base import copy_of
from ramer.methods.speakers import OwnBut, movements, rows_in
from ramer.methods.registry import configure, load_method, make_method
from ramer.models import forget

pytest.importorskip("tabm", reason="ramer-pooled needs ramer[compare]")


@pytest.fixture(scope="module")
def parts():
    clips = sample(WORLDS["gaussian"], 520, seed=0)
    train = with_speakers(clips[np.arange(300)], "train", 20, apart=2, seed=0)
    dev = with_speakers(clips[np.arange(300, 420)], "dev", 8, apart=2, seed=1)
    new = with_speakers(clips[np.arange(420, 520)], "new", 4, apart=2, seed=2)
    return train, dev, new


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


CODES = {"a": 1, "v": 2, "l": 4}


def moved(method, clips, condition="a"):
    "What the regression answers that the speakers' enrolled clips have moved."
    chosen = Condition.from_code(CODES[condition], tuple(clips.dims))
    return method.own_answers(method.scale(clips.hide(every(clips, condition))), chosen).numpy()


def test_a_regression_is_moved_for_speakers_that_are_known_alone(method, enrolled, asked):
    one = enrolled.groups == asked.groups[0]
    method.enrol(enrolled[one])
    answers = moved(method, asked)
    is_known = asked.groups == asked.groups[0]
    assert_allclose(answers[is_known].sum(1), 1, atol=1e-5)
    assert not answers[~is_known].any()
    shared = softmax(method.own_linear.logarithms(method.scale(asked), CODES["a"]), 1)
    assert np.abs(answers[is_known] - shared[is_known]).max() > 0.05


def test_a_regression_is_not_moved_by_what_a_speaker_has_not_shown(method, enrolled, asked):
    method.enrol(enrolled.hide(every(enrolled, "vl")))
    assert not moved(method, asked, "a").any()
    assert moved(method, asked, "v").any()


def test_clips_without_a_label_move_no_regression(method, enrolled, asked):
    method.enrol(replace(enrolled, labels=np.full(len(enrolled), -1)))
    assert not moved(method, asked).any()


def test_an_enrolled_clip_does_not_move_the_regression_that_answers_it(
    method, enrolled, monkeypatch
):
    mine = enrolled[enrolled.groups == enrolled.groups[0]]
    method.enrol(mine)
    itself = int(rows_in(method.own, mine.ids[:1])[0])
    is_counted = []

    def counted(unmoved):
        is_counted.extend(sorted(each.labels) for each in unmoved)
        return movements(unmoved)

    monkeypatch.setattr(speakers, "movements", counted)
    method.moves([OwnBut(str(mine.groups[0]), itself)], CODES["a"])
    n_conditions = len(method.own_linear.fitted_codes())
    assert is_counted == [sorted(mine.labels[1:])] * n_conditions


def test_speakers_move_their_regressions_alike_together_and_one_by_one(method, enrolled, asked):
    method.enrol(enrolled)
    together = moved(method, asked)
    apart = np.zeros_like(together)
    for name in np.unique(asked.groups):
        method.store.update(enrolled.ids, labels=enrolled.labels)  # nothing is kept after a change
        mine = asked.groups == name
        apart[mine] = moved(method, asked[mine])
    assert_allclose(together, apart, atol=1e-4)


def test_a_corrected_label_moves_the_regression_anew(method, enrolled, asked):
    method.enrol(enrolled)
    before = moved(method, asked)
    wrong = (enrolled.labels + 1) % len(enrolled.classes)
    method.store.update(enrolled.ids, labels=wrong)
    assert np.abs(moved(method, asked) - before).max() > 0.05


def test_a_saved_method_moves_its_regressions_alike(method, enrolled, asked, tmp_path):
    method.enrol(enrolled)
    method.save(tmp_path / "model")
    assert_allclose(moved(load_method(tmp_path / "model"), asked), moved(method, asked), atol=1e-6)


def test_a_method_that_has_answered_a_known_speaker_can_be_pickled(method, enrolled, asked):
    method.enrol(enrolled)
    answers = moved(method, asked)
    again = pickle.loads(pickle.dumps(method))
    assert_array_equal(moved(again, asked), answers)
    wrong = (enrolled.labels + 1) % len(enrolled.classes)
    again.store.update(enrolled.ids, labels=wrong)
    assert np.abs(moved(again, asked) - answers).max() > 0.05
    assert_array_equal(moved(method, asked), answers)


def test_few_movements_are_kept_and_the_answers_stay(method, enrolled, asked, monkeypatch):
    method.enrol(enrolled)
    answers = moved(method, asked)
    monkeypatch.setattr(speakers, "MOST_MOVES", 2)
    method.store.update(enrolled.ids, labels=enrolled.labels)  # nothing is kept after a change
    for name in np.unique(asked.groups):
        mine = asked.groups == name
        assert_allclose(moved(method, asked[mine]), answers[mine], atol=1e-4)
        assert len(method.of_own("moves", dict)) <= 2
