"""Where one thing fails the rest goes on, says why in a line, and ends where it would have ended."""

import json
import os
import signal
import time
from multiprocessing import get_context
from pathlib import Path

import nbformat
import pytest

from ramer.runs.jobs import Job
from ramer.runs.sweep import execute, is_done, job_key, locked, log_of, run_jobs, work

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
    monkeypatch.setattr("ramer.runs.sweep.job_context", lambda: get_context("fork"))
    return tmp_path


def job_of(name, folder):
    return Job(name, folder / "out" / f"{name}.ipynb", {"number": 1})


@FORKED
def test_what_fails_is_one_line_each_and_the_rest_goes_on(notebooks, capsys):
    jobs = [job_of(name, notebooks) for name in ("hangs", "raises", "killed", "well")]
    start = time.monotonic()
    assert run_jobs(jobs, 2, "faults", timeout=2) == 3
    assert time.monotonic() - start < 60  # what hangs is ended
    said = [line for line in capsys.readouterr().out.splitlines() if str(notebooks) in line]
    assert len(said) == 3
    expected = {
        "raises": "cell 2: RuntimeError: first line",
        "killed": "its kernel was killed, perhaps for want of memory; see its .log",
        "hangs": "a cell took longer than --timeout allows, and was ended",
    }
    for name, error in expected.items():
        assert f"{job_of(name, notebooks).out}: {error}" in said
    for job in jobs:
        cells = json.loads(job.out.read_text())["cells"]
        assert "number = 1" in "".join("".join(cell["source"]) for cell in cells)
        assert is_done(job.out, job_key(job)) == (job.notebook == "well")
        assert not list(job.out.parent.glob("*.part.*"))
