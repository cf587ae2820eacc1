"""What retrieval costs in each stage, beside the same stage without it or the searches it needs.

Writes results/bench/stages.csv: ratios of two times measured in one run, on one thread, with the
target of each. The clips are simulated (world mer2024-shaped). Run on a quiet machine:
`OMP_NUM_THREADS=1 .venv/bin/python benchmarks/stages.py`.
"""

import statistics
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import torch
from engines import TRAIN, WORLD, clips_of, encoded, encoded_blocks, trained_stage1
from search import (
    BATCHES,
    filled_store,
    on_one_thread,
    options,
    raw_seconds,
    seconds,
    with_verdicts,
    write_table,
)

from ramer.conditions import Condition, condition_codes
from ramer.data.worlds import world_dataset
from ramer.evaluation.protocol import Protocol
from ramer.methods.registry import configure, make_method

FILL_TARGET, BUILD_TARGET, STEP_TARGET = 1.25, 0.8, 1.1
FILLS = 5  # of a store with the same clips
WHOLE = 7  # the code of the complete clip


def cpu_seconds(once):
    start = time.process_time()
    once()
    return time.process_time() - start


def ramer_with(stage1, store):
    "A RAMER with this stage 1 and this store; its stage 3 is not needed to fill."
    method = make_method(configure(WORLD.name, "ramer"))
    method.stage1, method.store = stage1, store
    return method


def fill_rows(method, queries):
    "Retrieval and fusion under all six incomplete conditions, by the raw searches they need."
    modalities = method.store.modalities
    codes = [code for code in condition_codes(len(modalities)).tolist() if code != WHOLE]
    columns = {m: queries[:, i].numpy() for i, m in enumerate(modalities)}
    rows = []
    for batch in BATCHES:
        raw = 0.0
        for code in codes:
            asked = Condition.from_code(code, modalities).available
            stored = np.concatenate([method.store.features[m] for m in asked], axis=1)
            wanted = np.concatenate([columns[m][:batch] for m in asked], axis=1)
            raw += raw_seconds(stored, np.ascontiguousarray(wanted))

        def fill_all(some=queries[:batch]):
            for code in codes:
                method.fill(some, code)

        rows.append(
            {"what": "retrieval and fusion, six conditions", "clips": len(method.store)}
            | {"batch": batch, "ratio": seconds(fill_all) / raw, "of": "the raw searches"}
            | {"bound": "at most", "target": FILL_TARGET}
        )
    return rows


def sized_rows(stage1, n):
    "What stage 2 and a fill cost with a store of n clips."
    features, forward = encoded_blocks(stage1, n)
    stored = [cpu_seconds(partial(filled_store, features)) for _ in range(FILLS)]
    alike = {"clips": n, "of": "the forward pass"}
    usual, first = [forward / (forward + took) for took in (statistics.median(stored), stored[0])]
    built = {"what": "stage 2, clips a second", "ratio": usual} | alike
    built |= {"bound": "at least", "target": BUILD_TARGET}
    new = {"what": "stage 2, in memory that is new to the program", "ratio": first} | alike
    asked = encoded(stage1, clips_of(max(BATCHES), 3, "asked"))
    queries = torch.from_numpy(np.stack([asked[m] for m in features], 1))
    return [built, new, *fill_rows(ramer_with(stage1, filled_store(features)), queries)]


def trained(name, protocol, stage1, epochs, seed, **changes):
    "(CPU seconds of stages 2 and 3, seconds of stage 3's steps) of one training."
    config = configure(WORLD.name, name, seed=seed, epochs=epochs, patience=10 * epochs, **changes)
    method = make_method(config)
    method.stage1 = stage1
    whole = cpu_seconds(partial(method.fit, protocol.train, protocol.dev))
    return whole, method.history.seconds


def training_rows(unlabelled, epochs, repeats):
    "RAMER and ramer-gated beside zero-fill, trained for as many epochs on the same stage 1."
    world = replace(WORLD, learnable=TRAIN, unlabelled=unlabelled)
    protocol = Protocol(world_dataset(world), 0, 0)
    first = make_method(configure(WORLD.name, "zero", epochs=epochs))
    stage1 = first.fit(protocol.train, protocol.dev).stage1
    arms = {"RAMER": ("ramer", {}), "ramer-gated": ("ramer-gated", {})}
    if unlabelled:
        arms["RAMER with an index"] = ("ramer", {"engine": "auto"})
    database = {"database": "turbo"} if unlabelled else {}
    steps, stages = [], []
    for seed in range(repeats):
        zero = trained("zero", protocol, stage1, epochs, seed)
        took = {
            arm: trained(name, protocol, stage1, epochs, seed, **database, **changes)
            for arm, (name, changes) in arms.items()
        }
        steps.append(took["RAMER"][1] / zero[1])
        stages.append([whole / zero[0] for whole, _ in took.values()])
    alike = {"clips": len(protocol.train), "of": "zero-fill"}
    rows = [{"what": "stage 3, a step of RAMER", "ratio": statistics.median(steps)} | alike]
    if not unlabelled:
        rows[0] |= {"bound": "at most", "target": STEP_TARGET}
    for arm, ratios in zip(arms, zip(*stages)):
        rows.append({"what": f"stages 2 and 3, {arm}", "ratio": statistics.median(ratios)} | alike)
    return rows


def main(arguments=None):
    parser = options(__doc__, "stages.csv")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5)
    chosen = parser.parse_args(arguments)
    on_one_thread()
    stage1 = trained_stage1(chosen.epochs)
    rows = []
    for n in chosen.clips:
        rows += sized_rows(stage1, n)
    rows += training_rows(0, chosen.epochs, chosen.repeats)
    turbo = max(chosen.clips) - TRAIN
    if turbo > 0:
        rows += training_rows(turbo, chosen.epochs, 1)
    table = with_verdicts(pd.DataFrame(rows))
    write_table(table, chosen.out)


if __name__ == "__main__":
    main()
