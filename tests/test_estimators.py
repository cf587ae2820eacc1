"""scikit-learn's own checks of the estimators, with the exceptions and their reasons."""

import pytest
from sklearn.utils.estimator_checks import check_estimator

from ramer.estimators import GatedRetrievalClassifier, MissingModalityImputer, RAMERClassifier

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


@pytest.mark.slow  # about three minutes
def test_the_gated_classifier_passes_the_checks_of_scikit_learn():
    assert failed_checks(GatedRetrievalClassifier(epochs=40, patience=10), ROUNDED) == {}
