"""From a csv of one's own to answers: lines of code, seconds and accuracy, ours and others'.

Writes benchmarks/first-answer.csv: for each data set and way, how many lines of code it takes, the
median seconds of a whole process (imports included) and how many times as long as scikit-learn
alone that is, all of one run, and the accuracy on test clips, complete and with text alone. Train
clips lack modalities at random. iMML's views are joined and mean-filled: its imputers (0.6.0) leave
NaN where a new clip lacks a modality, give factors in place of features, or raise. `gaussian` is
synthetic; `mosi` needs its file. Run on a quiet machine:
`OMP_NUM_THREADS=1 .venv/bin/python benchmarks/first_answer.py`.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from ramer.conditions import condition_mask, random_masks, within
from ramer.data.datasets import available_datasets, load_dataset
from ramer.io import write_text

DATASETS = ("gaussian", "mosi")
NEW = ("complete", "text-alone")
READ = """
import pandas as pd
{imports}

train = pd.read_csv("train.csv")
blocks = {{m: [c for c in train if c.startswith(m + "_")] for m in "avl"}}
columns = sum(blocks.values(), [])
"""
ANSWER = """
for name in ("complete", "text-alone"):
    new = pd.read_csv(f"{{name}}.csv")
    new["answer"] = model.predict({given})
    new[["id", "answer"]].to_csv(f"{{name}}-answers.csv", index=False)
"""
OURS = "model = {kind}(blocks{options})\nmodel.fit(train[columns], train.label, groups=train.group)"
WAYS = {
    "scikit-learn": (
        "from sklearn.impute import SimpleImputer\n"
        "from sklearn.linear_model import LogisticRegression\n"
        "from sklearn.pipeline import make_pipeline\n"
        "from sklearn.preprocessing import StandardScaler",
        "regression = LogisticRegression(max_iter=2000)\n"
        "model = make_pipeline(StandardScaler(), SimpleImputer(), regression)\n"
        "model.fit(train[columns], train.label)",
        "new[columns]",
    ),
    "iMML": (
        "from imml.preprocessing import ConcatenateMods\n"
        "from sklearn.impute import SimpleImputer\n"
        "from sklearn.linear_model import LogisticRegression\n"
        "from sklearn.pipeline import make_pipeline",
        "regression = LogisticRegression(max_iter=2000)\n"
        "model = make_pipeline(ConcatenateMods(), SimpleImputer(), regression)\n"
        "model.fit([train[names].to_numpy() for names in blocks.values()], train.label)",
        "[new[names].to_numpy() for names in blocks.values()]",
    ),
    "RAMERClassifier": (
        "from ramer import RAMERClassifier",
        OURS.format(kind="RAMERClassifier", options="{options}"),
        "new[columns]",
    ),
    "GatedRetrievalClassifier": (
        "from ramer import GatedRetrievalClassifier",
        OURS.format(kind="GatedRetrievalClassifier", options="{options}"),
        "new[columns]",
    ),
}


def script(way, options=""):
    "The whole program of one way."
    imports, fit, given = WAYS[way]
    made = fit.format(options=options)
    return READ.format(imports=imports).lstrip() + "\n" + made + "\n" + ANSWER.format(given=given)


def lines_of(way):
    "How many lines of code a way takes."
    return sum(bool(line.strip()) for line in script(way).splitlines())


def write_csv(clips, path):
    "Clips as one table: id, label, group, and a column for each number; empty where missing."
    table = pd.DataFrame({"id": clips.ids, "group": clips.groups})
    table["label"] = np.array(clips.classes)[clips.labels]
    columns = {}
    for i, (m, x) in enumerate(clips.features.items()):
        shown = np.where(clips.present[:, [i]], x, np.nan)
        columns |= {f"{m}_{j}": shown[:, j] for j in range(x.shape[1])}
    pd.concat([table, pd.DataFrame(columns)], axis=1).to_csv(path, index=False)


def write_tables(name, folder):
    "The csv files of a data set's first fold. Returns the true label of every test clip."
    learnable, test = load_dataset(name).parts(0)
    train = learnable.labelled()
    masks = random_masks(len(train), len(train.modalities), np.random.default_rng(0))
    write_csv(train.hide(within(masks, train.present)), folder / "train.csv")
    write_csv(test, folder / "complete.csv")
    text = condition_mask("l", len(test), test.modalities)
    write_csv(test.hide(text), folder / "text-alone.csv")
    return pd.Series(np.array(test.classes)[test.labels], index=test.ids)


def measured(way, folder, truth, options=""):
    "{'seconds', accuracy on each new table} of one process."
    start = time.perf_counter()
    command = [sys.executable, "-W", "ignore", "-c", script(way, options)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    found = {"seconds": time.perf_counter() - start}
    for name in NEW:
        given = pd.read_csv(folder / f"{name}-answers.csv", dtype=str).set_index("id").answer
        found[f"accuracy, {name}"] = float((given == truth.astype(str)[given.index]).mean())
    return found


def rows_of(name, repeats, options):
    "A row for each way on one data set: medians over the repeats."
    with tempfile.TemporaryDirectory() as home:
        truth = write_tables(name, Path(home))
        rows = {}
        for way in WAYS:
            runs = [measured(way, Path(home), truth, options) for _ in range(repeats)]
            rows[way] = {"lines": lines_of(way)} | pd.DataFrame(runs).median().to_dict()
            print(name, way, rows[way], flush=True)
    table = pd.DataFrame(rows).T
    table["times as long"] = table.seconds / table.seconds["scikit-learn"]
    return table.rename_axis("way").reset_index().assign(data=name)


def main():
    "Measure every way on every data set that is here, and write the table."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="of ours; default: until dev stops rising")
    parser.add_argument("--dataset", action="append", choices=DATASETS)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("first-answer.csv"))
    given = parser.parse_args()
    options = f", epochs={given.epochs}" if given.epochs else ""
    names = [name for name in given.dataset or DATASETS if name in available_datasets()]
    table = pd.concat([rows_of(name, given.repeats, options) for name in names])
    order = ["data", "way", "lines", "seconds", "times as long", *(f"accuracy, {n}" for n in NEW)]
    write_text(given.out, table[order].to_csv(index=False, float_format="%.3g"))


if __name__ == "__main__":
    main()
