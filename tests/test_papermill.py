"""The experiment notebooks run with other parameters, and the sweep that drives them goes on, refuses and reports."""
import json, os, signal, subprocess, sys, time
from pathlib import Path

import pandas as pd
import papermill
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT/"tools"))
import study, sweep

EXPERIMENTS = sorted((ROOT/"nbs"/"experiments").rglob("*.ipynb"))
STUDIES = [path for path in EXPERIMENTS if path.parent.name == "studies"]
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
    with pytest.raises(ValueError, match="did you mean 'condition'"): sweep.check_parameters(ROOT/"nbs"/"experiments"/"condition.ipynb", {"conditon": "l"})


def test_sweep_refuses_a_notebook_without_parameters(tmp_path):
    import nbformat
    bare = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x = 1")])
    nbformat.write(bare, tmp_path/"bare.ipynb")
    with pytest.raises(ValueError, match="no cell tagged 'parameters'"): sweep.check_parameters(tmp_path/"bare.ipynb", {})


def test_every_grid_covers_the_required_methods_and_its_jobs_differ():
    for name in ("quick", "default", "publish"):
        train, judge = sweep.jobs(sweep.grid_parts(name), Path("runs"), {}, Path("tuning"))
        files = [job.out for job in train + judge]
        assert len(set(files)) == len(files)
        if name == "quick": continue
        seen = {(j.parameters["dataset"], m) for j in judge for m in j.parameters["methods"]}
        assert {(d, m) for d in {d for d, _ in seen} - {"mer2024-shaped"} for m in ("zero", "mean", "random", "prior", "ramer")} <= seen


def test_a_grid_can_be_cut_down_to_some_methods_and_seeds():
    parts = sweep.grid_parts("publish")
    some = sweep.only(parts, datasets=["gaussian"], methods=["ae", "zero"], seeds=["0"])
    assert {(p.dataset, p.methods, p.seeds) for p in some} == {("gaussian", ("zero",), (0,)), ("gaussian", ("ae",), (0,))}
    assert [p.methods for p in sweep.only(parts, datasets=["gaussian"], methods=["ae", "zero"], seeds=["1"])] == [("zero",)]           # opponents have one seed
    assert sweep.only(parts, datasets=None, methods=None, seeds=None) == parts
    for wrong in ({"methods": ["mmim"]}, {"datasets": ["gausian"]}):
        with pytest.raises(ValueError, match="did you mean '(mmin|gaussian)'"): sweep.only(parts, **wrong)


def test_tuning_is_one_job_for_a_world_and_one_for_each_fold_of_a_real_set():
    jobs = sweep.tune_jobs([sweep.Part("gaussian", ("zero", "ae"), (0, 1)), sweep.Part("gaussian", ("zero", "mmin"), (2,))], Path("runs"), {})
    assert [(j.notebook, j.parameters["methods"], j.parameters["folds"]) for j in jobs] == [("tune", ["zero", "ae", "mmin"], [0])]
    real = [p for p in sweep.grid_parts("publish") if p.dataset == "mosi"]
    if real: assert [j.parameters["folds"] for j in sweep.tune_jobs(real, Path("runs"), {})] == [[0], [1], [2], [3], [4]]


def test_train_and_condition_notebooks_use_what_the_tune_notebook_chose(tmp_path):
    from ramer.experiment import collect, collect_tuning, read_tuning
    small = {"dataset": "gaussian", "methods": ["knn", "logistic"], "folds": [0, 1], "runs": str(tmp_path/"runs")}
    run_notebook("tune", small)
    collect_tuning(tmp_path/"runs", tmp_path/"tuning")
    chosen, tuned = read_tuning(tmp_path/"tuning", "gaussian"), small | {"tuning": str(tmp_path/"tuning")}
    run_notebook("train", tuned); run_notebook("condition", tuned | {"condition": "l"})
    ran = {json.loads(path.read_text())["config"]["k"] for path in tmp_path.glob("runs/gaussian/knn/*/*/config.json")}
    assert len(chosen) == 2 * 5 and ran == {chosen["knn", 0]["k"]} and chosen["knn", 0] == chosen["knn", 1]
    assert [p.name for p in collect(tmp_path/"runs", tmp_path)] == ["clips.jsonl", "knn.jsonl", "logistic.jsonl"]


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
    tables = [pd.read_csv(tmp_path/name/"results"/"tables"/"conditions.csv").drop(columns="seconds") for name in ("killed", "whole")]
    assert tables[0].equals(tables[1])


@pytest.mark.slow
def test_the_leaks_notebook_measures_what_each_leak_is_worth(tmp_path):
    shell = run_notebook("leaks", {"dataset": "gaussian", "methods": ["ramer"], "changes": {"epochs": 1}, "runs": str(tmp_path)})
    table = shell.user_ns["table"]
    assert set(table.leak) == {"store", "stage1", "recipe", "selection", "features"} and len(table) == 5 * 8


def test_the_leaks_jobs_cover_every_fold_and_seed():
    jobs = sweep.leak_jobs([sweep.Part("gaussian", ("zero", "ramer"), (0, 1), seeds=(0, 3))], Path("runs"), {})
    assert [(j.parameters["folds"], j.parameters["seeds"]) for j in jobs] == [([0], [0]), ([1], [0]), ([0], [3]), ([1], [3])]
    assert len({j.out for j in jobs}) == 4 and all(job.parameters["dataset"] in sweep.LEAKING for job in sweep.leak_jobs(sweep.grid_parts("leaks"), Path("runs"), {}))


def test_there_is_a_notebook_for_each_study():
    from ramer.gains import STUDIES as known
    assert {path.stem for path in STUDIES} == {*known, "resources"}


def test_the_resources_notebook_measures_each_stage_at_each_size(tmp_path):
    from ramer.studies import write_page
    _, job = study.resources_jobs(tmp_path/"runs", tmp_path)
    job.parameters.update(sizes=[100, 200], methods=["ramer", "ramer-e2e"], repeats=1, epochs=1)
    assert sweep.run_jobs([job], 1, "resources") == 0
    folder = tmp_path/"studies"/"resources"
    table = pd.read_csv(folder/"table.csv")
    stages = {method: list(dict.fromkeys(some.stage)) for method, some in table.groupby("method")}
    assert stages == {"ramer": ["stage 1", "stage 2", "stage 3", "an answer"], "ramer-e2e": ["stage 1", "stage 3", "keys and gate", "an answer"]}
    assert set(table.clips) == {100, 200} and (table[["seconds", "memory"]] > 0).all(axis=None) and (folder/"figure.png").exists()
    assert (table[table.clips == 100].filter(like="times ").dropna() == 1).all(axis=None)                    # ratios are to the smallest
    said = (folder/"answer.md").read_text().split("\n\n")[1]
    fits = table[(table.clips == 200) & (table.stage != "an answer")].groupby("method").cpu.sum()
    assert f"*ramer-e2e* {fits['ramer-e2e'] / fits['ramer']:.1f} times the processor seconds to fit" in said
    assert said in write_page(tmp_path)


@pytest.mark.parametrize("tool, arguments, meant", [(study, ["fusoin"], "fusion"), (study, ["fusion", "--datasets", "gausian"], "gaussian"), (sweep, ["--grid", "publish", "--methods", "mmim"], "mmin"), (sweep, ["--datasets", "gausian"], "gaussian")])
def test_a_wrong_name_ends_a_command_with_one_line(tool, arguments, meant, capsys):
    with pytest.raises(SystemExit): tool.main(arguments)
    assert f"did you mean '{meant}'" in capsys.readouterr().err.splitlines()[-1]


def test_a_study_of_what_a_data_set_lacks_says_so(tmp_path, capsys):
    study.main(["enrolment", "--datasets", "gaussian", "--runs", str(tmp_path)])
    assert "nothing was run" in capsys.readouterr().out and not list(tmp_path.rglob("*.ipynb"))


@pytest.mark.parametrize("path", [pytest.param(path, marks=pytest.mark.slow) if path.stem in ("map", "unlabelled") else path for path in STUDIES if path.stem != "resources"], ids=lambda p: p.stem)       # worlds that are made again
def test_a_study_notebook_answers_from_its_runs_and_goes_on(path, tmp_path, monkeypatch):
    from ramer.gains import STUDIES as known
    from ramer.studies import answer, read_study, study_table, write_page, written_table
    from ramer.protocol import available_datasets
    monkeypatch.setattr("ramer.gains.POOLS", (100, 200))                                              # of up to 100,000 clips
    study, dataset = known[path.stem], "ravdess" if path.stem == "enrolment" else "gaussian"             # people enrol; worlds have none
    if dataset not in available_datasets(): pytest.skip(f"{dataset} is not here")
    other = next(arm for arm in study.arms if arm != study.reference)
    small = {"datasets": [dataset], "folds": [0], "arms": [study.reference, other], "changes": {"epochs": 1}, "runs": str(tmp_path), "results": str(tmp_path/"results")}
    run_notebook(f"studies/{path.stem}", small)
    first = {p: p.stat().st_mtime_ns for p in tmp_path.glob("studies/*/*/*.json")}
    run_notebook(f"studies/{path.stem}", small)                                                       # what ran is not run again
    assert {p: p.stat().st_mtime_ns for p in tmp_path.glob("studies/*/*/*.json")} == first and len(first) == 2
    kept = {p.name for p in (tmp_path/"results"/"studies"/path.stem).iterdir()}
    assert kept - {"clips"} == {f"{dataset}.jsonl", "table.csv", "figure.png", "answer.md"}
    table = written_table(tmp_path/"results", path.stem)
    pd.testing.assert_frame_equal(table, study_table(path.stem, read_study(tmp_path/"results", path.stem)), check_dtype=False, atol=1e-6)
    assert set(table.arm[table.reference.isin(study.arms)]) == {study.reference, other} and (table.runs == 1).all()
    assert answer(path.stem, table) in (tmp_path/"results"/"studies"/path.stem/"answer.md").read_text() and answer(path.stem, table) in write_page(tmp_path/"results")
