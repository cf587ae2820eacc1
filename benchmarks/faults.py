"""What a sweep loses to faults: kills at random moments, two sweeps at once, a full disk and more.

Each fault is put into a small sweep (one world, two folds, four methods, one epoch), which goes on
without it afterwards. A fault is survived if all that it did not hit is done, one line says of each
notebook what failed, and the exit code is 1 (2 where nothing could begin, 0 where all is done).
Lost are runs, lines and executed notebooks that were done and are gone or made again, and files
that differ at the end from those of a sweep that nothing disturbed: every line, model, table and
figure, byte for byte, but for the columns and fields called `seconds`.

Writes results/bench/faults.csv. An hour; as root on Linux, since it mounts file systems of its own
(elsewhere those rows are left out): `make faults`, or `.venv/bin/python benchmarks/faults.py`.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd

from ramer.io import write_text

ROOT = Path(__file__).parents[1]
BENCH = ROOT / "results" / "bench"
PLUGGED = ("noted-zero", "noted-ramer")
METHODS = ("zero", "ramer", *PLUGGED)
FOLDS = (0, 1)
HIT = "noted-zero", 1  # the method and fold that most faults hit
WITHIN = {  # fault within a training: (its name in `ramer_faulty`, what the line must say)
    "a run that raises": ("raises", "RuntimeError: the fault that was asked for"),
    "a loss that is not finite": ("nan", "the loss became nan in epoch 0 with learning_rate 1e+30"),
    "no memory left": ("memory", "Unable to allocate"),
    "killed, as for want of memory": ("killed", "its kernel was killed"),
    "a notebook that hangs": ("hangs", "took longer than --timeout"),
}
KINDS = ("within", "damaged", "full", "read-only", "together", "kills")
ENDS_NOTEBOOK = ("killed", "hangs")  # the runs after it in its notebook have to wait


class Sweeps:
    "Small sweeps in folders below `home`, in which trainings are noted."

    def __init__(self, home):
        self.home = Path(home)
        self.notes = self.home / "notes.txt"
        self.started = 0
        package = self.home / "site" / "ramer_faulty-1.0.dist-info"
        write_text(
            package / "METADATA", "Metadata-Version: 2.1\nName: ramer-faulty\nVersion: 1.0\n"
        )
        named = "noted-zero = ramer_faulty:NotedZero\nnoted-ramer = ramer_faulty:NotedRamer\n"
        write_text(package / "entry_points.txt", f"[ramer.methods]\n{named}")
        start = time.monotonic()
        self.whole = self.home / "whole"
        code, said = self.finish(self.whole)
        assert code == 0, said
        self.seconds = time.monotonic() - start
        self.expected = contents(self.whole)

    def start(self, runs, fault="", *options):
        "A process that sweeps into a folder. It leads a group, and what it writes goes to a file."
        paths = [self.home / "site", ROOT / "benchmarks" / "faulty", ROOT]
        own = {"PYTHONPATH": os.pathsep.join(map(str, paths)), "RAMER_NOTES": str(self.notes)}
        command = [sys.executable, "-m", "ramer", "sweep", "quick", "--runs", str(runs), *options]
        for method in METHODS:
            command += ["--method", method]
        self.started += 1
        with open(self.said_by(self.started), "w") as said:
            return subprocess.Popen(
                [*command, "--set", '{"epochs": 1}'],
                env=os.environ | own | {"RAMER_FAULT": fault},
                start_new_session=True,
                stdout=said,
                stderr=subprocess.STDOUT,
            )

    def said_by(self, number):
        return self.home / f"said-{number}.txt"

    @property
    def said(self):
        "What the last sweep wrote, with its plan and its bars."
        return self.said_by(self.started).read_text().replace("\r", "\n")

    def finish(self, runs, fault="", *options):
        "The exit code of a sweep into a folder, and what it wrote."
        code = self.start(runs, fault, *options).wait()
        return code, self.said


def without_seconds(found):
    "JSON without fields called seconds, at any depth."
    if isinstance(found, list):
        return [without_seconds(each) for each in found]
    if isinstance(found, dict):
        return {name: without_seconds(x) for name, x in found.items() if name != "seconds"}
    return found


def content(path):
    "The bytes of a file, without columns and fields of seconds."
    if path.suffix in (".json", ".jsonl"):
        rows = [without_seconds(json.loads(row)) for row in whole_rows(path)]
        return json.dumps(rows).encode()
    read = path.read_bytes()
    if path.suffix == ".csv":
        table = pd.read_csv(BytesIO(read), dtype=str, keep_default_na=False)
        return table.drop(columns="seconds", errors="ignore").to_csv(index=False).encode()
    return read


def whole_rows(path):
    text = path.read_text()
    return text.splitlines() if path.suffix == ".jsonl" else [text]


def contents(runs):
    "{name: content} of run folders, and of the tables, lines and figures that were made of them."
    paths = [*runs.glob("gaussian/**/*"), *runs.glob("results/**/*")]
    return {path.relative_to(runs).as_posix(): content(path) for path in paths if path.is_file()}


def unequal(sweeps, runs):
    "Names of files that an undisturbed sweep has otherwise, not at all, or alone."
    found = contents(runs)
    names = sorted(found.keys() | sweeps.expected.keys())
    return [name for name in names if found.get(name) != sweeps.expected.get(name)]


def is_signed(path):
    try:
        return json.loads(path.read_text())["metadata"]["ramer"]["ok"]
    except (ValueError, KeyError):
        return False


def acknowledged(runs):
    "{file: when it was written} of whatever is done: runs, their lines, executed notebooks."
    kept = [*runs.glob("gaussian/*/*/fold*/*.json"), *runs.glob("gaussian/*/*/fold*/DONE")]
    kept += [path for path in runs.glob("notebooks/*/*.ipynb") if is_signed(path)]
    return {path: path.stat().st_mtime_ns for path in kept}


def gone(stamps):
    "Files that are not there any more, or were written again."
    return [p for p, when in stamps.items() if not p.exists() or p.stat().st_mtime_ns != when]


def runs_done(runs):
    "{(method, fold)} of the runs that are done."
    found = runs.glob("gaussian/*/*/fold*-seed0/DONE")
    return {(p.parents[2].name, int(p.parent.name[4])) for p in found}


def reported(said):
    "The lines about notebooks that failed."
    return [line for line in said.splitlines() if re.match(r"\S+\.ipynb: ", line)]


def went_on(sweeps, fault, runs, ended, checks, kept=None):
    """Go on with a sweep that a fault hit; a row about both.

    ended: (exit code, what was said, the exit code that is right). checks: {what must hold: whether
    it does}; what does not is printed. kept: stamps of what was done; default: of all that is.
    """
    code, said, right = ended
    stamps = acknowledged(runs) if kept is None else kept
    again, then_said = sweeps.finish(runs)
    checks |= {
        f"exit code {code}": code == right,
        "a traceback was printed": "Traceback" not in said,
        f"went on with exit code {again}: {then_said}": again == 0,
    }
    lost = [*map(str, gone(stamps)), *unequal(sweeps, runs)]
    failed = [what for what, holds in checks.items() if not holds]
    for problem in (*failed, *lost):
        print(f"{fault}: {problem}")
    if failed:
        print(said)
    facts = {"fault": fault, "injected": 1, "survived": int(not failed), "lost": len(lost)}
    return facts | {"compared": f"{len(sweeps.expected)} files"}


def killed_row(sweeps, kills, seed, within=None):
    """Kill whole sweeps at random moments; each goes on, to be killed again, until it is done.

    within: seconds from the start of the command, of which any is as likely; default: as many as a
    sweep takes that is not disturbed.
    """
    within = within or sweeps.seconds
    rng = np.random.default_rng(seed)
    moments = Counter()
    lost, survived, number = [], 0, 0
    while moments.total() < kills:
        runs = sweeps.home / f"killed-{number}"
        before = moments.total()
        code, gone_or_unequal = kill_until_done(
            sweeps, runs, (rng.uniform(0, within) for _ in range(kills - before)), moments
        )
        lost += gone_or_unequal
        survived += (moments.total() - before) * (code == 0)
        shutil.rmtree(runs)
        number += 1
    print("lost to kills:", *lost, sep="\n", flush=True)
    when = ", ".join(f"{moments[name]} while {name}" for name in MOMENTS)
    compared = f"{len(sweeps.expected)} files of each of {number} sweeps; killed {when}"
    facts = {"fault": "kill -9 of the sweep", "injected": moments.total(), "survived": survived}
    return facts | {"lost": len(lost), "compared": compared}


MOMENTS = ("planning", "training", "judging", "making tables")


def moment_of(said):
    "What a sweep was doing when it was killed."
    return MOMENTS[sum(title in said for title in ("train:", "conditions:", "tables:"))]


def kill_until_done(sweeps, runs, limits, moments):
    """Kill a sweep, and what goes on from it, until one ends: its exit code, and what is lost.

    limits: seconds after which each is killed; then there is none, and one ends.
    """
    stamps, lost = {}, []
    while True:
        process = sweeps.start(runs)
        try:
            process.wait(next(limits, None))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            moments[moment_of(sweeps.said)] += 1
        lost += map(str, gone(stamps))
        stamps = acknowledged(runs)
        if process.returncode != -signal.SIGKILL:
            return process.returncode, [*lost, *unequal(sweeps, runs)]


def together_row(sweeps, times, seed):
    "Two sweeps in one folder, the second begun at a random moment of the first."
    rng = np.random.default_rng(seed)
    survived, lost = 0, []
    for number in range(times):
        runs = sweeps.home / f"together-{number}"
        sweeps.notes.unlink(missing_ok=True)
        first = sweeps.start(runs)
        time.sleep(rng.uniform(0, sweeps.seconds / 2))
        second = sweeps.start(runs)
        codes = first.wait(), second.wait()
        trained = Counter(sweeps.notes.read_text().splitlines())
        survived += codes == (0, 0)
        lost += [f"{name} was trained {n} times" for name, n in trained.items() if n > 1]
        lost += unequal(sweeps, runs)
        shutil.rmtree(runs)
    print("lost to two sweeps in one folder:", *lost, sep="\n")
    facts = {"fault": "two sweeps in one folder", "injected": times, "survived": survived}
    compared = (
        f"{len(sweeps.expected)} files of each; four of the eight trainings counted: once each"
    )
    return facts | {"lost": len(lost), "compared": compared}


def others():
    "The runs that a fault within one training does not hit."
    return {(method, fold) for method in METHODS for fold in FOLDS} - {HIT}


def within_row(sweeps, fault):
    "A fault within one training; then the same command without it."
    name, says = WITHIN[fault]
    runs = sweeps.home / name
    options = ("--timeout", "60") if name == "hangs" else ()
    code, said = sweeps.finish(runs, ":".join(map(str, (name, *HIT))), *options)
    lines = reported(said)
    notebook = runs / "notebooks" / "gaussian" / "train-0-seed0-fold1.ipynb"
    expected = others() - ({("noted-ramer", 1)} if name in ENDS_NOTEBOOK else set())
    checks = {
        f"lines: {lines}": len(lines) == 1 and says in lines[0] and str(notebook) in lines[0],
        f"done: {runs_done(runs)}": runs_done(runs) == expected,
        "no executed notebook": notebook.exists() and not is_signed(notebook),
    }
    return went_on(sweeps, fault, runs, (code, said, 1), checks)


@contextmanager
def mounted(folder, options):
    "Have a file system in memory at a folder. Raises CalledProcessError where none can be mounted."
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def full_row(sweeps, share):
    "A disk with room for a share of a sweep; then a larger one."
    sizes = [path.stat().st_size for path in sweeps.whole.rglob("*") if path.is_file()]
    disk = sweeps.home / "disk"
    with mounted(disk, f"size={int(share * sum(sizes))}"):
        code, said = sweeps.finish(disk / "runs")
        lines = reported(said)
        full = all("No space left" in line for line in lines)
        larger = ["mount", "-o", "remount,size=2g", str(disk)]
        subprocess.run(larger, check=True, capture_output=True)
        checks = {f"lines: {lines}": len(lines) > 0 and full}
        ended = code, said, 1
        return went_on(sweeps, f"a disk full at {share:.0%}", disk / "runs", ended, checks)


def read_only_rows(sweeps):
    "A folder of one method that cannot be written, and a folder for all runs that cannot."
    runs = sweeps.home / "read-only"
    with mounted(runs / "gaussian" / HIT[0], "ro"):
        code, said = sweeps.finish(runs)
        done = runs_done(runs)
    lines = reported(said)
    checks = {
        f"lines: {lines}": len(lines) == 2 and all("Read-only file" in line for line in lines),
        f"done: {done}": done == {run for run in others() if run[0] != HIT[0]},
    }
    yield went_on(sweeps, "a read-only folder of one method", runs, (code, said, 1), checks)
    with mounted(runs, "ro"):
        code, said = sweeps.finish(runs)
    last = said.splitlines()[-1]
    checks = {last: last.startswith("ramer: ") and "Read-only file system" in last}
    yield went_on(sweeps, "a read-only runs folder", runs, (code, said, 2), checks)


RUN = "gaussian/zero/world-5draw-pooled/fold1-seed0"
DAMAGED = {  # file of a past run: how many lines say so; 0: it is made anew without a word
    f"{RUN}/config.json": 1,
    f"{RUN}/model/model.safetensors": 6,
    f"{RUN}/al.json": 1,
    f"{RUN}/DONE": 0,
    "notebooks/gaussian/train-0-seed0-fold1.ipynb": 0,
}


def damage(runs, name):
    "Cut a file in half; an empty one is removed. Of a model's run all lines but one are removed."
    path = runs / name
    kept = path.read_bytes()
    if kept:
        path.write_bytes(kept[: len(kept) // 2])
    else:
        path.unlink()
    if "model" in name:
        for condition in ("v", "l", "av", "al", "vl", "avl"):
            (runs / RUN / f"{condition}.json").unlink()


def damaged_row(sweeps, name):
    "A past run of which one file is damaged; then what the line says is done, and the sweep again."
    runs = sweeps.home / "damaged"  # of all these rows
    assert sweeps.finish(runs)[0] == 0
    kept = {p: when for p, when in acknowledged(runs).items() if RUN not in str(p)}
    kept = {p: when for p, when in kept.items() if p.suffix != ".ipynb"}  # that name this run
    damage(runs, name)
    code, said = sweeps.finish(runs)
    lines = reported(said)
    named = [line for line in lines if str(runs / name) in line]
    for line in lines:
        follow(line, runs / name)
    checks = {f"lines: {lines}": len(lines) == len(named) == DAMAGED[name]}
    ended = code, said, min(DAMAGED[name], 1)
    fault = f"a damaged {Path(name).name} of a past run"
    return went_on(sweeps, fault, runs, ended, checks, kept)


def follow(line, path):
    "Remove what a line says is to be removed."
    (what,) = re.findall(r"remove (\S+), and", line)
    if what == "it":
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(what, ignore_errors=True)


def can_mount(home):
    try:
        with mounted(Path(home, "tried"), "size=1m"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def rows_of(kind, sweeps, asked):
    "The rows of one kind of faults; none where they need a file system that cannot be mounted."
    if kind == "kills":
        yield killed_row(sweeps, asked.kills, asked.seed, asked.within)
    elif kind == "together":
        yield together_row(sweeps, 5, asked.seed)
    elif kind == "within":
        for fault in WITHIN:
            yield within_row(sweeps, fault)
    elif kind == "damaged":
        for name in DAMAGED:
            yield damaged_row(sweeps, name)
    elif not can_mount(sweeps.home):
        print(f"{kind}: left out, since no file system can be mounted")
    elif kind == "full":
        for share in (0.1, 0.5, 0.9):
            yield full_row(sweeps, share)
    else:
        yield from read_only_rows(sweeps)


def written(row, path):
    "Write a row into the table, in the place of an earlier one about the same fault."
    others = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=list(row))
    table = pd.concat([others[others.fault != row["fault"]], pd.DataFrame([row])])
    write_text(path, table.to_csv(index=False))
    print(pd.DataFrame([row]).to_string(index=False, header=False), flush=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--within", type=float, help="seconds in which a sweep is killed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=BENCH / "faults.csv")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as home:
        sweeps = Sweeps(home)
        for kind in asked.kinds:
            for row in rows_of(kind, sweeps, asked):
                written(row, asked.out)


if __name__ == "__main__":
    main()
