"""Clips without labels that say how their speaker differs: for any method, wherever it goes."""

from dataclasses import replace

import numpy as np
import pytest
from house import as_sent
from method_kinds import POOLED
from numpy.testing import assert_allclose, assert_array_equal
from typer.testing import CliRunner

from ramer.cli import app
from ramer.conditions import all_conditions, condition_mask
from ramer.data.datasets import load_dataset
from ramer.data.folders import Corpus, write_folder
from ramer.data.worlds import with_speakers
from ramer.evaluation.protocol import Protocol, make_judge
from ramer.methods.base import copy_of, store_names
from ramer.methods.registry import configure, load_method, make_method
from ramer.models import enrol, forget, kept_clips
from ramer.retrieval.store import load_store

NAMES = ("zero", "lda", "ramer", "ramer-gated", *POOLED)


@pytest.fixture(scope="module")
def parts():
    protocol = Protocol(load_dataset("gaussian"))
    _, test = load_dataset("gaussian").parts(0)
    named = ((protocol.train[:240], "t", 20), (protocol.dev[:120], "d", 12), (test[:120], "x", 8))
    return [
        with_speakers(clips, name, n, apart=2, seed=seed)
        for seed, (clips, name, n) in enumerate(named)
    ]


def fitted_as(name, parts, how="group"):
    config = configure("gaussian", name, epochs=2, centring=how)
    return make_method(config).fit(*parts[:2])


@pytest.fixture(scope="module")
def fitted(parts):
    return {name: fitted_as(name, parts) for name in NAMES}


def every(clips, condition="a"):
    return condition_mask(condition, len(clips))


@pytest.mark.parametrize("name", NAMES)
def test_the_order_and_the_hidden_do_not_matter(name, fitted, parts):
    method, test = fitted[name], parts[2]
    turned = np.random.default_rng(0).permutation(len(test))
    for condition in all_conditions(test.modalities):
        answers = method.predict_proba(test, every(test, condition))
        assert_allclose(answers.sum(1), 1, atol=1e-5)
        absent = set(test.modalities) - set(condition)
        noise = {m: 9 * np.ones_like(test.features[m]) for m in absent}
        spoiled = test.with_features(**noise)
        assert_array_equal(method.predict_proba(spoiled, every(test, condition)), answers)
        others = method.predict_proba(test[turned], every(test, condition))
        assert_allclose(others, answers[turned], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_names_of_speakers_and_labels_do_not_matter(name, fitted, parts):
    method, test = fitted[name], parts[2]
    answers = method.predict_proba(test)
    renamed = replace(test, groups=np.char.add("speaker ", test.groups))
    assert_array_equal(method.predict_proba(renamed), answers)
    assert_array_equal(method.predict_proba(test.without_labels()), answers)
    judged = make_judge(test)(method.predict_proba, "avl")  # opaque names, another order
    assert_allclose(judged.probabilities, answers, atol=1e-5)
    assert method.transductive


@pytest.mark.parametrize("name", NAMES)
def test_what_is_enrolled_without_labels_goes_to_disk_and_can_be_forgotten(
    name, fitted, parts, tmp_path
):
    method, test = copy_of(fitted[name]), parts[2]
    known, asked = test[:40], test[40:]
    before = method.predict_proba(asked, every(asked))
    enrol(method, known.without_labels())
    after = method.predict_proba(asked, every(asked))
    assert np.abs(after - before).max() > 1e-3
    assert_array_equal(fitted[name].predict_proba(asked, every(asked)), before)
    method.save(tmp_path / "model")
    loaded = load_method(tmp_path / "model")
    assert_array_equal(loaded.predict_proba(asked, every(asked)), after)
    assert (load_store(tmp_path / "model/known").labels == -1).all()
    receipt = forget(loaded, groups=np.unique(known.groups))
    assert set(receipt.clips) == set(known.ids)
    assert not set(kept_clips(loaded)) & set(known.ids)
    assert_allclose(loaded.predict_proba(asked, every(asked)), before, atol=1e-6)
    loaded.save(tmp_path / "model", replace_existing=True)
    assert not (tmp_path / "model/known").exists()


def test_a_clip_that_comes_alone_is_answered_as_it_is(fitted, parts):
    method, test = fitted["lda"], parts[2]
    alone = [method.predict_proba(test[[row]], every(test[[row]])) for row in range(8)]
    assert_allclose(np.concatenate(alone), method.inner.predict_proba(test[:8], every(test[:8])))


def test_labelled_clips_also_vote_and_are_explained(fitted, parts):
    method, test = copy_of(fitted["ramer-gated"]), parts[2]
    enrol(method, test[:40])
    assert store_names(method) == ["known"]
    assert {"known": len(method.known), "store": len(method.store)} == {"known": 40, "store": 280}
    hits = method.explain(test[40:60].without_labels(), "a")
    assert np.isin(hits.ids, [*method.store.ids]).all()
    with pytest.raises(ValueError, match="already stored"):
        method.enrol(test[:41])
    assert (len(method.known), len(method.store)) == (40, 280)


def test_a_store_is_not_emptied_while_clips_without_labels_are_left(fitted, parts):
    method = copy_of(fitted["ramer"])
    enrol(method, parts[2][:10].without_labels())
    with pytest.raises(ValueError, match="name some and leave some"):
        forget(method, groups=np.unique(parts[0].groups))
    assert len(method.store) == len(parts[0])
    forget(method, groups=np.unique(parts[2].groups[:10]))
    assert len(method.known) == 0


def test_dev_may_say_no_and_then_nothing_is_centred(parts):
    train, dev, test = (
        replace(clips, groups=np.char.add(clips.labels.astype(str), clips.groups))
        for clips in [c.with_features(a=c.features["a"]) for c in parts]
    )
    method = fitted_as("lda", (train, dev), "dev")
    assert not method.is_centred and not method.transductive
    plain = fitted_as("lda", (train, dev), "none")
    assert_array_equal(method.predict_proba(test), plain.predict_proba(test))


def test_groups_of_one_clip_each_are_refused(parts):
    alone = [replace(clips, groups=clips.ids) for clips in parts[:2]]
    with pytest.raises(ValueError, match="give clips the groups, their speakers"):
        fitted_as("lda", alone)


def test_the_command_line_centres_enrols_and_forgets(parts, tmp_path):
    def typed(*words):
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, (done.output, done.exception)
        return done

    def written(clips, name):
        write_folder(Corpus(clips), tmp_path / name)
        return tmp_path / name

    learned, test = written(parts[0], "learned"), parts[2]
    model = tmp_path / "model"
    said = typed("train", learned, "--out", model, "--method", "lda", "--centre")
    assert "clips are centred" in said.stderr
    known, asked = test[:40].without_labels(), test[40:]
    question = ("predict", model, written(asked, "asked"), "--given", "a")
    before = typed(*question).stdout
    enrolled = typed("enrol", written(known, "known"), model)
    assert "40 clips enrolled; the store has 40" in enrolled.stderr
    assert typed(*question).stdout != before
    speakers = [word for group in np.unique(known.groups) for word in ("--group", group)]
    typed("forget", model, *speakers)
    assert typed(*question).stdout == before


def test_a_service_takes_clips_without_labels_for_what_centres(fitted, parts, tmp_path):
    pytest.importorskip("fastapi", reason="fastapi is not installed (pip install 'ramer[serve]')")
    from fastapi.testclient import TestClient

    from ramer.service import make_app

    def sent(clips):
        named = zip(as_sent(clips), clips.groups.tolist())
        return [clip | {"group": group} for clip, group in named]

    test, header = parts[2], {"Authorization": "Bearer a-token"}
    for name, method in {"centred": fitted["zero"], "plain": fitted["zero"].inner}.items():
        method.save(tmp_path / name)
        with TestClient(make_app(tmp_path / name, "a-token")) as client:
            question = {"clips": sent(test[40:41]), "given": "a"}
            before = client.post("/predict", json=question).json()
            told = client.post("/enrol", json={"clips": sent(test[:40])}, headers=header)
            if name == "plain":
                assert told.status_code == 422, told.text
                assert "has no label" in told.json()["detail"]
            else:
                assert told.json() == {"enrolled": 40, "stored": 40}, told.text
                assert client.post("/predict", json=question).json() != before


def test_estimators_centre_by_groups(parts):
    from ramer.estimators import GatedRetrievalClassifier

    train, _, test = parts
    model = GatedRetrievalClassifier(epochs=2, settings={"centring": "group"})
    model.fit(train.features, train.labels, groups=train.groups)
    alone = model.predict_proba(test.features)
    together = model.predict_proba(test.features, groups=test.groups)
    assert np.abs(alone - together).max() > 0.05
    assert_array_equal(model.predict(test.features, test.groups), together.argmax(1))


def test_a_graph_cannot_centre(fitted, parts, tmp_path):
    pytest.importorskip("onnxscript", reason="onnx is not installed (pip install 'ramer[onnx]')")
    from ramer.onnx_export import OnnxModel, export_onnx

    with pytest.raises(ValueError, match="train without centring to export it"):
        export_onnx(fitted["zero"], tmp_path / "graphs")
    leaning = [replace(c, groups=np.char.add(c.labels.astype(str), c.groups)) for c in parts]
    method = fitted_as("one-logistic", leaning, "dev")
    assert not method.is_centred
    export_onnx(method, tmp_path / "graphs")
    answers = OnnxModel(tmp_path / "graphs").predict_proba(parts[2])
    assert_allclose(answers, method.predict_proba(parts[2]), atol=1e-4)
