"""How search time grows with the store: exact search at the paper's four database sizes.

Writes results/bench/search.csv: ratios to the smallest size, measured in one run. Run on a quiet
machine: `OMP_NUM_THREADS=1 .venv/bin/python benchmarks/search.py`.
"""

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from ramer.io import write_text
from ramer.retrieval.store import RetrievalStore

SIZES = {"small": 5030, "medium": 57_780, "large": 115_595, "turbo": 120_625}


def seconds(store, queries, repeats=7):
    "The median time of one search."
    store.search({"a": queries}, 5)  # builds the index

    def once():
        start = time.perf_counter()
        store.search({"a": queries}, 5)
        return time.perf_counter() - start

    return statistics.median(once() for _ in range(repeats))


def time_ratios(features, queries):
    "A row for each database: its size, and its time of a search by that of the smallest."
    taken = {}
    for name, n in SIZES.items():
        store = RetrievalStore()
        store.add([f"clip{i}" for i in range(n)], {"a": features[:n]})
        taken[name] = seconds(store, queries)
    rows = []
    for name, n in SIZES.items():
        ratio = taken[name] / taken["small"]
        row = {"batch": len(queries), "database": name, "clips": n, "time / time of small": ratio}
        rows.append(row)
    return rows


def main(out=Path(__file__).parents[1] / "results" / "bench" / "search.csv"):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(max(SIZES.values()), 256)).astype(np.float32)
    rows = []
    for batch in (1, 64, 512):
        queries = rng.normal(size=(batch, 256)).astype(np.float32)
        rows += time_ratios(features, queries)
    write_text(out, pd.DataFrame(rows).to_csv(index=False, float_format="%.2f"))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
