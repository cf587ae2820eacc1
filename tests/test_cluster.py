"""A sweep's jobs on workers that are separate processes: what comes back, and what faults do."""

import json
import multiprocessing
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from house import free_port, page_blocks

pytest.importorskip("distributed")

from ramer.cli import main
from ramer.data.datasets import available_datasets, load_dataset
from ramer.data.folders import Corpus, write_folder
from ramer.runs.cluster import on_cluster
from ramer.runs.jobs import Job
from ramer.runs.sweep import is_done, job_key, run_jobs

ROOT = Path(__file__).parents[1]
OWN_CLASS = ROOT / "examples" / "ramer-nearest-centre" / "ramer_nearest_centre.py"
GRID = """
datasets: [my-clips]
methods: [prior, zero, mine]
own_methods: {mine: "mine.py:NearestCentre"}
changes: {epochs: 1}
"""
SOME = ["--only", "*/train-*-fold0", "--only", "*/condition-*-l"]
SMALL = {"dataset": "gaussian", "folds": [0], "seeds": [0], "changes": {"epochs": 1}}
SECONDS_DIFFER = {"train.json", "manifest.json", "model.json"}  # they hold seconds, or such a hash


class Machines:
    """A scheduler and workers, each a process of its own, with no data and a folder for itself."""

    def __init__(self, home):
        self.home = home
        self.address = f"tcp://127.0.0.1:{free_port()}"
        self.processes = {}

    def start(self, name, module, *given, **environment):
        folder = self.home / name
        (folder / "no-data").mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", f"distributed.cli.{module}", *given]
        with open(folder / "log.txt", "a") as log:
            self.processes[name] = subprocess.Popen(
                command,
                cwd=folder,
                env=os.environ | {"RAMER_DATA": str(folder / "no-data")} | environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def scheduler(self):
        port = self.address.rpartition(":")[2]
        given = ("--host", "127.0.0.1", "--port", port, "--no-dashboard", "--no-show")
        self.start("scheduler", "dask_scheduler", *given, PYTHONPATH="")  # it needs no ramer

    def worker(self, name, *given, **environment):
        local = str(self.home / name / "local")
        known = ("--nthreads", "1", "--no-dashboard", "--local-directory", local, "--name", name)
        self.start(name, "dask_worker", self.address, *known, *given, **environment)

    def kill(self, name):
        process = self.processes.pop(name)
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()

    def is_running(self, name):
        "Whether a worker executes a job."
        return any(self.home.glob(f"{name}/local/**/ramer-*/task.json"))

    def is_training(self, name):
        "Whether a job's notebook has begun there."
        return any(self.home.glob(f"{name}/local/**/ramer-*/runs/**/.*partial*"))


def wait_until(is_so, seconds=120):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end, "it has not happened"
        time.sleep(0.1)


@pytest.fixture
def machines(tmp_path):
    started = Machines(tmp_path / "machines")
    started.scheduler()
    yield started
    for name in list(started.processes):
        started.kill(name)
    wait_until(lambda: not processes_of(started.home), seconds=20)


def processes_of(folder):
    "Command lines of running processes that name a folder."
    listed = subprocess.run(["ps", "axo", "args"], capture_output=True, text=True).stdout
    return [line for line in listed.splitlines() if str(folder) in line]


def train_job(runs, methods, seed=0, **changed):
    given = SMALL | {"methods": methods, "runs": str(runs), "tuning": str(runs / "none")} | changed
    return Job("train", runs / "notebooks" / f"train-seed{seed}.ipynb", given | {"seeds": [seed]})


def condition_job(trained, condition):
    out = trained.out.with_name(f"{condition}.ipynb")
    return Job("condition", out, trained.parameters | {"condition": condition})


def without_seconds(held):
    "A JSON value without times and what depends on them."
    if isinstance(held, dict):
        leave = ("seconds", "sha256", "own_sha256")
        return {key: without_seconds(value) for key, value in held.items() if key not in leave}
    if isinstance(held, list):
        return [without_seconds(value) for value in held]
    return held


def results(runs):
    "{file: what it holds} of all run folders, times aside."
    held = {}
    for path in sorted(runs.glob("*/*/*/fold*/**/*")):
        name = path.relative_to(runs).as_posix()
        if path.name in SECONDS_DIFFER or path.suffix == ".json":
            held[name] = without_seconds(json.loads(path.read_text()))
        elif path.is_file():
            held[name] = path.read_bytes()
    return held


def run_in_thread(jobs, engine):
    "Run jobs beside the test; returns the thread, and the list that gets the number of failures."
    failed = []
    thread = threading.Thread(
        target=lambda: failed.append(run_jobs(jobs, 1, "jobs", engine=engine)), daemon=True
    )
    thread.start()
    return thread, failed


def check_sent(thread, failed, jobs, home):
    "Jobs that were sent end well, and what came back is what this machine makes of them."
    thread.join(300)
    assert failed == [[]]
    check_as_here(jobs, home / "runs", home / "here")


def seeds_of(runs, count):
    return [train_job(runs, ["prior", "zero"], seed) for seed in range(count)]


def check_as_here(jobs, runs, here):
    "All jobs are done, and their results are those of processes of this machine."
    assert all(is_done(job.out, job_key(job)) for job in jobs)
    assert run_jobs(seeds_of(here, len(jobs)), 2, "here") == []
    assert results(runs) == results(here) and len(results(runs)) > 5 * len(jobs)
    assert not list(runs.glob(".arrived-*"))


def test_a_cluster_gives_the_results_of_this_machine(machines, tmp_path):
    from ramer.methods.registry import configure
    from ramer.runs.judging import judge_runs
    from ramer.runs.training import train_runs

    machines.worker("first", "--no-nanny")
    runs = tmp_path / "runs"
    job = condition_job(train_job(runs, ["prior", "zero"]), "l")  # which trains what is absent
    assert run_jobs([job], 1, "there", engine=on_cluster(machines.address)) == []
    assert is_done(job.out, job_key(job))
    assert str(machines.home) not in job.out.read_text()  # paths are those of this machine
    configs = [configure("gaussian", name, epochs=1) for name in ("prior", "zero")]
    train_runs(configs, tmp_path / "here")
    judge_runs(configs, "l", tmp_path / "here")
    assert results(runs) == results(tmp_path / "here") and len(results(runs)) == 16


def test_an_address_without_a_scheduler_is_one_line(tmp_path, capsys):
    for address in ("tcp://127.0.0.1", "nonsense://x:1"):
        with pytest.raises(SystemExit) as ended:
            main(["sweep", "quick", "--scheduler", address, "--runs", str(tmp_path / "runs")])
        (line,) = capsys.readouterr().err.splitlines()
        assert ended.value.code == 2 and f"no scheduler of dask answers at '{address}'" in line
    assert not (tmp_path / "runs").exists()


def test_without_distributed_the_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(SystemExit):
        main(["sweep", "quick", "--scheduler", "tcp://127.0.0.1:1"])
    (line,) = capsys.readouterr().err.splitlines()
    assert "pip install 'ramer[cluster]'" in line


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_no_job(machines, tmp_path):
    "python -m pytest --slow tests/test_cluster.py -k killed"
    for name in ("first", "second"):
        machines.worker(name)
    jobs = seeds_of(tmp_path / "runs", 4)
    thread, failed = run_in_thread(jobs, on_cluster(machines.address))
    wait_until(lambda: machines.is_running("first") and machines.is_running("second"))
    machines.kill("first")
    check_sent(thread, failed, jobs, tmp_path)


@pytest.mark.slow
def test_jobs_of_a_scheduler_that_is_restarted_are_sent_again(machines, tmp_path, caplog):
    "python -m pytest --slow tests/test_cluster.py -k restarted"
    machines.worker("first")
    jobs = seeds_of(tmp_path / "runs", 3)
    thread, failed = run_in_thread(jobs, on_cluster(machines.address))
    wait_until(lambda: jobs[0].out.exists() and machines.is_running("first"))
    stamp = jobs[0].out.stat().st_mtime_ns
    machines.kill("scheduler")
    time.sleep(2)
    machines.scheduler()
    machines.worker("second")  # those of the scheduler that is gone end with it
    thread.join(300)
    assert failed == [[]] and jobs[0].out.stat().st_mtime_ns == stamp
    assert "is lost; 2 jobs are sent again" in caplog.text
    check_as_here(jobs, tmp_path / "runs", tmp_path / "here")


@pytest.mark.slow
def test_a_scheduler_that_stays_away_is_one_line(machines, tmp_path):
    "python -m pytest --slow tests/test_cluster.py -k stays_away"
    machines.worker("first")
    jobs = seeds_of(tmp_path / "runs", 1)
    jobs[0].out.parent.mkdir(parents=True)
    ended = on_cluster(machines.address, patience=3)([(jobs[0], job_key(jobs[0]))], timeout=60)
    with pytest.raises(
        ConnectionError, match="no scheduler of dask answers at .* within 3 seconds"
    ):
        threading.Timer(10, machines.kill, ["scheduler"]).start()
        list(ended)


@pytest.mark.slow
def test_jobs_wait_for_a_worker_and_one_that_joins_late_has_its_share(machines, tmp_path, caplog):
    "python -m pytest --slow tests/test_cluster.py -k late"
    jobs = seeds_of(tmp_path / "runs", 5)
    thread, failed = run_in_thread(jobs, on_cluster(machines.address))
    wait_until(lambda: "no worker is at" in caplog.text)
    machines.worker("first")
    wait_until(lambda: machines.is_running("first"))
    machines.worker("late")
    wait_until(lambda: machines.is_running("late"))
    assert machines.is_running("first") and not failed
    check_sent(thread, failed, jobs, tmp_path)


@pytest.mark.slow
def test_own_clips_and_methods_travel_to_workers_without_them(machines, tmp_path):
    "python -m pytest --slow tests/test_cluster.py -k own_clips"
    world, _ = load_dataset("gaussian").parts(0)
    for place in ("there", "here"):
        write_folder(Corpus(world[:150]), tmp_path / place / "my-clips")
        (tmp_path / place / "mine.py").write_text(OWN_CLASS.read_text())
        (tmp_path / place / "grid.yaml").write_text(GRID)
    machines.worker("first")
    machines.worker("second")
    ran = sweep(tmp_path / "there", "--scheduler", machines.address)
    assert ran.returncode == 0, ran.stderr
    assert not list(machines.home.rglob("clips.csv")) and not list(machines.home.rglob("mine.py"))
    assert sweep(tmp_path / "here").returncode == 0
    found, expected = (results(tmp_path / place / "runs") for place in ("there", "here"))
    assert found == expected
    assert {name.split("/")[1] for name in found} == {"prior", "zero", "mine"}
    tables = [
        pd.read_csv(tmp_path / place / "runs" / "results" / "tables" / "conditions.csv")
        for place in ("there", "here")
    ]
    assert tables[0].drop(columns="seconds").equals(tables[1].drop(columns="seconds"))


def sweep(folder, *arguments):
    "Sweep the grid file of a folder, with no other data."
    return subprocess.run(
        [sys.executable, "-m", "ramer", "sweep", "grid.yaml", *SOME, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "RAMER_DATA": str(folder / "none")},
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("dataset", ["mosi", "ravdess-frames"])
def test_a_real_set_travels_to_workers_without_it(dataset, machines, tmp_path):
    "python -m pytest --slow tests/test_cluster.py -k real_set"
    if dataset not in available_datasets():
        pytest.skip(f"the files of {dataset} are not here")
    machines.worker("first")
    job = train_job(tmp_path / "runs", ["prior", "zero"], dataset=dataset)
    assert run_jobs([job], 1, "there", engine=on_cluster(machines.address)) == []
    here = train_job(tmp_path / "here", ["prior", "zero"], dataset=dataset)
    assert run_jobs([here], 1, "here") == []
    assert results(tmp_path / "runs") == results(tmp_path / "here") != {}


@pytest.mark.slow
def test_trials_and_leaks_are_those_of_this_machine(machines, tmp_path):
    "python -m pytest --slow tests/test_cluster.py -k trials"
    machines.worker("first")
    held = []
    for place, engine in (("there", on_cluster(machines.address)), ("here", None)):
        runs = tmp_path / place
        common = SMALL | {"runs": str(runs)}
        del common["seeds"]
        jobs = [
            Job("tune", runs / "notebooks" / "t.ipynb", common | {"methods": ["logistic"]}),
            Job("leaks", runs / "notebooks" / "l.ipynb", common | {"methods": ["logistic"]}),
        ]
        assert run_jobs(jobs, 1, place, engine=engine) == []
        paths = [*runs.glob("tuning/**/*.json"), *runs.glob("leaks/**/*.json")]
        texts = {path.relative_to(runs).as_posix(): path.read_text() for path in paths}
        held.append({name: without_seconds(json.loads(text)) for name, text in texts.items()})
    assert held[0] == held[1] and len(held[0]) == 6


@pytest.mark.slow
def test_a_sweep_here_waits_for_what_another_one_has_sent(machines, tmp_path):
    "python -m pytest --slow tests/test_cluster.py -k waits_for"
    machines.worker("first")
    jobs = seeds_of(tmp_path / "runs", 3)
    thread, failed = run_in_thread(jobs, on_cluster(machines.address))
    wait_until(lambda: machines.is_running("first"))
    assert run_jobs(jobs, 1, "here too") == []
    check_sent(thread, failed, jobs, tmp_path)


@pytest.mark.slow
def test_a_job_that_is_wanted_no_longer_ends_on_its_worker(machines, tmp_path):
    "python -m pytest --slow tests/test_cluster.py -k wanted"
    machines.worker("first")
    long = {"epochs": 1_000_000, "patience": 1_000_000}
    jobs = [train_job(tmp_path / "runs", ["zero"], changes=long)]
    keyed = [(job, job_key(job)) for job in jobs]
    jobs[0].out.parent.mkdir(parents=True)
    program = multiprocessing.get_context("spawn").Process(
        target=consume, args=(machines.address, keyed)
    )
    program.start()
    try:
        wait_until(lambda: machines.is_training("first"))
    finally:
        program.kill()
    wait_until(lambda: not machines.is_running("first"))
    wait_until(lambda: not processes_of(machines.home / "first" / "local"))
    small = seeds_of(tmp_path / "after", 1)
    assert run_jobs(small, 1, "after", engine=on_cluster(machines.address)) == []


@pytest.mark.slow
def test_a_job_that_is_wanted_no_longer_ends_when_the_engine_is_closed(machines, tmp_path):
    "python -m pytest --slow tests/test_cluster.py -k closed"
    machines.worker("first")
    machines.worker("second")
    long = train_job(tmp_path / "runs", ["zero"], changes={"epochs": 10**6, "patience": 10**6})
    wrong = train_job(tmp_path / "runs", ["zeo"], seed=1)
    failed = run_jobs([long, wrong], 1, "x", fail_fast=True, engine=on_cluster(machines.address))
    assert [job for job, _ in failed] == [wrong] and "did you mean 'zero'" in failed[0].error
    wait_until(lambda: not machines.is_running("first") and not machines.is_running("second"))


@pytest.mark.slow
def test_a_worker_with_other_code_is_refused_in_one_line(machines, tmp_path):
    "python -m pytest --slow tests/test_cluster.py -k other_code"
    other = tmp_path / "other"
    shutil.copytree(ROOT / "ramer", other / "ramer", ignore=shutil.ignore_patterns("__pycache__"))
    with open(other / "ramer" / "io.py", "a") as changed:
        changed.write("\nCHANGED = True\n")
    machines.worker("first", PYTHONPATH=str(other))
    jobs = seeds_of(tmp_path / "runs", 1)
    with pytest.raises(RuntimeError, match="a worker has ramer's code .* instead of"):
        run_jobs(jobs, 1, "x", engine=on_cluster(machines.address))


def consume(address, keyed):
    list(on_cluster(address)(keyed, timeout=600))


@pytest.mark.slow
def test_the_how_to_runs_as_it_stands(tmp_path):
    (block,) = page_blocks("docs/cluster.md", "sh")
    here = {"10.0.0.1": "127.0.0.1", "8786": str(free_port()), "--nworkers 8": "--nworkers 1"}
    here["sweep default"] = "sweep quick --only '*/train-*'"
    for given, ours in here.items():
        assert given in block
        block = block.replace(given, ours)
    *started, sweep = [line.partition("#")[0].strip() for line in block.splitlines()]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    given = {"cwd": tmp_path, "env": os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}}
    running = []
    try:
        for command in started:
            running.append(subprocess.Popen(shlex.split(command), start_new_session=True, **given))
            time.sleep(5)
        done = subprocess.run(shlex.split(sweep), capture_output=True, text=True, **given)
    finally:
        for process in running:
            os.killpg(process.pid, signal.SIGKILL)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "runs").rglob("DONE"))) > 1
