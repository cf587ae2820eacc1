"""How many times as long torch takes as onnxruntime for what `ramer onnx` exports.

Writes results/bench/onnx.csv: of every file and of whole answers, the ratio of processor seconds in
one run, each on one thread: the median over repeats, the least and the most, and how far the
answers are apart. The widths are MER2024's divided by 8, audio has up to 50 frames.
Run on a quiet machine:
`OMP_NUM_THREADS=1 .venv/bin/python benchmarks/onnx_speed.py`.
"""

import argparse
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import torch
from search import BENCH, file_path, on_one_thread, seconds, write_table

from ramer.conditions import random_masks
from ramer.data.worlds import WORLDS, sample
from ramer.methods.registry import configure, make_method
from ramer.onnx_export import OnnxModel, export_onnx, graphs_of

BATCHES = (1, 32, 1024)
FRAMES, N_TRAIN, N_DEV = 50, 300, 100
COLUMNS = ("what", "batch", "torch by onnxruntime", "least", "most", "largest difference")


def with_frames(clips):
    "The clips with audio as frames: each the clip's vector and some noise."
    rng = np.random.default_rng(0)
    n, width = clips.features["a"].shape
    x = clips.features["a"][:, None] + rng.standard_normal((n, FRAMES, width), np.float32)
    lengths = {"a": rng.integers(FRAMES // 2, FRAMES + 1, n)}
    return replace(clips, features=clips.features | {"a": x}, lengths=lengths)


def ratios(by_torch, by_onnx, repeats):
    "Seconds of one by those of the other: one ratio for each repeat, in which both are timed."
    return [seconds(by_torch, 5, 0.3) / seconds(by_onnx, 5, 0.3) for _ in range(repeats)]


def row(what, batch, by_torch, by_onnx, repeats):
    "A row of the table, of two functions that give the same."
    far = np.abs(np.asarray(by_torch()) - np.asarray(by_onnx())).max()
    found = ratios(by_torch, by_onnx, repeats)
    return what, batch, np.median(found), min(found), max(found), far


def graph_rows(name, graph, session, batches, repeats):
    "Rows of one file: the same inputs given to its graph in torch, and to onnxruntime."
    rows = []
    for batch in batches:
        example = graph.eval().example(batch, FRAMES)
        arrays = {key: x.numpy() for key, x in example.items()}
        by_torch = partial(graph, example)
        rows.append(row(name, batch, by_torch, lambda x=arrays: session.run(None, x)[0], repeats))
    return rows


def method_rows(method, home, clips, batches, repeats, files):
    "Rows of whole answers of a method, and of some of its files."
    name = method.config.method
    export_onnx(method, home)
    exported = OnnxModel(home)
    graphs = graphs_of(method)
    rows = []
    for file, what in files.items():
        given = what, graphs[file], exported.sessions[file]
        rows += graph_rows(*given, batches, repeats)
    for batch in batches:
        asked = clips[:batch], random_masks(batch, 3, np.random.default_rng(0))
        pair = [partial(each.predict_proba, *asked) for each in (method, exported)]
        rows.append(row(f"a whole answer of {name}", batch, *pair, repeats))
    return rows


FILES = {
    "zero": {
        "encoder-l.onnx": "an encoder of vectors",
        "encoder-a.onnx": f"an encoder of {FRAMES} frames",
        "classifier.onnx": "the classifier",
    },
    "logistic": {"linear.onnx": "the regressions"},
}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=file_path, default=BENCH / "onnx.csv")
    asked = parser.parse_args(arguments)
    on_one_thread()
    world, sizes = WORLDS["mer2024-shaped"], (N_TRAIN, N_DEV, max(asked.batches))
    train, dev, new = [with_frames(sample(world, n, seed)) for seed, n in enumerate(sizes)]
    rows = []
    with tempfile.TemporaryDirectory() as home, torch.no_grad():
        for name, files in FILES.items():
            with torch.enable_grad():
                method = make_method(configure(world.name, name, epochs=1)).fit(train, dev)
            given = new.without_labels(), asked.batches, asked.repeats, files
            rows += method_rows(method, Path(home, name), *given)
    table = pd.DataFrame(rows, columns=COLUMNS)
    write_table(table.assign(onnxruntime=onnxruntime.__version__), asked.out)


if __name__ == "__main__":
    main()
