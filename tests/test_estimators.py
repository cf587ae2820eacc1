"""The estimators among others: scikit-learn's checks and tools, iMML's splitters and imputers."""

import numpy as np
import pandas as pd
import pytest
import sklearn
from imml.ampute import Amputer
from imml.impute import DFMFImputer, MOFAImputer
from imml.model_selection import MMSplitter
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from ramer.estimators import (
    GatedRetrievalClassifier,
    MissingModalityImputer,
    PooledRetrievalClassifier,
    RAMERClassifier,
)

IN_FLOAT32 = "networks answer in float32, whose sums differ in the last digits with the batch"
ROUNDED = {
    "check_methods_sample_order_invariance": IN_FLOAT32,
    "check_methods_subset_invariance": IN_FLOAT32,
}
QUICK = {"epochs": 25, "patience": 6}


def failed_checks(estimator, expected=None):
    "The names and messages of scikit-learn's checks that fail, but for the expected ones."
    results = check_estimator(
        estimator, expected_failed_checks=expected or {}, on_skip=None, on_fail=None
    )
    assert len(results) > 40
    return {r["check_name"]: r["exception"] for r in results if r["status"] == "failed"}


@pytest.mark.parametrize("kind", [RAMERClassifier, MissingModalityImputer])
def test_estimators_pass_the_checks_of_scikit_learn(kind):
    assert failed_checks(kind(**QUICK)) == {}


@pytest.mark.slow  # about three minutes each
@pytest.mark.parametrize("kind", [GatedRetrievalClassifier, PooledRetrievalClassifier])
def test_the_voting_classifiers_pass_the_checks_of_scikit_learn(kind):
    assert failed_checks(kind(epochs=40, patience=10), ROUNDED) == {}


BLOCKS = {"a": slice(0, 5), "l": slice(5, 12)}
Y = np.array(["angry", "happy", "sad"])[np.arange(90) % 3]
SPEAKERS = np.array([f"speaker-{i}" for i in np.arange(90) // 6])


def drawn_views():
    "Two modalities of ninety clips, as iMML has them."
    generator = np.random.default_rng(0)
    labels = np.unique(Y, return_inverse=True)[1]
    return [generator.normal(size=(90, width)) + labels[:, None] for width in (5, 7)]


def lacking_views():
    "The same with about a third of the clips without one of them, by iMML's amputer."
    return Amputer(p=0.3, random_state=0).fit_transform(drawn_views())


def small(kind=RAMERClassifier, **options):
    return kind(epochs=8, patience=8, **options)


def test_imml_splits_what_we_classify():
    reached = []
    splitter = MMSplitter(StratifiedKFold(3), return_type="sets")
    for train, test, y_train, y_test in splitter.split(lacking_views(), Y):
        reached.append(small().fit(train, y_train).score(test, y_test))
    assert len(reached) == 3 and np.mean(reached) > 0.5


@pytest.mark.parametrize("imputer", [DFMFImputer, MOFAImputer])
def test_what_imml_fills_we_classify(imputer):
    filled = imputer(n_components=4, random_state=0).fit_transform(lacking_views())
    views = [np.asarray(view) for view in filled]
    assert small().fit(views, Y).score(views, Y) > 0.5


def test_what_we_fill_imml_splits():
    lacking = lacking_views()
    filled = small(MissingModalityImputer).fit(lacking, Y).transform(lacking)
    assert not any(np.isnan(view).any() for view in filled)
    for given, view in zip(lacking, filled):
        known = ~np.isnan(given).any(1)
        np.testing.assert_array_equal(view[known], given[known])
    [first, *_] = MMSplitter(StratifiedKFold(3), return_type="sets").split(filled, Y)
    assert small().fit(first[0], first[2]).score(first[1], first[3]) > 0.5


CLASSIFIERS = [RAMERClassifier, GatedRetrievalClassifier, PooledRetrievalClassifier]


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_scikit_learns_tools_take_the_classifiers(kind):
    X = np.concatenate(lacking_views(), 1)
    model = small(kind, blocks=BLOCKS)
    assert clone(model).get_params() == model.get_params()
    assert cross_val_score(model, X, Y, cv=3).mean() > 0.5
    tried = {"settings": [{"k": 3}, {"k": 9}]}
    search = GridSearchCV(model, tried, cv=2).fit(X, Y)
    assert search.best_params_["settings"] in tried["settings"]
    assert set(search.predict(X)) <= set(Y)


def test_groups_are_routed_to_the_fit():
    X = np.concatenate(lacking_views(), 1)
    with sklearn.config_context(enable_metadata_routing=True):
        model = small(blocks=BLOCKS).set_fit_request(groups=True)
        reached = cross_val_score(model, X, Y, cv=GroupKFold(3), params={"groups": SPEAKERS})
    assert reached.mean() > 0.5
    fitted = small(blocks=BLOCKS).fit(X, Y, groups=SPEAKERS)
    assert set(fitted.method_.store.groups) < set(SPEAKERS)  # whole speakers are dev


def test_the_imputer_stands_in_a_pipeline():
    table = pd.DataFrame(np.concatenate(lacking_views(), 1), columns=[f"x{i}" for i in range(12)])
    names = {m: [f"x{i}" for i in range(12)[columns]] for m, columns in BLOCKS.items()}
    pipeline = make_pipeline(small(MissingModalityImputer, blocks=names), LogisticRegression())
    assert pipeline.fit(table, Y).score(table, Y) > 0.7
    assert list(pipeline[0].get_feature_names_out()) == list(table)
    imputer = small(MissingModalityImputer, blocks=BLOCKS).set_output(transform="pandas")
    filled = imputer.fit_transform(table.to_numpy(), Y)
    assert isinstance(filled, pd.DataFrame) and filled.notna().all(axis=None)
