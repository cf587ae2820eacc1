"""How much faster an approximate engine searches features of a trained model, and what it misses.

Writes results/bench/engines.csv: ratios of two times measured in one run, on one thread. The clips
are simulated (world mer2024-shaped), their features are the h of a stage 1 trained on 5,030
of them. Run on a quiet machine: `OMP_NUM_THREADS=1 .venv/bin/python benchmarks/engines.py`;
`--clips 10000` for one size alone, as a million clips take many minutes. The target binds the
engine that `auto` takes; of the others it is shown what they reach.
"""

import time
from functools import partial

import faiss
import numpy as np
import pandas as pd
import torch
from search import BATCHES, LARGE, K, filled_store, on_one_thread, options, seconds, write_table

from ramer.conditions import Condition, condition_codes
from ramer.data.worlds import WORLDS, sample
from ramer.methods.config import Config
from ramer.methods.encoders import hidden_features
from ramer.methods.pretraining import pretrain
from ramer.retrieval.approximate import ENGINES, Combination, recall_of
from ramer.retrieval.store import AUTO_ENGINE, unit

WORLD = WORLDS["mer2024-shaped"]
SIZES = (10_000, *LARGE[1:])
ALL_ENGINES_TO = 200_000  # clips; in a larger store only the engine that "auto" takes
TRAIN, DEV, ASKED, BLOCK = 5030, 600, 512, 5000
FASTER_TARGET, RECALL_TARGET = 50, 0.99
SEARCHES = ("a", "v", "l", "al")
SINGLES = 32  # different queries, one after the other


def clips_of(n, seed, prefix):
    return sample(WORLD, n, seed=seed, prefix=prefix)


def trained_stage1(epochs):
    train, dev = clips_of(TRAIN, 1, "train"), clips_of(DEV, 2, "dev")
    return pretrain(train, dev, Config(dataset=WORLD.name, epochs=epochs))


def encoded(stage1, clips):
    "{modality: (n, H)}, what stage 1 makes of clips."
    h = hidden_features(stage1.network, stage1.scaler(clips)).numpy()
    return dict(zip(clips.modalities, h.swapaxes(0, 1)))


def encoded_blocks(stage1, n):
    "{modality: (n, H)} of n clips, and the CPU seconds that encoding them took."
    parts, taken = [], 0.0
    for start in range(0, n, BLOCK):
        clips = clips_of(min(BLOCK, n - start), 1000 + start, f"{start:07d}-")
        begin = time.process_time()
        parts.append(encoded(stage1, clips))
        taken += time.process_time() - begin
    columns = {m: np.concatenate([part[m] for part in parts]) for m in parts[0]}
    return columns, taken


def filled(features, engine):
    "A store of all clips, and the CPU seconds until each modality has been searched once."
    begin = time.process_time()
    store = filled_store(features, engine)
    for m, x in features.items():
        store.search({m: x[:1]}, K)
    return store, time.process_time() - begin


def index_bytes(store):
    "Bytes a clip of all indexes, as FAISS writes them."
    engine = store.approximate()
    if engine is None:
        return 0.0
    written = [faiss.serialize_index(each.index).nbytes for each in engine.by_modalities.values()]
    return sum(written) / len(store)


def memory_of_all(store, asked):
    "Bytes of the rows and of an index for each combination of modalities, by those of the rows."
    for condition in condition_codes(len(store.modalities)).tolist():
        available = Condition.from_code(condition, store.modalities).available
        store.search({m: asked[m][:1] for m in available}, K)
    rows = sum(x.nbytes for x in store.features.values())
    return 1 + index_bytes(store) * len(store) / rows


def in_bfloat16(rows):
    return torch.from_numpy(rows).bfloat16().float().numpy()


def in_int8(rows):
    "Each row in whole numbers up to 127, times its own scale."
    scale = np.abs(rows).max(axis=1, keepdims=True) / 127
    return np.round(rows / scale) * scale


NARROW = {"bfloat16": in_bfloat16, "int8": in_int8}


def narrow_rows(features, asked):
    "How many clips may be among the K nearest where scores are made in narrower numbers."
    found = []
    for m in features:
        rows, queries = unit(features[m]), unit(asked[m])
        scores = queries @ rows.T
        last = np.partition(scores, -K, axis=1)[:, -K, None]
        for name, narrowed in NARROW.items():
            errors = [np.linalg.norm(narrowed(x) - x, axis=1).max() for x in (rows, queries)]
            candidates = (scores >= last - 2 * sum(errors)).sum(axis=1)  # by Cauchy and Schwarz
            row = {"scores in": name, "clips": len(rows), "searched by": m}
            found.append(row | {"candidates a query": candidates.mean()})
    return found


def seconds_each(store, queries, batch):
    "Seconds of one search of `batch` queries; single queries are many different ones in turn."
    if batch > 1:
        return seconds(partial(store.search, {m: x[:batch] for m, x in queries.items()}, K))
    singles = [{m: x[i : i + 1] for m, x in queries.items()} for i in range(SINGLES)]

    def one_by_one():
        for single in singles:
            store.search(single, K)

    return seconds(one_by_one) / SINGLES


def search_rows(name, store, exact, asked):
    "A row for each search and batch."
    rows = []
    for searched in SEARCHES:
        everything = {m: asked[m] for m in searched}
        found = recall_of(store.search(everything, K), exact.search(everything, K))
        reached = store.reached.get(Combination(tuple(searched), (), 8))
        for batch in BATCHES:
            slow = seconds_each(exact, everything, batch)
            fast = seconds_each(store, everything, batch)
            rows.append(
                {"engine": name, "clips": len(store), "searched by": searched, "batch": batch}
                | {"times faster": slow / fast, "microseconds a query": 1e6 * fast / batch}
                | {"recall": found, "effort": reached.effort if reached else 0}
            )
    return rows


def measured(stage1, n, engines):
    "All rows of one size, and a row for what each engine costs to build."
    features, forward = encoded_blocks(stage1, n)
    asked = encoded(stage1, clips_of(ASKED, 3, "asked"))
    exact, _ = filled(features, "exact")
    rows, builds, narrow = [], [], []
    if n == LARGE[1]:
        narrow = narrow_rows(features, asked)
    for name in engines if n <= ALL_ENGINES_TO else [AUTO_ENGINE]:
        store, taken = filled(features, name)
        rows += search_rows(name, store, exact, asked)
        cost = {"engine": name, "clips": n, "build by forward pass": taken / forward}
        cost["bytes a clip"] = index_bytes(store)  # of the four that were asked
        builds.append(cost | {"memory by rows": memory_of_all(store, asked)})
    return rows, builds, narrow


def with_growth(table):
    "The exponent with which the time of a query has grown since the smallest size."
    smallest = table.clips.min()
    keys = ["engine", "searched by", "batch"]
    first = table[table.clips == smallest].set_index(keys)["microseconds a query"]
    before = first.reindex(pd.MultiIndex.from_frame(table[keys])).to_numpy()
    sizes = np.log(table.clips / smallest)
    growth = np.log(table["microseconds a query"] / before) / sizes.where(sizes > 0)
    return table.assign(growth=growth)


def main(arguments=None):
    parser = options(__doc__, "", SIZES)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--engines", nargs="+", default=list(ENGINES))
    chosen = parser.parse_args(arguments)
    on_one_thread()
    stage1 = trained_stage1(chosen.epochs)
    rows, builds, narrow = [], [], []
    for n in chosen.clips:
        parts = measured(stage1, n, chosen.engines)
        for table, part in zip((rows, builds, narrow), parts):
            table += part
    table = with_growth(pd.DataFrame(rows))
    is_wanted = (table["times faster"] >= FASTER_TARGET) & (table.recall >= RECALL_TARGET)
    is_bound = (table.clips == LARGE[1]) & (table.engine == AUTO_ENGINE)
    table["target"] = np.where(is_bound, FASTER_TARGET, np.nan)
    table["holds"] = np.where(is_bound, np.where(is_wanted, "yes", "no"), "")
    write_table(table, chosen.out / "engines.csv")
    write_table(pd.DataFrame(builds), chosen.out / "engines-built.csv")
    if narrow:
        write_table(pd.DataFrame(narrow), chosen.out / "narrow.csv")


if __name__ == "__main__":
    main()
