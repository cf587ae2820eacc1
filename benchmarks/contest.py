"""What `ramer-e2e` costs: its training beside zero-fill's, its answers beside RAMER's, in one run on as many labelled clips as MER2024 has.

Writes results/bench/contest.csv: a row per stage and method with medians, least and most over the repeats, of seconds and processor seconds, and of their ratio to the method it is held against, taken within a repeat, with the most that it may be.
The world is `mer2024-shaped` with 5,030 labelled clips, a fifth of them dev, and none unlabelled: MER2024's class counts and widths. Everything trains from nothing to its early end; a repeat is a seed, and methods take turns.
Seconds are of one machine: the ratios are what carries over. Run on a quiet machine: `OMP_NUM_THREADS=1 .venv/bin/python benchmarks/contest.py`.
"""
import argparse, sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))
from resources import Meter

from ramer.conditions import all_conditions, condition_mask
from ramer.controls import configure, make_method
from ramer.folders import write_text
from ramer.protocol import Protocol
from ramer.worlds import MER2024_COUNTS, WORLDS, world_dataset

SHAPED, METHODS, MEASURES = WORLDS["mer2024-shaped"], ("zero", "ramer", "ramer-e2e"), ("seconds", "cpu")
AGAINST = {"training": ("zero", 3.), "an answer": ("ramer", 1.5)}                            # stage: (held against, the most that the ratio of `ramer-e2e` may be)


def world_of(clips, widths):
    "The world with so many labelled clips and so many times the widths of `mer2024-shaped`."
    return replace(SHAPED, learnable=clips, unlabelled=0, dims={m: d * widths for m, d in SHAPED.dims.items()})


def contest(world, seed, rounds, **changes):
    "The rows of one repeat: every method trained, then asked in turns, `rounds` times under every incomplete condition."
    dataset, meter = world_dataset(world), Meter()
    protocol, test, fitted = Protocol(dataset, 0, seed), dataset.parts(0)[1], {}
    masks = [condition_mask(condition, len(test)) for condition, kept in all_conditions().items() if len(kept) < 3]
    for method in METHODS:
        fitted[method] = meter("training", partial(make_method(configure(world.name, method, seed=seed, **changes)).fit, protocol.train, protocol.dev))
        meter.rows[-1] |= {"method": method, "repeat": seed, "epochs": sum(len(h.loss) for h in fitted[method].histories.values())}
    for turn in range(rounds):
        for method, asked in fitted.items():
            meter("an answer", partial(answers, asked, test, masks), len(test) * len(masks))
            meter.rows[-1] |= {"method": method, "repeat": (seed, turn)}
    return meter.rows


def answers(method, clips, masks):
    "What a method says of some clips under each mask."
    return [method.predict_proba(clips, mask) for mask in masks]


def summary(rows, world):
    "A row per stage and method: median, least and most of each measure, and of its ratio to the method that the stage is held against, within a repeat."
    rows = pd.DataFrame(rows).assign(against=lambda r: r.stage.map(lambda stage: AGAINST[stage][0]))
    held = rows.merge(rows, left_on=["stage", "repeat", "against"], right_on=["stage", "repeat", "method"], suffixes=("", " of it"))
    for name in MEASURES: held[f"{name} ratio"] = held[name] / held[f"{name} of it"]
    grouped = held.groupby(["stage", "method", "against"], sort=False)
    table = grouped[[column for name in MEASURES for column in (name, f"{name} ratio")]].agg(["median", "min", "max"])
    table.columns = [name if kind == "median" else f"{name} {kind}" for name, kind in table.columns]
    table = table.assign(epochs=grouped.epochs.median()).reset_index()
    return table.assign(**{"at most": table.stage.map(lambda stage: AGAINST[stage][1]), "labelled": world.learnable, "widths": " ".join(map(str, world.dims.values()))})


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1]/"results"/"bench")
    parser.add_argument("--clips", type=int, default=sum(MER2024_COUNTS))
    parser.add_argument("--widths", type=int, default=8, help="times those of mer2024-shaped; 8: MER2024's own")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5, help="how often a repeat's methods are asked")
    parser.add_argument("--epochs", type=int, help="fewer than the default, for a trial")
    options = parser.parse_args(arguments)
    contest(world_of(100, 1), 0, 1, epochs=1)          # what libraries do once at their first use is nobody's cost
    world, changes = world_of(options.clips, options.widths), {"epochs": options.epochs} if options.epochs else {}
    table = summary([row for seed in range(options.repeats) for row in contest(world, seed, options.rounds, **changes)], world)
    write_text(options.out/"contest.csv", table.to_csv(index=False, float_format="%.6g"))


if __name__ == "__main__": main()
