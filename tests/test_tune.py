"""Tuning goes on after a kill to the trials that it would have made, and never sees a test clip."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
pytest.importorskip("optuna")


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    "A folder of clips with a test split."
    from ramer.data.datasets import load_dataset
    from ramer.data.folders import Corpus, write_folder

    clips, _ = load_dataset("gaussian").parts(0)
    split = np.repeat(["train", "dev", "test"], 100)
    folder = tmp_path_factory.mktemp("tune") / "features"
    write_folder(Corpus(clips[:300], split=split), folder)
    return folder


def command(features, out, *more):
    asked = ["--method", "one-logistic", "--method", "knn", "--trials", "7", "--out", str(out)]
    return ["tune", str(features), *asked, *more]


def tuned(features, out, *more):
    "The table of trials, without seconds."
    from ramer.cli import main

    with pytest.raises(SystemExit) as ended:
        main(command(features, out, *more))
    assert not ended.value.code
    return pd.read_csv(out / "tuning.csv").drop(columns="seconds")


def begun(features, out):
    "A process that tunes."
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    asked = [sys.executable, "-m", "ramer", *command(features, out)]
    return subprocess.Popen(asked, stderr=subprocess.DEVNULL, env=environment)


def test_a_killed_and_a_doubled_tuning_make_each_trial_once(features, tmp_path):
    whole = tuned(features, tmp_path / "whole")
    assert (whole.method.value_counts() == 7).all()
    killed = tmp_path / "killed"
    process = begun(features, killed)
    while not list(killed.glob("tuning/*/*/*.json")):
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in killed.glob("tuning/*/*/*.json")}
    assert len(kept) < len(list(tmp_path.glob("whole/tuning/*/*/*.json")))
    beside = begun(features, killed)  # two at once go on
    while len(list(killed.glob("tuning/*/*/*.json"))) == len(kept) and beside.poll() is None:
        time.sleep(0.01)
    table = tuned(features, killed)
    assert beside.wait() == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    pd.testing.assert_frame_equal(table, whole)


def test_test_clips_decide_nothing(features, tmp_path):
    from ramer.data.folders import read_folder, write_folder

    whole = tuned(features, tmp_path / "whole", "--trials", "6")
    corpus = read_folder(features)
    write_folder(corpus[corpus.split != "test"], tmp_path / "without")
    without = tuned(tmp_path / "without", tmp_path / "trials", "--trials", "6")
    pd.testing.assert_frame_equal(without, whole)


def test_trials_of_other_clips_are_refused_by_name(features, tmp_path, capsys):
    from ramer.cli import main
    from ramer.data.folders import read_folder, write_folder

    tuned(features, tmp_path / "out", "--trials", "1")
    write_folder(read_folder(features)[50:], tmp_path / "fewer")
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(command(tmp_path / "fewer", tmp_path / "out"))
    said = capsys.readouterr().err
    assert ended.value.code == 2 and len(said.splitlines()) == 1
    assert "other data_hash" in said
