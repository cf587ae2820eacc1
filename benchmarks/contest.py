"""What our methods cost: training beside zero-fill, answers beside RAMER, in one run.

Writes results/bench/contest.csv: a row per stage and method with medians, least and most over the
repeats, of seconds and processor seconds, and of their ratio to the method it is held against,
taken within a repeat, with the most that it may be.
The world is `mer2024-shaped` with 5,030 labelled clips, a fifth of them dev, and none unlabelled:
MER2024's class counts and widths. Everything trains from nothing to its early end; a repeat is a
seed, and methods take turns.
Seconds are of one machine: the ratios are what carries over. Run on a quiet machine:
`OMP_NUM_THREADS=1 .venv/bin/python benchmarks/contest.py`.
"""

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from resources import Meter, incomplete_masks

from ramer.data.worlds import MER2024_COUNTS, WORLDS, world_dataset
from ramer.evaluation.protocol import Protocol
from ramer.io import write_text
from ramer.methods.registry import configure, make_method

SHAPED = WORLDS["mer2024-shaped"]
METHODS = ("zero", "ramer", "ramer-gated", "ramer-pooled")
MEASURES = ("seconds", "cpu")
# stage: (held against, the most that the ratio of ours may be)
AGAINST = {"training": ("zero", 3.0), "an answer": ("ramer", 1.5)}


def world_of(clips, widths):
    "The world with so many labelled clips and so many times the widths of `mer2024-shaped`."
    dims = {m: d * widths for m, d in SHAPED.dims.items()}
    return replace(SHAPED, learnable=clips, unlabelled=0, dims=dims)


def contest(world, seed, rounds, **changes):
    "The rows of one repeat: methods are trained, then answer in turns under incomplete conditions."
    dataset = world_dataset(world)
    protocol = Protocol(dataset, 0, seed)
    _, test = dataset.parts(0)
    masks = incomplete_masks(test)
    meter = Meter()
    fitted = {}
    for name in METHODS:
        method = make_method(configure(world.name, name, seed=seed, **changes))
        fitted[name] = meter("training", partial(method.fit, protocol.train, protocol.dev))
        epochs = sum(len(history.loss) for history in fitted[name].histories.values())
        meter.rows[-1] |= {"method": name, "repeat": seed, "epochs": epochs}
    for turn in range(rounds):
        for name, method in fitted.items():
            meter("an answer", partial(answers, method, test, masks), len(test) * len(masks))
            meter.rows[-1] |= {"method": name, "repeat": (seed, turn)}
    return meter.rows


def answers(method, clips, masks):
    "A method's answers for some clips under each mask."
    return [method.predict_proba(clips, mask) for mask in masks]


def with_ratios(rows):
    "The rows as a table, with each measure's ratio to that of the method it is held against."
    table = pd.DataFrame(rows)
    table["against"] = [AGAINST[stage][0] for stage in table.stage]
    held = table.merge(
        table,
        left_on=["stage", "repeat", "against"],
        right_on=["stage", "repeat", "method"],
        suffixes=("", " of it"),
    )
    for name in MEASURES:
        held[f"{name} ratio"] = held[name] / held[f"{name} of it"]
    return held


def summary(rows, world):
    "A row per stage and method: median, least and most of each measure and of its ratio."
    grouped = with_ratios(rows).groupby(["stage", "method", "against"], sort=False)
    columns = [column for name in MEASURES for column in (name, f"{name} ratio")]
    table = grouped[columns].agg(["median", "min", "max"])
    table.columns = [name if kind == "median" else f"{name} {kind}" for name, kind in table.columns]
    table["epochs"] = grouped.epochs.median()
    table = table.reset_index()
    table["at most"] = [AGAINST[stage][1] for stage in table.stage]
    table["labelled"] = world.learnable
    table["widths"] = " ".join(map(str, world.dims.values()))
    return table


def options_of(arguments):
    "The command line's options."
    results = Path(__file__).parents[1] / "results" / "bench"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=results)
    parser.add_argument("--clips", type=int, default=sum(MER2024_COUNTS))
    widths = "times those of mer2024-shaped; 8: MER2024's own"
    parser.add_argument("--widths", type=int, default=8, help=widths)
    parser.add_argument("--repeats", type=int, default=3)
    rounds = "how often a repeat's methods answer"
    parser.add_argument("--rounds", type=int, default=5, help=rounds)
    parser.add_argument("--epochs", type=int, help="fewer than the default, for a trial")
    return parser.parse_args(arguments)


def main(arguments=None):
    options = options_of(arguments)
    # what libraries do once at their first use is no method's cost
    contest(world_of(100, 1), 0, 1, epochs=1)
    world = world_of(options.clips, options.widths)
    changes = {"epochs": options.epochs} if options.epochs else {}
    rows = []
    for seed in range(options.repeats):
        rows += contest(world, seed, options.rounds, **changes)
    table = summary(rows, world)
    write_text(options.out / "contest.csv", table.to_csv(index=False, float_format="%.6g"))


if __name__ == "__main__":
    main()
