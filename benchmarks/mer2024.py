"""The whole way at MER2024's true size, simulated: from MERTools' layout to four databases.

Writes results/bench/mer2024.csv: seconds and peak memory of each step, mer2024-accuracy.csv: WA on
both test sets, and mer2024-alone.csv: F1 of a regression on one modality. About 8 GB of disk for a
while, below the folder given by --work.
Everything is simulated: a world with MER2024's widths, class counts and sizes; MER-NOISE is noise
on audio and face. How hard each modality is follows a published table of single modalities
(notebook 05_worlds). Seconds are of one machine and mean something as shares of each other only.

results/bench/mer2024-before.csv is what `benchmarks/mer2024.py` of commit be46a79 wrote as
mer2024.csv, beside this one on the other core of the same machine: with its 100 epochs at most,
patience 10, and an exact search.
"""

import argparse
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from search import peak_memory

from ramer.conditions import all_conditions
from ramer.data.folders import read_folder, write_folder
from ramer.data.folds import Dataset
from ramer.data.layouts import read_mertools
from ramer.data.worlds import EMOTIONS, MER2024_COUNTS, WORLDS, sample
from ramer.evaluation.metrics import METRICS, confusion_matrix
from ramer.evaluation.protocol import Protocol, make_judge
from ramer.io import write_text
from ramer.methods.config import OPTIONS, Config
from ramer.methods.registry import configure, make_method
from ramer.runs.training import fit_shared

WORLD = replace(
    WORLDS["mer2024-shaped"],
    name="mer2024",
    dims={"a": 1024, "v": 768, "l": 5120},
    note="simulated: MER2024's class counts, sizes and widths, each modality as hard as published",
)
SPLITS = {
    "train": 5030,
    "test1": 1169,  # MER-SEMI
    "test2": 1170,  # MER-NOISE
    "unlabelled": 115_595,
}
TESTS = {"test1": "SEMI", "test2": "NOISE"}
FOLDERS = {
    "a": "chinese-hubert-large-UTT",
    "v": "clip-vit-large-patch14-UTT",
    "l": "Baichuan-13B-Base-UTT",
}
NOISE = {"a": 1.0, "v": 1.0}  # deviation of what MER-NOISE adds to audio and face
METHODS = ("zero", "ramer", "ramer-medium", "ramer-large", "ramer-turbo")


def first_of_each(labels, wanted):
    "(N,) bool: the first clips of each class, as many as are wanted."
    return pd.Series(labels).groupby(labels).cumcount().to_numpy() < wanted[labels]


def blocks_of(number, split, n, block=2048):
    "The clips of one split, block by block; train has MER2024's class counts in proportion to n."
    wanted = np.array(MER2024_COUNTS) * n // sum(MER2024_COUNTS)
    start = 0
    is_train = split == "train"
    while (wanted.sum() if is_train else n - start) > 0:
        drawn = block if is_train else min(block, n - start)
        seed = number * 1_000_000 + start
        clips = sample(WORLD, drawn, seed=seed, prefix=f"{split}-{start:06d}-")
        if is_train:
            clips = clips[first_of_each(clips.labels, wanted)]
            wanted = wanted - np.bincount(clips.labels, minlength=len(wanted))
        start += block
        yield clips


def save_rows(folder, ids, x):
    "A .npy file for each row."
    for name, row in zip(ids, x):
        np.save(folder / f"{name}.npy", row)


def generate(work, splits):
    """The label file and a folder of .npy files for each modality.

    The unlabelled have one and the same placeholder, as in the released label file.
    """
    rng = np.random.default_rng(7)
    corpora = {}
    for folder in FOLDERS.values():
        (work / "features" / folder).mkdir(parents=True)
    for number, (split, n) in enumerate(splits.items()):
        labels = {}
        for clips in blocks_of(number, split, n):
            for name, y in zip(clips.ids, clips.labels):
                labels[name] = {"emo": "neutral" if split == "unlabelled" else EMOTIONS[y]}
            for m, folder in FOLDERS.items():
                x = clips.features[m]
                if split == "test2" and m in NOISE:
                    x = (x + NOISE[m] * rng.normal(size=x.shape)).astype(np.float32)
                save_rows(work / "features" / folder, clips.ids, x)
        corpora[f"{split}_corpus"] = np.array(labels, object)
    np.savez(work / "label-6way.npz", **corpora)


def alone(m, splits):
    "Weighted F1 of a logistic regression on one modality, as 05_worlds measures it."
    world = replace(WORLD, dims={m: WORLD.dims[m]}, signal={m: WORLD.signal[m]})
    train = sample(world, splits["train"], 1)
    test, dev = [sample(world, splits["test1"], seed) for seed in (2, 3)]
    regression = make_method(configure("mer2024", "logistic", penalty=100.0)).fit(train, dev)
    judged = make_judge(test)(regression.predict_proba, m)
    confusion = confusion_matrix(
        labels=judged.labels, predicted=judged.predicted, classes=len(test.classes)
    )
    return float(METRICS["WAF"](confusion))


def parts_of(corpus):
    "(learnable clips, {test set: clips}) of the corpus."
    is_learnable = np.isin(corpus.split, ["train", "unlabelled"])
    tests = {name: corpus.clips[corpus.split == name] for name in TESTS}
    return corpus.clips[is_learnable], tests


class Steps:
    "Rows of what steps took: seconds since the last one, and peak memory so far."

    def __init__(self):
        self.rows = []
        self.start = time.perf_counter()

    def done(self, step, clips):
        "Note that a step over some clips has ended."
        row = {
            "step": step,
            "clips": clips,
            "seconds": round(time.perf_counter() - self.start, 1),
            "peak memory so far, GB": round(peak_memory() / 1e9, 2),
        }
        self.rows.append(row)
        print(row, flush=True)
        self.start = time.perf_counter()


def converted(work, splits, steps):
    "The corpus: written in MERTools' layout, read, checked, converted and mapped."
    work.mkdir(parents=True)
    generate(work, splits)
    steps.done("written in MERTools' layout", sum(splits.values()))
    scratch = work / "scratch"
    scratch.mkdir()
    folders = {m: work / "features" / name for m, name in FOLDERS.items()}
    corpus = read_mertools(work / "label-6way.npz", folders, scratch=scratch)
    steps.done("read and checked", len(corpus))
    assert any("placeholder" in sentence for sentence in corpus.problems)
    assert corpus.present.all()
    problems = (*corpus.problems, WORLD.note)
    write_folder(replace(corpus, problems=problems), work / "converted")
    steps.done("converted", len(corpus))
    shutil.rmtree(work / "features")
    shutil.rmtree(scratch)
    del corpus
    mapped = read_folder(work / "converted")
    steps.done("those files removed, and mapped again", len(mapped))
    return mapped


def accuracies(method, fitted, tests):
    "A row with the WA of each test set and condition."
    rows = []
    for name, test in tests.items():
        for condition in all_conditions(test.modalities):
            judged = make_judge(test)(fitted.predict_proba, condition)
            right = (judged.predicted == judged.labels).mean()
            row = {"test": TESTS[name], "method": method, "condition": condition, "WA": right}
            rows.append(row)
    return rows


def compare(protocol, tests, training, steps):
    """WA of every method: a row for each test set and condition.

    training: fields of a Config.
    """
    rows = []
    stage1s = {}
    for method in METHODS:
        config = configure("mer2024", method, **training)
        fitted = fit_shared(config, protocol.train, protocol.dev, stage1s)
        stages = "1 to 3" if method == METHODS[0] else "2 and 3"
        stored = getattr(fitted, "store", protocol.train.labelled())
        steps.done(f"{method}: stages {stages}", len(stored))
        rows += accuracies(method, fitted, tests)
        n_test = sum(map(len, tests.values()))
        steps.done(f"{method}: judged twice under every condition", n_test)
        del fitted, stored  # before the next one makes a store of its own
    return rows


def options_of(arguments):
    "The command line's options."
    results = Path(__file__).parents[1] / "results" / "bench"
    parser = argparse.ArgumentParser(description=__doc__)
    work = "a folder that is made and removed again"
    parser.add_argument("--work", type=Path, default=Path("runs/mer2024"), help=work)
    parser.add_argument("--out", type=Path, default=results)
    share = "this share of the clips, for a trial"
    parser.add_argument("--share", type=float, default=1.0, help=share)
    parser.add_argument("--epochs", type=int, default=100)
    patience = "epochs without a better dev UA before stopping"
    parser.add_argument("--patience", type=int, default=Config.patience, help=patience)
    engine = "what finds neighbours; auto: an index where a database is large"
    parser.add_argument("--engine", choices=OPTIONS["engine"], default="auto", help=engine)
    return parser.parse_args(arguments)


def main(arguments=None):
    options = options_of(arguments)
    splits = {name: int(n * options.share) for name, n in SPLITS.items()}
    steps = Steps()
    rows = [{"modality": m, "F1": alone(m, splits), "note": WORLD.note} for m in WORLD.dims]
    text = pd.DataFrame(rows).to_csv(index=False, float_format="%.4f")
    write_text(options.out / "mer2024-alone.csv", text)
    steps.done("one modality at a time, a regression", splits["train"])
    corpus = converted(options.work, splits, steps)
    learnable, tests = parts_of(corpus)
    steps.done("cut into parts", len(learnable))

    def parts(fold):
        return learnable, tests["test1"]

    protocol = Protocol(Dataset("mer2024", 1, parts, "SEMI", WORLD.note, synthetic=True))
    steps.done("audited and hashed", len(learnable))
    training = {name: getattr(options, name) for name in ("epochs", "patience", "engine")}
    scores = pd.DataFrame(compare(protocol, tests, training, steps))
    table = scores.pivot(index=["test", "method"], columns="condition", values="WA")
    table = table.reset_index().assign(note=WORLD.note)
    write_text(options.out / "mer2024.csv", pd.DataFrame(steps.rows).to_csv(index=False))
    write_text(options.out / "mer2024-accuracy.csv", table.to_csv(index=False, float_format="%.4f"))
    shutil.rmtree(options.work)
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
