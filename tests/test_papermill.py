"""The experiment notebooks run with other parameters, and the sweep that drives them goes on, refuses and reports."""
import json, os, signal, subprocess, sys, time
from pathlib import Path

import papermill
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT/"tools"))
import sweep

EXPERIMENTS = sorted((ROOT/"nbs"/"experiments").glob("*.ipynb"))
TINY = {"dataset": "gaussian", "folds": [0, 1], "seeds": [0], "methods": ["prior", "zero", "ramer"], "changes": {"epochs": 1}}


def run_notebook(name, parameters):
    "Run an experiment notebook in this process, as papermill would; returns the shell."
    from execnb.nbio import dict2nb
    from execnb.shell import CaptureShell
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook
    path = ROOT/"nbs"/"experiments"/f"{name}.ipynb"
    notebook = parameterize_notebook(load_notebook_node(str(path)), parameters, kernel_name="python3", language="python")
    shell, here = CaptureShell(path), os.getcwd()
    os.chdir(path.parent)
    try: shell.run_all(dict2nb(notebook), exc_stop=True)
    finally: os.chdir(here)
    return shell


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    "A runs folder that the train notebook and two condition notebooks have filled."
    folder = tmp_path_factory.mktemp("runs")
    run_notebook("train", TINY | {"runs": str(folder)})
    for condition in ("l", "avl"): run_notebook("condition", TINY | {"runs": str(folder), "condition": condition})
    return folder


def test_train_and_condition_notebooks_leave_whole_run_folders(runs):
    folders = sorted(runs.glob("gaussian/*/*/fold*-seed0"))
    assert len(folders) == 6
    for folder in folders: assert {"DONE", "config.json", "train.json", "model", "l.json", "avl.json"} == {p.name for p in folder.iterdir()}


def test_tables_notebook_writes_tables_that_lines_support(runs, tmp_path):
    from ramer.report import read_table
    for condition in ("a", "v", "av", "al", "vl"): run_notebook("condition", TINY | {"runs": str(runs), "condition": condition})
    run_notebook("tables", {"runs": str(runs), "results": str(tmp_path), "committed": str(tmp_path/"none")})
    table = read_table(tmp_path)
    assert set(table.condition) == {"a", "v", "l", "av", "al", "vl", "avl", "missing"} and set(table.method) == {"prior", "zero", "ramer"}
    assert "21 not committed" in (tmp_path/"comparison.txt").read_text()


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda p: p.stem)
def test_papermill_sees_the_parameters(path):
    known = papermill.inspect_notebook(str(path))
    assert known and all(p["help"] for p in known.values()), "a cell tagged 'parameters', one commented assignment a line"


def test_sweep_refuses_an_unknown_parameter_with_the_nearest_name():
    with pytest.raises(ValueError, match="did you mean 'condition'"): sweep.check_parameters(EXPERIMENTS[0].with_name("condition.ipynb"), {"conditon": "l"})


def test_sweep_refuses_a_notebook_without_parameters(tmp_path):
    import nbformat
    bare = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1")])
    nbformat.write(bare, tmp_path/"bare.ipynb")
    with pytest.raises(ValueError, match="no cell tagged 'parameters'"): sweep.check_parameters(tmp_path/"bare.ipynb", {})


def test_every_grid_covers_the_required_methods_and_its_jobs_differ():
    for name in ("quick", "default", "publish"):
        train, judge = sweep.jobs(sweep.grid_parts(name), Path("runs"), {})
        files = [job.out for job in train + judge]
        assert len(set(files)) == len(files)
        if name == "quick": continue
        seen = {(j.parameters["dataset"], m) for j in judge for m in j.parameters["methods"]}
        assert {(d, m) for d in {d for d, _ in seen} - {"mer2024-shaped"} for m in ("zero", "mean", "random", "prior", "ramer")} <= seen


def test_a_done_notebook_is_done_only_for_its_own_job(tmp_path):
    job = sweep.Job("train", tmp_path/"x.ipynb", {"seeds": [0]})
    key, other = sweep.job_key(job), sweep.job_key(sweep.Job("train", job.out, {"seeds": [1]}))
    job.out.write_text(json.dumps({"metadata": {"ramer": {"key": key, "ok": True}}}))
    assert sweep.is_done(job.out, key) and not sweep.is_done(job.out, other)
    for broken in ("", "{", "[]", json.dumps({"metadata": {"ramer": {"key": key, "ok": False}}})):
        job.out.write_text(broken)
        assert not sweep.is_done(job.out, key)


def sweep_command(folder):
    return [sys.executable, str(ROOT/"tools"/"sweep.py"), "--grid", "quick", "--runs", str(folder), "--changes", '{"epochs": 1}']


@pytest.mark.slow
def test_a_killed_sweep_leaves_no_process_and_goes_on_to_the_same_tables(tmp_path):
    process = subprocess.Popen(sweep_command(tmp_path/"killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while not list((tmp_path/"killed").glob("gaussian/*/*/*/DONE")): time.sleep(.2); assert process.poll() is None
    process.send_signal(signal.SIGKILL); process.wait()
    time.sleep(5)
    assert str(tmp_path) not in subprocess.run(["ps", "axo", "args"], capture_output=True, text=True).stdout, "a worker or kernel lives on"
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path/"killed").glob("*/*/*/*/DONE")}
    for name in ("killed", "whole"): subprocess.run(sweep_command(tmp_path/name), check=True, capture_output=True)
    assert all(p.stat().st_mtime_ns == stamp for p, stamp in stamps.items()), "a finished run was redone"
    tables = [(tmp_path/name/"results"/"tables"/"conditions.csv").read_text() for name in ("killed", "whole")]
    assert tables[0] == tables[1]
