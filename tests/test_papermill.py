"""The experiment notebooks run with other parameters, and the sweep goes on, refuses, reports."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import product
from multiprocessing import active_children, get_context
from pathlib import Path

import pandas as pd
import papermill
import pytest

from ramer.cli import main
from ramer.runs.grids import Part, grid_parts
from ramer.runs.jobs import Job, resources_job, train_jobs, tune_jobs
from ramer.runs.sweep import check_parameters, ended_jobs, experiments, run_jobs

ROOT = Path(__file__).parents[1]
EXPERIMENTS = sorted((ROOT / "nbs" / "experiments").rglob("*.ipynb"))
STUDY_NOTEBOOKS = [path for path in EXPERIMENTS if path.parent.name == "studies"]
TINY = {
    "dataset": "gaussian",
    "folds": [0, 1],
    "seeds": [0],
    "methods": ["prior", "zero", "ramer"],
    "changes": {"epochs": 1},
}


def run_notebook(name, parameters):
    "Run an experiment notebook in this process, as papermill would; returns the shell."
    from execnb.nbio import dict2nb
    from execnb.shell import CaptureShell
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    path = ROOT / "nbs" / "experiments" / f"{name}.ipynb"
    kernel = {"kernel_name": "python3", "language": "python"}
    notebook = parameterize_notebook(load_notebook_node(str(path)), parameters, **kernel)
    shell = CaptureShell(path)
    home = os.getcwd()
    os.chdir(path.parent)
    try:
        shell.run_all(dict2nb(notebook), exc_stop=True)
    finally:
        os.chdir(home)
    return shell


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    "A runs folder that the train notebook and two condition notebooks have filled."
    folder = tmp_path_factory.mktemp("runs")
    run_notebook("train", TINY | {"runs": str(folder)})
    for condition in ("l", "avl"):
        run_notebook("condition", TINY | {"runs": str(folder), "condition": condition})
    return folder


def test_train_and_condition_notebooks_leave_whole_run_folders(runs):
    folders = sorted(runs.glob("gaussian/*/*/fold*-seed0"))
    whole = {"DONE", "config.json", "train.json", "model", "l.json", "avl.json"}
    assert len(folders) == 6
    for folder in folders:
        assert {path.name for path in folder.iterdir()} == whole


def test_tables_notebook_writes_tables_that_lines_support(runs, tmp_path):
    from ramer.report.tables import read_table

    for condition in ("a", "v", "av", "al", "vl"):
        run_notebook("condition", TINY | {"runs": str(runs), "condition": condition})
    folders = {"results": str(tmp_path), "committed": str(tmp_path / "none")}
    run_notebook("tables", folders | {"runs": str(runs)})
    table = read_table(tmp_path)
    assert set(table.condition) == {"a", "v", "l", "av", "al", "vl", "avl", "missing"}
    assert set(table.method) == {"prior", "zero", "ramer"}
    assert "21 not committed" in (tmp_path / "comparison.txt").read_text()


def test_runs_are_a_table_in_one_line_and_curves_for_tensorboard(runs, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    import ramer
    from ramer.runs.results import write_events

    table = ramer.read_runs(runs)
    assert (table.condition.value_counts()[["l", "avl"]] == 2 * 3).all()  # folds x methods
    for _ in range(2):  # again, and nothing is doubled
        folders = write_events(runs, tmp_path / "events")
        assert len(folders) == 6 and all(len(list(f.iterdir())) == 1 for f in folders)
    (folder,) = [f for f in folders if "ramer" in f.parts and "fold1" in f.name]
    events = EventAccumulator(str(folder)).Reload()
    row = table.query("method == 'ramer' and fold == 1 and condition == 'l'")
    assert events.Scalars("WA/l")[0].value == pytest.approx(row.WA.item())
    assert len(events.Scalars("stage3/dev UA")) == TINY["changes"]["epochs"]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_papermill_sees_the_parameters(path):
    known = papermill.inspect_notebook(str(path))
    assert known, "a cell tagged 'parameters'"
    assert all(parameter["help"] for parameter in known.values()), "one commented line each"


def test_sweep_refuses_a_notebook_without_parameters(tmp_path):
    import nbformat

    bare = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1")])
    nbformat.write(bare, tmp_path / "bare.ipynb")
    with pytest.raises(ValueError, match="no cell tagged 'parameters'"):
        check_parameters(tmp_path / "bare.ipynb", {})


def test_every_grid_covers_the_required_methods():
    required = {"zero", "mean", "random", "prior", "ramer"}
    for name in ("default", "publish"):
        methods = {}
        for part in grid_parts(name):
            methods.setdefault(part.dataset, set()).update(part.methods)
        methods.pop("mer2024-shaped")
        assert all(required <= held for held in methods.values())


def test_a_job_is_there_for_every_run_of_a_part():
    part = Part("gaussian", ("zero",), (0, 1, 2), seeds=(0, 3), folds_each=2)
    jobs = train_jobs([part], Path("runs"), {}, Path("tuning"))
    ran = []
    for job in jobs:
        ran += product(job.parameters["seeds"], job.parameters["folds"])
    assert sorted(ran) == [(seed, fold) for seed in (0, 3) for fold in (0, 1, 2)]


def test_tuning_is_one_job_for_a_method_and_two_folds_of_a_real_set():
    real = [part for part in grid_parts("publish") if part.dataset == "mosi"]
    if not real:
        pytest.skip("the files of mosi are not here")
    folds = {}
    for job in tune_jobs(real, Path("runs"), {}):
        (method,), (fold,) = job.parameters["methods"], job.parameters["folds"]
        folds.setdefault(method, []).append(fold)
    assert {"zero", "ramer", "ae", "logistic"} < set(folds)
    assert not {"prior", "mean", "random", "ae-published"} & set(folds)  # no trials of their own
    assert all(tuned == [0, 2, 4] for tuned in folds.values())


def test_train_and_condition_notebooks_use_what_the_tune_notebook_chose(tmp_path):
    from ramer.runs.results import collect
    from ramer.runs.tuning import collect_tuning, read_tuning

    methods = ["knn", "ramer"]  # whose trials change one field, or another one
    small = {"dataset": "gaussian", "methods": methods, "folds": [0, 1]}
    small |= {"runs": str(tmp_path / "runs"), "changes": {"epochs": 1}}
    run_notebook("tune", small)
    collect_tuning(tmp_path / "runs", tmp_path / "tuning")
    chosen = read_tuning(tmp_path / "tuning", "gaussian")
    tuned = small | {"tuning": str(tmp_path / "tuning")}
    run_notebook("train", tuned)
    run_notebook("condition", tuned | {"condition": "l"})
    configs = tmp_path.glob("runs/gaussian/knn/*/*/config.json")
    ran = {json.loads(path.read_text())["config"]["k"] for path in configs}
    assert len(chosen) == 2 * 5 and ran == {chosen["knn", 0]["k"]}
    assert chosen["knn", 0] == chosen["knn", 1]
    files = [path.name for path in collect(tmp_path / "runs", tmp_path)]
    assert files == ["clips.jsonl", "knn.jsonl", "ramer.jsonl"]


def sweep_command(folder):
    changes = ["--set", '{"epochs": 1}']
    return [sys.executable, "-m", "ramer", "sweep", "quick", "--runs", str(folder), *changes]


def processes_of(folder):
    "Command lines of running processes that name a folder."
    listed = subprocess.run(["ps", "axo", "args"], capture_output=True, text=True).stdout
    return [line for line in listed.splitlines() if str(folder) in line]


@pytest.mark.slow
def test_a_killed_sweep_leaves_no_process_and_goes_on_to_the_same_tables(tmp_path):
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = sweep_command(tmp_path / "killed")
    process = subprocess.Popen(command, start_new_session=True, **quiet)
    while not list((tmp_path / "killed").glob("gaussian/*/*/*/DONE")):
        time.sleep(0.2)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(5)
    assert not processes_of(tmp_path), "a worker or kernel lives on"
    done = list((tmp_path / "killed").glob("*/*/*/*/DONE"))
    stamps = {path: path.stat().st_mtime_ns for path in done}
    tables = []
    for name in ("killed", "whole"):
        subprocess.run(sweep_command(tmp_path / name), check=True, capture_output=True)
        path = tmp_path / name / "results" / "tables" / "conditions.csv"
        tables.append(pd.read_csv(path).drop(columns="seconds"))
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items()), (
        "a run was redone"
    )
    assert tables[0].equals(tables[1])


@pytest.mark.slow
def test_the_leaks_notebook_measures_what_each_leak_is_worth(tmp_path):
    small = {"dataset": "gaussian", "methods": ["ramer"], "changes": {"epochs": 1}}
    table = run_notebook("leaks", small | {"runs": str(tmp_path)}).user_ns["table"]
    of_training = {"stage1", "selection", "features", "train-features", "features-labels"}
    of_store = {"store", "recipe"}
    dropped = {"first-dropped", "store-first-dropped", "recipe-first-dropped"}
    assert set(table.leak) == of_training | of_store | dropped and len(table) == 10 * 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here")
def test_a_process_that_is_killed_is_an_error_of_its_job_alone(monkeypatch):
    def dies_of_one(job, key, timeout, environment, code, tells):
        if job.notebook == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        tells.send("" if job.notebook == "well" else f"{key} went wrong")

    monkeypatch.setattr("ramer.runs.sweep.work", dies_of_one)
    jobs = [Job(name, Path(name), {}) for name in ("well", "killed", "wrong", "well")]
    keyed = [(job, job.notebook) for job in jobs]
    ended = [(job.notebook, error) for job, error in ended_jobs(keyed, 2, get_context("fork"), 1)]
    memory = "killed, perhaps for want of memory"
    assert sorted(ended) == [
        ("killed", f"its process ended with exit code -9 ({memory}); see its .log"),
        ("well", ""),
        ("well", ""),
        ("wrong", "wrong went wrong"),
    ]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here")
def test_at_the_first_error_the_others_are_ended_if_asked(monkeypatch, tmp_path):
    def goes_wrong(job, key, timeout, environment, code, tells):
        job.out.write_text("begun")
        if job.parameters["seeds"] != [0]:
            time.sleep(600)
        tells.send("went wrong")

    monkeypatch.setattr("ramer.runs.sweep.work", goes_wrong)
    monkeypatch.setattr("ramer.runs.sweep.job_context", lambda: get_context("fork"))
    jobs = [Job("train", tmp_path / f"{seed}.ipynb", {"seeds": [seed]}) for seed in range(4)]
    (failed,) = run_jobs(jobs, 2, "train", fail_fast=True)
    assert failed == (jobs[0], "went wrong")
    assert not active_children()
    assert {path.name for path in tmp_path.iterdir()} <= {"0.ipynb", "0.error", "1.ipynb"}
    assert (tmp_path / "0.error").read_text() == "went wrong"


def test_there_is_a_notebook_for_each_study():
    from ramer.studies.registry import STUDIES

    assert {path.stem for path in STUDY_NOTEBOOKS} == {*STUDIES, "resources"}
    assert experiments() == ROOT / "nbs" / "experiments"


@pytest.mark.slow
def test_the_resources_notebook_measures_each_stage_at_each_size(tmp_path):
    from ramer.studies.registry import STUDIES
    from ramer.studies.text import write_page

    job = resources_job(tmp_path / "runs", tmp_path)
    job.parameters.update(sizes=[100, 200], methods=["ramer", "ramer-gated"], repeats=1, epochs=1)
    assert not run_jobs([job], 1, "resources")
    folder = tmp_path / "studies" / "resources"
    table = pd.read_csv(folder / "table.csv")
    stages = {method: list(dict.fromkeys(rows.stage)) for method, rows in table.groupby("method")}
    assert stages["ramer"] == ["stage 1", "stage 2", "stage 3", "an answer"]
    assert stages["ramer-gated"] == ["stage 1", "stage 3", "keys and gate", "an answer"]
    assert set(table.clips) == {100, 200} and (table[["seconds", "memory"]] > 0).all(axis=None)
    assert (folder / "figure.png").exists()
    smallest = table[table.clips == 100].filter(like="times ").dropna()
    assert (smallest == 1).all(axis=None)  # ratios are to the smallest
    answer = (folder / "answer.md").read_text().split("\n\n")[1]
    fits = table[(table.clips == 200) & (table.stage != "an answer")].groupby("method").cpu.sum()
    ratio = fits["ramer-gated"] / fits["ramer"]
    assert f"*ramer-gated* {ratio:.1f} times the processor seconds to fit" in answer
    assert answer in write_page(tmp_path, STUDIES)


@pytest.mark.parametrize(
    "arguments, meant",
    [
        (["study", "fusoin"], "fusion"),
        (["study", "fusion", "--dataset", "gausian"], "gaussian"),
        (["sweep", "publish", "--method", "mmim"], "mmin"),
        (["sweep", "default", "--dataset", "gausian"], "gaussian"),
        (["sweep", "defualt"], "default"),
    ],
)
def test_a_wrong_name_ends_a_command_with_one_line(arguments, meant, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and f"did you mean '{meant}'" in lines[0]


def test_a_study_of_what_a_data_set_lacks_ends_without_a_run(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["study", "enrolment", "--dataset", "gaussian", "--runs", str(tmp_path)])
    assert not ended.value.code and "nothing was run" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.ipynb"))


OF_MANY_FITS = ("across", "correlation", "extractors", "parts", "quality", "retrieval")
WORLDS_OF_THEIR_OWN = ("map", "unlabelled")


def answered_notebooks():
    "The notebooks of studies; those slow whose arms train much, each of which its library runs."
    for path in STUDY_NOTEBOOKS:
        long = path.stem in (*OF_MANY_FITS, *WORLDS_OF_THEIR_OWN)
        slow = [pytest.mark.slow] if long else []
        if path.stem != "resources":
            yield pytest.param(path, marks=slow, id=path.stem)


@pytest.mark.parametrize("path", list(answered_notebooks()))
def test_a_study_notebook_answers_from_its_runs_and_goes_on(path, tmp_path, monkeypatch):
    from ramer.data.datasets import available_datasets
    from ramer.studies.engine import read_study, study_table
    from ramer.studies.registry import STUDIES, find_study
    from ramer.studies.text import answer, write_page, written_table

    monkeypatch.setattr("ramer.studies.store_value.POOLS", (100, 200))  # of up to 100,000 clips
    study = find_study(path.stem)
    of_people = {
        "enrolment": "ravdess",
        "adapting": "ravdess",
        "centring": "ravdess",
        "extractors": "mosi",
    }  # worlds: none
    dataset = of_people.get(path.stem, "gaussian")
    if path.stem == "extractors":
        pytest.importorskip("all_minilm_l6_v2")
    if dataset not in available_datasets():
        pytest.skip(f"the files of {dataset} are not here")
    other = next(arm for arm in study.arms if arm != study.reference)
    results = tmp_path / "results"
    small = {"datasets": [dataset], "folds": [0], "arms": [study.reference, other]}
    small |= {"changes": {"epochs": 1}, "runs": str(tmp_path), "results": str(results)}

    def stamps():
        files = tmp_path.glob("studies/*/*/*.json")
        return {file: file.stat().st_mtime_ns for file in files}

    run_notebook(f"studies/{path.stem}", small)
    first = stamps()
    run_notebook(f"studies/{path.stem}", small)
    assert stamps() == first and len(first) == 2  # what ran is not run again
    folder = results / "studies" / path.stem
    kept = {file.name for file in folder.iterdir()} - {"clips"}
    assert kept == {f"{dataset}.jsonl", "table.csv", "figure.png", "answer.md"}
    table = written_table(results, path.stem)
    again = study_table(study, read_study(results, path.stem))
    pd.testing.assert_frame_equal(table, again, check_dtype=False, atol=1e-6)
    compared = table[table.reference.isin(study.arms)]
    assert set(compared.arm) == {study.reference, other} and (table.runs == 1).all()
    text = answer(study, table)
    assert text in (folder / "answer.md").read_text()
    assert text in write_page(results, STUDIES)
