"""What a sweep costs beside its trainings and judgements, and what two workers and sharing save.

Writes results/bench/sweep.csv: ratios of wall seconds measured in one run. The same grid is run as
a plain loop in one program, then by `ramer sweep` with one worker and with two. Run on a quiet
machine: `OMP_NUM_THREADS=1 .venv/bin/python benchmarks/sweep.py`; `--dataset mosi` for one data set
alone, as the whole grid takes over an hour.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
from search import BENCH, file_path, on_one_thread, verdicts, write_table

from ramer.evaluation.protocol import judged_conditions
from ramer.data.datasets import load_dataset
from ramer.report.publishing import clone_folder
from ramer.methods.rag import RememberingMethod
from ramer.methods.registry import load_method
from ramer.runs.folders import protocols_of, split_key
from ramer.runs.grids import grid_parts, only
from ramer.runs.judging import judge_runs
from ramer.runs.results import finished_runs
from ramer.runs.training import train_runs
from ramer.runs.tuning import grid

OVERHEAD_TARGET, SPEED_TARGET = 1.15, 1.8
BARE = "--bare"  # asks this very script for the plain loop


def bare_loop(name, datasets, runs):
    "Train and judge what a grid has, in this program: no notebook, no other process, no tables."
    on_one_thread()
    for part in only(grid_parts(name), datasets):
        configs = grid(
            part.dataset, part.methods, part.folds, part.seeds, clone_folder() / "results/tuning"
        )
        protocols = protocols_of(configs)
        train_runs(configs, runs, protocols)
        for condition in judged_conditions(*load_dataset(part.dataset).parts(0)):
            judge_runs(configs, condition, runs, protocols)


def wall_seconds(command):
    "Wall seconds of a command. Raises CalledProcessError if it fails."
    start = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True)
    return time.perf_counter() - start


def stages_of(runs):
    "A row for each stage of each run: its hash of data, its name and seconds of training."
    rows = []
    for path in sorted(Path(runs).glob("*/*/*/fold*/train.json")):
        for stage, history in json.loads(path.read_text())["histories"].items():
            rows.append(
                {"run": str(path.parent.name), "dataset": path.parts[-5]}
                | {"stage": stage}
                | {"seconds": history["seconds"], "score": str(history["score"])}
            )
    return pd.DataFrame(rows)


def seconds_of_stages(runs):
    "(seconds as if each run had trained its own stage 1, seconds of what was trained)."
    stages = stages_of(runs)
    once = stages.drop_duplicates(["dataset", "run", "stage", "seconds", "score"])
    return stages.seconds.sum(), once.seconds.sum()


def seconds_of_stage2(runs):
    "Seconds in which the methods of a runs folder that keep a store fill it again, one by one."
    seconds = 0.0
    for folder in finished_runs(runs):
        method = load_method(folder / "model")
        if isinstance(method, RememberingMethod):
            train = protocols_of([method.config])[split_key(method.config)].train
            start = time.perf_counter()
            method.remember(train)
            seconds += time.perf_counter() - start
    return seconds


def measure(name, datasets, home):
    "Rows of the table: what, its ratio, of what, the target."
    here = Path(__file__)
    chosen = [word for dataset in datasets for word in ("--dataset", dataset)]
    bare = wall_seconds([here, BARE, "--grid", name, *chosen, "--runs", home / "bare"])
    command = ["-m", "ramer", "sweep", name, *chosen, "--runs"]
    one = wall_seconds([*command, home / "one", "--workers", "1"])
    two = wall_seconds([*command, home / "two", "--workers", "2"])
    again = wall_seconds([*command, home / "two", "--workers", "2"])
    apart, trained = seconds_of_stages(home / "one")
    stage2 = seconds_of_stage2(home / "one")
    loop = "the same trainings and judgements in a plain loop"
    return [
        ("a sweep with one worker", one / bare, loop, "at most", OVERHEAD_TARGET),
        ("a sweep with one worker", one / two, "with two", "at least", SPEED_TARGET),
        ("all wall seconds of two workers", 2 * two / trained, "those of training", "", None),
        ("a sweep of which all is done", again / two, "the first", "", None),
        ("training without shared stages 1", apart / trained, "with them", "", None),
        ("stages 2, of which none is shared", stage2 / trained, "all training", "", None),
    ]


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", default="default")
    parser.add_argument("--dataset", nargs="+", action="extend", default=[])
    parser.add_argument("--out", type=file_path, default=BENCH / "sweep.csv")
    parser.add_argument(BARE, action="store_true", help="run the plain loop alone, into --runs")
    parser.add_argument("--runs", type=Path)
    asked = parser.parse_args(arguments)
    if asked.bare:
        return bare_loop(asked.grid, asked.dataset, asked.runs)
    with tempfile.TemporaryDirectory() as home:
        rows = measure(asked.grid, asked.dataset, Path(home))
    table = pd.DataFrame(rows, columns=["what", "ratio", "of", "bound", "target"])
    sets = " ".join(asked.dataset) or "all"
    write_table(table.assign(grid=asked.grid, sets=sets, holds=verdicts(table)), asked.out)


if __name__ == "__main__":
    main()
