"""What it costs to keep a store on disk: opening it, changing it, its bytes and its memory.

Writes results/bench/kept.csv: ratios of two times or of bytes measured in one run, on one thread.
Run on a quiet machine: `OMP_NUM_THREADS=1 .venv/bin/python benchmarks/kept.py`.
"""

import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd
from search import LARGE, WIDTH, filled_store, options, unit_rows, with_verdicts, write_table

from ramer.retrieval.durable import DurableStore, bytes_of, keep_store
from ramer.retrieval.store import load_store, save_store

CHANGES, BLOCK = 200, 64
DISK_TARGET = 1.3


def wall_seconds(once, calls):
    "The median wall seconds of a call: a disk that is waited for takes no processor time."
    taken = []
    for _ in range(calls):
        start = time.perf_counter()
        once()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


def changes_of(store, rng, name):
    "{what: a function that changes the store}; each call changes other clips."
    names = (f"{name}{i}" for i in count())
    stored = iter(store.ids.tolist())
    one = {m: unit_rows(rng, 1) for m in store.modalities}
    block = {m: unit_rows(rng, BLOCK) for m in store.modalities}
    return {
        "add a clip": lambda: store.add([next(names)], one),
        f"add {BLOCK} clips": lambda: store.add([next(names) for _ in range(BLOCK)], block),
        "correct a clip": lambda: store.update([next(stored)], one),
        "remove a clip": lambda: store.remove([next(stored)]),
    }


def change_rows(folder, memory, calls, rng):
    "Wall seconds of changes that are on the disk, by those in memory."
    rows = []
    with DurableStore(folder, writes=True) as kept:
        slow, fast = changes_of(kept, rng, "kept"), changes_of(memory, rng, "held")
        for what, once in slow.items():
            took, beside = wall_seconds(once, calls), wall_seconds(fast[what], calls)
            row = {"what": what, "ratio": took / beside, "of": "the same in memory"}
            rows.append(row | {"calls a second": 1 / took})
    return rows


OPENING = """
import json, sys
from search import peak_memory
from ramer.retrieval.durable import DurableStore
from ramer.retrieval.store import load_store

def mapped(folder):
    return load_store(folder, mapped=True)

how = {"open": DurableStore, "load": load_store, "map": mapped}
before = peak_memory()
store = how[sys.argv[1]](sys.argv[2])
print(json.dumps((peak_memory() - before) / sum(x.nbytes for x in store.features.values())))
"""


def memory_of(how, folder):
    "Bytes at the peak while a store is opened, by those of its rows, in a program of its own."
    command = [sys.executable, "-c", OPENING, how, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, cwd=Path(__file__).parent)
    return json.loads(done.stdout)


def opened(folder):
    DurableStore(folder).close()


def read_bytes(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.read_bytes()


def load_rows(store, folder):
    "Wall seconds and peak memory of loading a saved store, and of loading it mapped."
    save_store(store, folder)
    reading = wall_seconds(partial(read_bytes, folder), 5)
    rows = []
    for what, mapped in (("load", False), ("load, mapped", True)):
        took = wall_seconds(partial(load_store, folder, mapped=mapped), 5)
        rows.append({"what": what, "ratio": took / reading, "of": "reading its bytes"})
        held = memory_of("map" if mapped else "load", folder)
        rows.append({"what": f"peak memory of {what}", "ratio": held, "of": "the rows"})
    return rows


def measured(n, home, seed=0):
    "All rows of one size."
    rng = np.random.default_rng(seed)
    calls = min(CHANGES, n // 4)
    store = filled_store({m: unit_rows(rng, n) for m in "al"})
    folder = Path(home, f"kept-{n}")
    keep_store(store, folder)
    rows_bytes = sum(x.nbytes for x in store.features.values())
    reading = wall_seconds(partial(read_bytes, folder), 5)
    opening = wall_seconds(partial(opened, folder), 5)
    rows = [
        {"what": "bytes on disk", "ratio": bytes_of(folder) / rows_bytes, "of": "the rows"}
        | {"bound": "at most", "target": DISK_TARGET},
        {"what": "peak memory of opening", "ratio": memory_of("open", folder), "of": "the rows"},
        {"what": "open", "ratio": opening / reading, "of": "reading its bytes"},
        *load_rows(store, Path(home, f"saved-{n}")),
        *change_rows(folder, store, calls, rng),
    ]
    before = wall_seconds(partial(opened, folder), 3)
    with DurableStore(folder, writes=True) as kept:
        compacting = wall_seconds(kept.compact, 1)
    after = wall_seconds(partial(opened, folder), 3)
    changes = len(changes_of(store, rng, "")) * calls
    rows += [
        {
            "what": f"open after {changes} changes",
            "ratio": before / after,
            "of": "after compaction",
        },
        {"what": "compact", "ratio": compacting / after, "of": "opening"},
    ]
    return pd.DataFrame(rows).assign(clips=n, width=2 * WIDTH)


def main(arguments=None):
    asked = options(__doc__, "kept.csv", LARGE).parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=asked.out.parent) as home:
        table = pd.concat([measured(n, home) for n in asked.clips])
    table = with_verdicts(table.assign(batch=pd.NA))
    columns = ["what", "clips", "batch", "ratio", "of", "bound", "target", "holds"]
    table = table[[*columns, "calls a second"]]
    write_table(table, asked.out)


if __name__ == "__main__":
    main()
