"""How planning and reporting grow with a sweep: simulated runs of known cost, up to 10,000.

Writes results/bench/reporting.csv: for each number of runs the processor seconds and the memory of
1,000 runs, and how these compare with a tenth of the runs. Nothing is trained: runs are the
committed lines of zero-fill on gaussian, with other answers. Run on a quiet machine:
`OMP_NUM_THREADS=1 .venv/bin/python benchmarks/reporting.py`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from search import BENCH, file_path, peak_memory, write_table

from ramer.evaluation.metrics import confusion_matrix
from ramer.io import write_text
from ramer.report.publishing import Destination, clone_folder, pasts_of, plan, sweep_jobs
from ramer.report.writing import write_report
from ramer.runs.grids import Part
from ramer.runs.judging import decode, encode
from ramer.runs.results import collected_lines, read_lines, read_results, write_lines
from ramer.runs.sweep import job_key

METHODS, FOLDS, SEEDS, CLIPS = ("zero", "mean", "ramer", "random"), range(5), range(5), 60
OF_A_SET = len(METHODS) * len(FOLDS) * len(SEEDS)  # runs
COST = 39.0  # seconds of training that each run says it took
SIZES = (100, 1000, 10_000)
TARGET = 1.10
LINES = clone_folder() / "results" / "runs" / "gaussian"
ALONE = "--alone"  # asks this very script for one size, in a process of its own


def part_of_clips(line):
    "A line of test clips, or of a run, with the first CLIPS of its clips."
    n = len(line.get("predicted", line.get("labels", "")))
    cut = {k: v[:CLIPS] for k, v in line.items() if isinstance(v, (list, str)) and len(v) == n}
    return line | cut


def simulated(line, labels, rng):
    "The line of a run with other answers: the label with chance .7, else any class."
    classes = len(line["confusion"])
    other = rng.integers(classes, size=len(labels))
    predicted = np.where(rng.random(len(labels)) < 0.7, labels, other)
    matrix = confusion_matrix(labels=labels, predicted=predicted, classes=classes)
    return line | {"predicted": encode(predicted), "confusion": matrix.tolist(), "seconds": COST}


def simulate(runs, folder):
    "Write folders of as many runs, OF_A_SET for each data set, and the lines of its clips."
    rng = np.random.default_rng(0)
    clips = {line["fold"]: part_of_clips(line) for line in read_lines(LINES / "clips.jsonl")}
    known = [part_of_clips(line) for line in read_lines(LINES / "zero.jsonl")]
    config = {"dataset": "", "method": "", "fold": 0, "seed": 0}
    for number in range(runs // OF_A_SET):
        dataset = f"simulated-{number}"
        write_lines(
            folder / "results" / "runs" / dataset / "clips.jsonl",
            [line | {"dataset": dataset} for line in clips.values()],
        )
        for method, fold, seed in product(METHODS, FOLDS, SEEDS):
            name = {"dataset": dataset, "method": method, "fold": fold, "seed": seed}
            run = folder / "runs" / dataset / method / "pooled" / f"fold{fold}-seed{seed}"
            run.mkdir(parents=True)
            (run / "DONE").touch()
            ran = {"config": config | name, "code": "simulated"}
            (run / "config.json").write_text(json.dumps(ran))
            labels = decode(clips[fold]["labels"])
            for line in [line for line in known if line["fold"] == fold]:
                answered = simulated(line, labels, rng) | name
                (run / f"{line['condition']}.json").write_text(json.dumps(answered))


def planned(runs, folder):
    "Plan as many runs, half of them done; returns the seconds. Checks the minutes that it says."
    parts = [Part("gaussian", METHODS, tuple(FOLDS), tuple(SEEDS), 1)] * (runs // OF_A_SET)
    to = Destination(folder / "planned", workers=1)
    start = time.process_time()
    staged = sweep_jobs("simulated", parts, to)
    jobs = [job for of_stage in staged.values() for job in of_stage]
    making = time.process_time() - start
    trained = staged["train"]
    for job in trained[: len(trained) // 2]:
        done = {"metadata": {"ramer": {"key": job_key(job), "ok": True}}, "cells": ["x" * 50_000]}
        write_text(job.out, json.dumps(done))
        for path in job.leaves:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    start = time.process_time()
    table = plan(jobs, to, pasts_of(jobs, to))
    took = making + time.process_time() - start
    left = int((table.notebooks - table.done)[table.notebook == "train"].sum())
    assert left == len(trained) - len(trained) // 2
    return took


def reported(folder):
    "Collect the lines of run folders, read them back and write the report; returns the seconds."
    start = time.process_time()
    results = folder / "results"
    for (dataset, method), lines in collected_lines(folder / "runs").items():
        write_lines(results / "runs" / dataset / f"{method}.jsonl", lines)
    write_report(read_results(results), results)
    return time.process_time() - start


def measured_alone(runs, what):
    "{seconds, bytes} of planning or reporting as many runs in a process of its own."
    command = [sys.executable, __file__, ALONE, what, "--runs", str(runs)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure_one(what, runs):
    "Print what `measured_alone` reads."
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        if what == "reporting":
            simulate(runs, folder)
        before = peak_memory()
        seconds = planned(runs, folder) if what == "planning" else reported(folder)
        print(json.dumps({"seconds": seconds, "bytes": peak_memory() - before}))


def table_of(sizes):
    "A row for each size: what 1,000 runs take, and that by what they took at the size before."
    rows = []
    for what in ("planning", "reporting"):
        each = {runs: measured_alone(runs, what) for runs in sizes}
        for smaller, runs in zip((None, *sizes), sizes):
            seconds, memory = (each[runs][name] / runs for name in ("seconds", "bytes"))
            row = {"what": what, "runs": runs, "seconds of 1,000 runs": 1000 * seconds}
            row["MB of 1,000 runs"] = memory / 1000
            if smaller:
                before = [each[smaller][name] / smaller for name in ("seconds", "bytes")]
                row |= {"seconds, by the size before": seconds / before[0]}
                row |= {"MB, by the size before": memory / max(before[1], 1)}
            rows.append(row)
    table = pd.DataFrame(rows)
    grown = table.iloc[:, -2:].max(axis=1)
    is_last = table.runs == sizes[-1]
    return table.assign(
        target=np.where(is_last, TARGET, np.nan),
        holds=np.where(is_last, np.where(grown <= TARGET, "yes", "no"), ""),
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, nargs="+", default=SIZES)
    parser.add_argument("--out", type=file_path, default=BENCH / "reporting.csv")
    parser.add_argument(ALONE, choices=("planning", "reporting"))
    asked = parser.parse_args(arguments)
    if asked.alone:
        return measure_one(asked.alone, asked.runs[0])
    write_table(table_of(tuple(asked.runs)), asked.out)


if __name__ == "__main__":
    main()
