"""A store's search beside other libraries', and beside the loop of RAMER's released code.

Writes results/bench/beside.csv: the time of each by that of an exact store, measured in one run,
on one thread, and the share of the exact neighbours that it finds. What is not installed is left
out by name; `pip install hnswlib usearch lancedb pymilvus milvus-lite` installs all. Run on a
quiet machine: `OMP_NUM_THREADS=1 .venv/bin/python benchmarks/beside.py`.
"""

import tempfile
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec

import faiss
import numpy as np
import pandas as pd
import torch
from search import (
    BATCHES,
    K,
    filled_store,
    on_one_thread,
    options,
    seconds,
    unit_rows,
    write_table,
)

from ramer.retrieval.fusion import fill_from

LINKS, BUILDING, LOOKING = 32, 200, 128  # of the graphs of hnswlib and usearch


def of_sklearn(rows, home):
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(n_neighbors=K, metric="cosine", algorithm="brute").fit(rows)
    return lambda queries: index.kneighbors(queries, return_distance=False)


def of_hnswlib(rows, home):
    import hnswlib

    index = hnswlib.Index(space="ip", dim=rows.shape[1])
    index.init_index(max_elements=len(rows), M=LINKS, ef_construction=BUILDING)
    index.set_num_threads(1)
    index.add_items(rows)
    index.set_ef(LOOKING)
    return lambda queries: index.knn_query(queries, K)[0]


def of_usearch(rows, home):
    from usearch.index import Index

    index = Index(ndim=rows.shape[1], metric="ip", connectivity=LINKS, expansion_search=LOOKING)
    index.add(np.arange(len(rows)), rows, threads=1)
    return lambda queries: np.atleast_2d(index.search(queries, K, threads=1).keys)


def of_lancedb(rows, home):
    import lancedb
    import pyarrow

    numbers = pyarrow.FixedSizeListArray.from_arrays(rows.ravel(), rows.shape[1])
    table = pyarrow.table({"row": np.arange(len(rows)), "vector": numbers})
    opened = lancedb.connect(home).create_table("clips", table)

    def search(queries):
        found = [opened.search(query).distance_type("dot").limit(K) for query in queries]
        return [each.select(["row", "_distance"]).to_arrow()["row"].to_numpy() for each in found]

    return search


def of_milvus(rows, home):
    from pymilvus import MilvusClient

    client = MilvusClient(f"{home}/milvus.db")
    client.create_collection("clips", dimension=rows.shape[1], metric_type="IP")
    for start in range(0, len(rows), 1000):
        block = rows[start : start + 1000]
        numbered = [{"id": start + i, "vector": row} for i, row in enumerate(block)]
        client.insert("clips", numbered)

    def search(queries):
        lists = client.search("clips", data=list(queries), limit=K)
        return [[hit["id"] for hit in hits] for hits in lists]

    return search


OTHERS = {  # module: (its distribution, how it searches)
    "sklearn": ("scikit-learn", of_sklearn),
    "hnswlib": ("hnswlib", of_hnswlib),
    "usearch": ("usearch", of_usearch),
    "lancedb": ("lancedb", of_lancedb),
    "milvus_lite": ("milvus-lite", of_milvus),
}


def released_loop(rows, values):
    "One FAISS call and one built-in sum a query, as RAMER's released code is described."
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)

    def fill(queries):
        filled = []
        for query in torch.from_numpy(queries):
            _, found = index.search(query.cpu().numpy()[None], K)
            total = sum([torch.from_numpy(values[row]) for row in found[0]])
            filled.append(total / total.norm())
        return torch.stack(filled)

    return fill


def share_found(found, exact):
    hits = [len(set(map(int, one)) & set(other)) for one, other in zip(found, exact.tolist())]
    return sum(hits) / exact.size


def measured(n, names, seed=0):
    "A row for each library and batch."
    rng = np.random.default_rng(seed)
    features = {m: unit_rows(rng, n) for m in "al"}
    store = filled_store(features)
    queries = unit_rows(rng, max(BATCHES))
    exact = store.search({"a": queries}, K).rows
    rows = []

    def add(what, search, ours, recall=None):
        for batch in BATCHES:
            some = queries[:batch]
            ratio = seconds(partial(search, some)) / seconds(partial(ours, some))
            row = {"what": what, "clips": n, "batch": batch, "times as long": ratio}
            rows.append(row | {"recall": recall})

    for name in names:
        distribution, build = OTHERS[name]
        with tempfile.TemporaryDirectory() as home:
            search = build(features["a"], home)
            recall = share_found(search(queries), exact)
            what = f"{distribution} {version(distribution)}"
            add(what, search, lambda some: store.search({"a": some}, K), recall)

    def our_fill(some):
        return fill_from(store, store.search({"a": some}, K), "l")

    add("the released loop, with fusion", released_loop(features["a"], features["l"]), our_fill)
    return rows


def main(arguments=None):
    parser = options(__doc__, "beside.csv")
    parser.add_argument("--only", nargs="+", choices=OTHERS, default=list(OTHERS))
    asked = parser.parse_args(arguments)
    on_one_thread()
    names = [name for name in asked.only if find_spec(name)]
    for name in set(asked.only) - set(names):
        print(f"{name} is not installed, so it is left out")
    table = pd.DataFrame([row for n in asked.clips for row in measured(n, names)])
    write_table(table, asked.out)


if __name__ == "__main__":
    main()
