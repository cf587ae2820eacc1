"""What a store's search costs beside the products that it needs, and what a change costs.

Writes results/bench/search.csv: ratios of two times, or of bytes, measured in one run, with the
target of each. Run on a quiet machine: `OMP_NUM_THREADS=1 .venv/bin/python benchmarks/search.py`;
`--clips 5030` for one size alone, as a million clips take many minutes.
"""

import argparse
import json
import platform
import re
import statistics
import time
from functools import partial
from itertools import count
from pathlib import Path
from unittest.mock import patch

import faiss
import numpy as np
import pandas as pd
import torch

from ramer.io import write_text
from ramer.retrieval import exact
from ramer.retrieval.store import RetrievalStore
from ramer.runs.provenance import versions

BENCH = Path(__file__).parents[1] / "results" / "bench"
SIZES = (5030, 120_625)  # the smallest and the largest database of the paper
LARGE = (*SIZES, 1_000_000)
BATCHES = (1, 64, 512)
K, WIDTH, GROUP = 5, 256, 60  # neighbours, numbers of a row, clips of a speaker
SEARCH_TARGET, SMALL_TARGET, CHANGE_TARGET, MEMORY_TARGET = 1.15, 2.0, 3.0, 1.3


def seconds(once, calls=7, least=0.5):
    "The median time of `calls`, or of as many more as `least` seconds hold."
    once()
    taken = []
    while len(taken) < calls or sum(taken) < least:
        start = time.process_time()
        once()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def file_path(text):
    "The path of a file, which may be there or not; asked before an hour of measuring."
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{path} is a folder; name a file, such as {path}/out.csv")
    return path


def options(description, out, sizes=SIZES):
    "A parser that knows what all benchmarks of the store are asked for."
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--clips", type=int, nargs="+", default=sizes)
    parser.add_argument("--out", type=file_path, default=BENCH / out)
    return parser


def on_one_thread():
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)


def held_bytes(field, process="self"):
    "A size that Linux notes of a process, VmRSS or VmHWM. getrusage also counts who started it."
    status = Path(f"/proc/{process}/status").read_text()
    return 1024 * int(re.search(rf"{field}:\s+(\d+)", status)[1])


def peak_memory():
    "The most bytes that this very program has held."
    return held_bytes("VmHWM")


def processor():
    "What the processor calls itself."
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def write_table(table, path):
    "Write a table as CSV, and into machine.json beside it what it was measured with."
    write_text(path, table.to_csv(index=False, float_format="%.3g"))
    noted = path.with_name("machine.json")
    known = json.loads(noted.read_text()) if noted.exists() else {}
    known[path.name] = {"processor": processor(), **versions()}
    write_text(noted, json.dumps(dict(sorted(known.items())), indent=1) + "\n")
    print(table.to_string(index=False))


def verdicts(table):
    "Whether each ratio holds its target, if it has one: yes or no. bound: at most or at least."
    above = table.bound == "at least"
    reached = np.where(above, table.ratio >= table.target, table.ratio <= table.target)
    return np.where(table.target.isna(), "", np.where(reached, "yes", "no"))


def with_verdicts(table):
    "The table with its `verdicts`."
    return table.assign(batch=table.batch.astype("Int64"), holds=verdicts(table))


def unit_rows(rng, n):
    rows = rng.standard_normal((n, WIDTH), np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def filled_store(features, engine="exact"):
    n = len(features["a"])
    store = RetrievalStore(engine=engine)
    groups = [f"speaker{i // GROUP}" for i in range(n)]
    store.add([f"clip{i}" for i in range(n)], features, groups=groups)
    return store


def raw_seconds(rows, queries):
    "The better of FAISS's flat index and a matrix product in torch, over rows side by side."
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    by_faiss = seconds(lambda: index.search(queries, K))
    tensors = torch.from_numpy(queries), torch.from_numpy(rows)
    by_torch = seconds(lambda: torch.topk(tensors[0] @ tensors[1].T, K))
    return min(by_faiss, by_torch)


def search_rows(store, features, rng):
    "A row for each batch and kind of search: its time by that of the raw search."
    n = len(store)
    both = np.concatenate([features["a"], features["l"]], axis=1)
    rows = []
    for batch in BATCHES:
        queries = {m: rng.standard_normal((batch, WIDTH), np.float32) for m in features}
        side_by_side = np.concatenate([queries["a"], queries["l"]], axis=1)
        raw = raw_seconds(features["a"], queries["a"])
        raw_of_two = raw_seconds(both, side_by_side)
        asked = rng.integers(0, n, batch)
        ids, groups = store.ids[asked], store.groups[asked]
        ask = partial(store.search, {"a": queries["a"]}, K)
        kinds = {
            "audio": (raw, ask),
            "audio, without an id": (raw, partial(ask, exclude_ids=ids)),
            "audio, without a group": (raw, partial(ask, exclude_groups=groups)),
            "audio and text": (raw_of_two, partial(store.search, queries, K)),
        }
        target = SMALL_TARGET if (batch, n) == (1, min(SIZES)) else SEARCH_TARGET
        for kind, (beside, once) in kinds.items():
            rows.append(
                {"what": kind, "clips": n, "batch": batch, "ratio": seconds(once) / beside}
                | {"of": "a raw search", "target": target}
            )
    return rows


def kernel_rows(rows, rng):
    "FAISS's kernel for one query, by a matrix product, for few queries: where to change over."
    n = len(rows)
    found = []
    for batch in (1, 4, 8, 16):
        queries = rng.standard_normal((batch, WIDTH), np.float32)
        into = np.empty((batch, n), np.float32)
        product = seconds(partial(np.dot, queries, rows.T, out=into))
        with patch.object(exact, "FEW", batch):
            kernel = seconds(partial(exact.inner_products, queries, rows, into))
        found.append(
            {"what": "a pass for each query", "clips": n, "batch": batch}
            | {"ratio": kernel / product, "of": "a matrix product"}
        )
    return found


def narrow_rows(rows, rng):
    "Products of narrower numbers, by those of float32: what scoring in them could save."
    tensors = torch.from_numpy(rows)
    scaled = (tensors * (127 / tensors.abs().max())).round().to(torch.int8)
    found = []
    for batch in BATCHES:
        queries = torch.from_numpy(unit_rows(rng, batch))
        whole = seconds(partial(torch.matmul, queries, tensors.T))
        halves = queries.bfloat16(), tensors.bfloat16().T
        kinds = {"products in bfloat16": partial(torch.matmul, *halves)}
        if batch > 16:  # torch multiplies no fewer rows of int8
            small = (queries * 127 / queries.abs().max()).round().to(torch.int8)
            kinds["products in int8"] = partial(torch._int_mm, small, scaled.T)
        for what, once in kinds.items():
            row = {"what": what, "clips": len(rows), "batch": batch}
            found.append(row | {"ratio": seconds(once) / whole, "of": "a matrix product"})
    return found


def change_rows(store, rng):
    "What it costs to add, correct or remove one clip and search, by a search."
    query = {"a": rng.standard_normal((1, WIDTH), np.float32)}
    search = seconds(lambda: store.search(query, K))
    one = {m: rng.standard_normal((1, WIDTH), np.float32) for m in store.modalities}
    names = (f"late{i}" for i in count())
    stored = iter(store.ids.tolist())

    def adds():
        store.add([next(names)], one)
        store.search(query, K)

    def corrects():
        store.update([next(stored)], one)
        store.search(query, K)

    def removes():
        store.remove([next(stored)])
        store.search(query, K)

    changes = {"add a clip": adds, "correct a clip": corrects, "remove a clip": removes}
    n = len(store)
    return [
        {
            "what": f"{what}, and search",
            "clips": n,
            "batch": 1,
            "ratio": seconds(once, 25, 0) / search,
        }
        | {"of": "a search", "target": CHANGE_TARGET}
        for what, once in changes.items()
    ]


def memory_row(store):
    "Bytes that a store holds, by those of the rows of its modalities."
    names = ("ids", "groups", "labels", "present", "group_codes")
    columns = [getattr(store, name) for name in names]
    rows = sum(x.nbytes for x in store.features.values())
    compared = {id(x): x.nbytes for x in (*store.features.values(), *store.compared.values())}
    held = sum(compared.values()) + sum(column.nbytes for column in columns)
    return {"what": "memory", "clips": len(store), "ratio": held / rows} | {
        "of": "the rows",
        "target": MEMORY_TARGET,
    }


def measured(n, seed=0):
    "All rows of one size."
    rng = np.random.default_rng(seed)
    features = {m: unit_rows(rng, n) for m in "al"}
    store = filled_store(features)
    kernels = [*kernel_rows(features["a"], rng), *narrow_rows(features["a"], rng)]
    rows = [*kernels, *search_rows(store, features, rng)]
    return pd.DataFrame([*rows, memory_row(store), *change_rows(store, rng)])


def main(arguments=None):
    asked = options(__doc__, "search.csv", LARGE).parse_args(arguments)
    on_one_thread()
    measures = pd.concat([measured(n) for n in asked.clips])
    is_bound = measures.target.notna()
    table = with_verdicts(measures.assign(bound=np.where(is_bound, "at most", "")))
    write_table(table, asked.out)


if __name__ == "__main__":
    main()
