"""Flags and limits that every test shares."""

import os

os.environ.setdefault("MPLBACKEND", "agg")
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import pytest


def pytest_addoption(parser):
    parser.addoption(
        "--slow", action="store_true", help="also run cells flagged `#| slow` and slow tests"
    )


def pytest_itemcollected(item):
    "A file's tests share what they set up, so one worker runs them; notebooks share nothing."
    if item.path.stem != "test_notebooks":
        item.add_marker(pytest.mark.xdist_group(item.path.stem))


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs --slow"))
