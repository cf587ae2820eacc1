"""Where one thing fails the rest goes on, a line says why, and all ends where it would have.

The slow tests put the faults of benchmarks/faults.py into whole sweeps, at other moments.
"""

import errno
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from ramer.cli import main
from ramer.runs import sweep
from ramer.runs.jobs import Job
from ramer.runs.sweep import Failed, ended_jobs, execute, is_done, job_key, locked, log_of

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))  # as when one of them is run
import faults  # noqa: E402

FORKED = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here")
KERNEL = {"name": "python3", "language": "python", "display_name": "Python 3"}
CELLS = {
    "well": "print('it went well')",
    "raises": "print('before')\nraise RuntimeError('first line\\nsecond line')",
    "killed": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    "hangs": """
import signal, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
while True:
    time.sleep(60)
""",
}


@pytest.fixture
def notebooks(tmp_path, monkeypatch):
    "A folder of small notebooks that a sweep executes in place of its own."
    for name, code in CELLS.items():
        parameters = nbformat.v4.new_code_cell("number = 0", metadata={"tags": ["parameters"]})
        cells = [parameters, nbformat.v4.new_code_cell(code)]
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": KERNEL})
        nbformat.write(notebook, tmp_path / f"{name}.ipynb")
    monkeypatch.setattr("ramer.runs.sweep.experiments", lambda: tmp_path)
    return tmp_path


def job_of(name, folder):
    return Job(name, folder / "out" / f"{name}.ipynb", {"number": 1})


SWEEP = """
import sys
from multiprocessing import get_context
from pathlib import Path

from ramer.runs import sweep
from ramer.runs.jobs import Job

folder = Path(sys.argv[1])
sweep.experiments = lambda: folder
sweep.job_context = lambda: get_context("fork")
jobs = [Job(name, folder / "out" / f"{name}.ipynb", {"number": 1}) for name in sys.argv[2:]]
failed = sweep.run_jobs(jobs, 2, "faults", timeout=10)
print("failed", *sorted(job.notebook for job, _ in failed))
"""  # a process of its own: kernels are copies of it, and this one has threads and sockets


@FORKED
def test_what_fails_is_one_line_each_and_the_rest_goes_on(notebooks):
    jobs = [job_of(name, notebooks) for name in ("hangs", "raises", "killed", "well")]
    command = [sys.executable, "-c", SWEEP, str(notebooks), *(job.notebook for job in jobs)]
    swept = subprocess.run(command, capture_output=True, text=True, check=True)
    *said, failed = swept.stdout.splitlines()
    assert failed == "failed hangs killed raises"
    expected = {
        "raises": "cell 2: RuntimeError: first line",
        "killed": "its kernel was killed, perhaps for want of memory; see its .log",
        "hangs": "a cell took longer than --timeout allows, and was ended",
    }
    assert sorted(said) == sorted(f"{name}: {error}" for name, error in expected.items())
    for job in jobs:
        cells = json.loads(job.out.read_text())["cells"]
        assert "number = 1" in "".join("".join(cell["source"]) for cell in cells)
        assert is_done(job.out, job_key(job)) == (job.notebook == "well")
        assert not list(job.out.parent.glob("*.part.*"))


PROGRAM = """
import ramer
from ramer.runs import sweep


def work(job, key, tells):
    import ramer

    tells.send(ramer.__file__)


sweep.work = work
if __name__ == "__main__":
    print(sweep.Running.start(sweep.job_context(), None, "key").hears.recv() == ramer.__file__)
"""


@FORKED
def test_its_processes_import_what_it_imports_wherever_it_stands(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    other = tmp_path / "clone" / "ramer"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text("__version__ = 'another'")
    command = [sys.executable, str(tmp_path / "program.py")]
    ended = subprocess.run(command, cwd=other.parent, capture_output=True, text=True)
    assert ended.stdout == "True\n", ended.stderr


@pytest.fixture
def papermills_part(notebooks, monkeypatch):
    "A job, and the calls of what stands for papermill, which writes a notebook."
    calls = []

    def write_part(job, timeout, kernel):
        calls.append(job)
        time.sleep(0.2)
        nbformat.write(nbformat.v4.new_notebook(), job.out.with_suffix(".part.ipynb"))

    monkeypatch.setattr("ramer.runs.sweep.run_papermill", write_part)
    monkeypatch.setattr("ramer.runs.sweep.log_to", lambda path: None)  # of this process
    job = job_of("well", notebooks)
    job.out.parent.mkdir()
    return job, calls


def test_a_job_that_two_sweeps_have_is_executed_once(papermills_part):
    job, calls = papermills_part
    key = job_key(job)
    with ThreadPoolExecutor(2) as sweeps:
        errors = list(sweeps.map(lambda _: execute(job, key, 1, None), range(2)))
    assert errors == ["", ""] and calls == [job]
    assert is_done(job.out, key)


def test_where_a_waiting_kernel_is_gone_another_one_is_started(papermills_part, monkeypatch):
    job, _ = papermills_part
    write_part, kernels = sweep.run_papermill, []

    def dies_once(job, timeout, kernel):
        kernels.append(kernel)
        if kernel is not None:
            raise RuntimeError("Kernel died before replying to kernel_info")
        write_part(job, timeout, kernel)

    monkeypatch.setattr("ramer.runs.sweep.run_papermill", dies_once)
    waiting = object()
    assert execute(job, job_key(job), 1, waiting) == "" and kernels == [waiting, None]
    assert is_done(job.out, job_key(job))


def test_on_a_full_disk_what_papermill_wrote_is_kept(papermills_part, monkeypatch):
    job, _ = papermills_part

    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("ramer.runs.sweep.write_text", full)
    error = execute(job, job_key(job), 1, None)
    assert error.startswith("OSError: [Errno 28] No space left on device")
    assert job.out.with_suffix(".part.ipynb").exists() and not job.out.exists()


def test_a_folder_that_cannot_be_written_is_an_error_of_its_job(papermills_part, monkeypatch):
    job, calls = papermills_part

    def read_only(self):
        raise OSError(errno.EROFS, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "touch", read_only)
    assert execute(job, "key", 1, None).startswith("OSError: [Errno 30] Read-only file system")
    assert not calls


@FORKED
def test_jobs_that_another_sweep_executes_come_last(tmp_path, monkeypatch):
    jobs = [(Job("x", tmp_path / f"{number}.ipynb", {}), "key") for number in range(3)]
    monkeypatch.setattr("ramer.runs.sweep.work", lambda job, key, *given: given[-1].send(""))
    log_of(jobs[0][0]).touch()
    with locked(log_of(jobs[0][0])):
        order = [job.out.stem for job, _ in ended_jobs(jobs, 1, get_context("fork"), 1)]
    assert order == ["1", "2", "0"]


def swept(monkeypatch, runs, failing):
    "The exit code of a sweep whose notebooks fail as asked: {what they do: how many}; its stages."
    stages = []

    def run(jobs, workers, title, *given, **more):
        stages.append((title, len(jobs)))
        return [Failed(job, "it went wrong") for job in jobs[: failing.get(title, 0)]]

    monkeypatch.setattr("ramer.report.publishing.run_jobs", run)
    monkeypatch.setattr("ramer.report.publishing.is_judged", lambda runs: True)
    (runs / "results").mkdir()
    (runs / "results" / "comparison.txt").write_text("what the others gave")
    with pytest.raises(SystemExit) as ended:
        main(["sweep", "quick", "--runs", str(runs)])
    return ended.value.code, stages


def test_notebooks_that_failed_are_exit_code_1_and_their_data_set_waits(
    tmp_path, monkeypatch, capsys
):
    code, stages = swept(monkeypatch, tmp_path, {"train": 1})
    assert code == 1 and stages == [("train", 2), ("conditions", 0), ("tables", 1)]
    said = capsys.readouterr().err.splitlines()
    assert said[-3:-1] == [
        "ramer: 1 notebooks failed:",
        "  gaussian/train-0-seed0-fold0: it went wrong",
    ]
    assert "same command" in said[-1] and "what the others gave" in said


def test_a_runs_folder_that_cannot_be_is_bad_input(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as ended:
        main(["sweep", "quick", "--runs", str(tmp_path / "file" / "runs")])
    said = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2
    assert said.startswith("ramer: ") and str(tmp_path / "file") in said


def test_the_committed_faults_were_survived_and_nothing_was_lost():
    table = pd.read_csv(ROOT / "results" / "bench" / "faults.csv").set_index("fault")
    assert table.injected["kill -9 of the sweep"] >= 50
    assert {*faults.WITHIN, "two sweeps in one folder", "a read-only runs folder"} < set(
        table.index
    )
    assert (table.survived == table.injected).all() and (table.lost == 0).all()


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory):
    "Small sweeps, one of which nothing disturbed."
    return faults.Sweeps(tmp_path_factory.mktemp("sweeps"))


def assert_survived(row):
    assert row["survived"] == row["injected"] and row["lost"] == 0, row


@pytest.mark.slow
@pytest.mark.parametrize("fault", faults.WITHIN)
def test_a_fault_within_a_training_is_an_error_of_its_run_alone(sweeps, fault):
    assert_survived(faults.within_row(sweeps, fault))


@pytest.mark.slow
@pytest.mark.parametrize("name", faults.DAMAGED)
def test_a_damaged_file_of_a_past_run_is_named_and_made_anew(sweeps, name):
    assert_survived(faults.damaged_row(sweeps, name))


@pytest.fixture
def can_mount(tmp_path):
    if not faults.can_mount(tmp_path):
        pytest.skip("no file system can be mounted here")


@pytest.mark.slow
def test_a_sweep_goes_on_when_a_full_disk_has_room_again(sweeps, can_mount):
    assert_survived(faults.full_row(sweeps, 0.4))


@pytest.mark.slow
def test_a_read_only_folder_stops_its_runs_alone(sweeps, can_mount):
    for row in faults.read_only_rows(sweeps):
        assert_survived(row)


@pytest.mark.slow
def test_two_sweeps_in_one_folder_do_each_run_once(sweeps):
    assert_survived(faults.together_row(sweeps, 1, seed=1))


@pytest.mark.slow
def test_nothing_is_lost_to_50_kills_at_random_moments(sweeps):
    row = faults.killed_row(sweeps, 50, seed=1)
    assert_survived(row)
    assert row["injected"] == 50
