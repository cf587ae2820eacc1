"""How often a 95 % interval holds the truth, on simulated sets of the shapes that we judge.

Writes results/bench/coverage.csv, a row for each shape, size of the effects and metric: coverage
and mean width (points) of our interval (43_statistics) and, as `old`, of the one that it replaced:
a bootstrap of speakers and seeds, or of worlds and then of clips within them. The truth is the mean
over new speakers, new training folds and seeds, or over new draws. Under 3 minutes:
`OMP_NUM_THREADS=1 .venv/bin/python benchmarks/coverage.py`.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from ramer.evaluation.metrics import jackknife_weights, unit_numbers
from ramer.evaluation.statistics import jackknife_error
from ramer.io import write_text

RECALL = np.array([0.70, 0.60, 0.50])  # of each class, on average
FREQUENCY = np.array([0.5, 0.3, 0.2])
TRUTH = {"WA": float(RECALL @ FREQUENCY), "UA": float(RECALL.mean())}


class Shape(NamedTuple):
    "A data set: groups of each fold, seeds, the least and most clips of a group, whether draws."

    name: str
    groups: tuple[int, ...]
    seeds: int
    clips: tuple[int, int]
    draws: bool = False

    @property
    def fold_of_group(self):
        return np.repeat(np.arange(len(self.groups)), self.groups)


class Effects(NamedTuple):
    "Standard deviations in points: of a fold's model or a draw, of a fold's seed, of a group."

    model: float
    seed: float
    group: float


SETS = (
    Shape("5 folds, 24 actors", (5, 5, 5, 5, 4), 5, (40, 80)),
    Shape("5 folds, 24 actors", (5, 5, 5, 5, 4), 2, (40, 80)),
    Shape("5 folds, 90 videos", (18,) * 5, 5, (4, 25)),
    Shape("7 folds, 91 actors", (13,) * 7, 5, (70, 90)),
    Shape("8 folds, 64 speakers", (8,) * 8, 5, (6, 12)),
)
WORLDS = tuple(
    Shape(f"{draws} draws", (20,) * draws, seeds, (30, 30), draws=True)
    for draws in (5, 10)
    for seeds in (1, 5)
)
SPLITS = (
    Shape("one split, 200 groups", (200,), 5, (1, 20)),
    Shape("one split, 60 groups", (60,), 5, (5, 20)),
)
OF_SETS = [
    Effects(0, 0, 0),
    Effects(0, 0, 8),
    Effects(0, 2, 8),
    Effects(2, 2, 8),
    Effects(4, 2, 4),
    Effects(6, 0, 0),
]
OF_WORLDS = [Effects(0, 0, 0), Effects(1, 1, 0), Effects(3, 1, 0), Effects(3, 3, 0)]
OF_SPLITS = [
    Effects(0, 0, 0),
    Effects(0, 0, 8),
    Effects(0, 1, 8),
    Effects(0, 3, 8),
    Effects(0, 3, 0),
]
GRID = [
    *((shape, effects) for shape in SETS for effects in OF_SETS),
    *((shape, effects) for shape in WORLDS for effects in OF_WORLDS),
    *((shape, effects) for shape in SPLITS for effects in OF_SPLITS),
]


def group_sizes(shape, rng):
    "Clips of each group and class: (G, 3) int."
    low, high = shape.clips
    clips = rng.integers(low, high + 1, sum(shape.groups))
    return rng.multinomial(clips, FREQUENCY)


def answers(shape, effects, sizes, repetitions, rng):
    "Right answers of each repetition, seed, group and class: (R, S, G, 3) int."
    fold = shape.fold_of_group
    folds, groups, seeds = len(shape.groups), len(fold), shape.seeds
    of_model = rng.normal(0, effects.model / 100, (repetitions, 1, folds, 1))
    of_seed = rng.normal(0, effects.seed / 100, (repetitions, seeds, folds, 1))
    of_group = rng.normal(0, effects.group / 100, (repetitions, 1, groups, 1))
    chance = RECALL + (of_model + of_seed)[:, :, fold] + of_group
    return rng.binomial(sizes, np.clip(chance, 0.01, 0.99))


def weighted_scores(right, sizes, groups, seeds):
    "{metric: scores} of weighted groups and seeds: (replicates, R) each."
    counts = right.transpose(2, 0, 1, 3)  # groups first
    correct = groups @ counts.reshape(len(sizes), -1).astype(float)
    correct = correct.reshape(-1, *counts.shape[1:])  # (replicates, R, S, 3)
    clips = (groups @ sizes)[:, None, None]
    found = {"WA": correct.sum(-1) / clips.sum(-1), "UA": (correct / clips).mean(-1)}
    return {name: (scores * seeds[:, None]).sum(-1) for name, scores in found.items()}


def two_stage_weights(shape, replicates, rng):
    "Bootstrap weights of groups and seeds as they were drawn before."
    folds, groups = len(shape.groups), sum(shape.groups)
    seeds = rng.multinomial(shape.seeds, np.full(shape.seeds, 1 / shape.seeds), replicates)
    if not shape.draws:
        return rng.multinomial(groups, np.full(groups, 1 / groups), replicates), seeds / shape.seeds
    times = rng.multinomial(folds, np.full(folds, 1 / folds), replicates)
    parts = [
        rng.multinomial(size * time, np.full(size, 1 / size))
        for size, time in zip(shape.groups, times.T)
    ]
    return np.concatenate(parts, 1), seeds / shape.seeds


def ours(shape, right, sizes):
    "{metric: (error, degrees of freedom)} by the jackknife, (R,) each."
    groups, seeds = jackknife_weights(shape.fold_of_group, shape.seeds)
    units = unit_numbers(shape.fold_of_group).max() + 1
    scores = weighted_scores(right, sizes, groups, seeds)
    return {name: jackknife_error(without, units) for name, without in scores.items()}


def replaced(shape, right, sizes, rng):
    "{metric: (error, degrees of freedom)} as they were before."
    units = len(shape.groups) if shape.draws else sum(shape.groups)
    groups, seeds = two_stage_weights(shape, 300, rng)
    scores = weighted_scores(right, sizes, groups, seeds)
    larger = np.sqrt(units / (units - 1))
    return {name: (drawn.std(0, ddof=1) * larger, units - 1) for name, drawn in scores.items()}


def held(point, truth, error, df):
    "Whether the interval of each repetition holds the truth, and its width in points."
    half = stats.t.ppf(0.975, df) * error
    return np.abs(point - truth) <= half, 200 * half


def coverage(shape, effects, repetitions, rng, chunk=250):
    "A row for each metric: coverage and mean width of both intervals."
    found = {metric: [] for metric in TRUTH}
    for _ in range(0, repetitions, chunk):
        sizes = group_sizes(shape, rng)
        right = answers(shape, effects, sizes, chunk, rng)
        every = np.ones((1, len(sizes))), np.full((1, shape.seeds), 1 / shape.seeds)
        points = weighted_scores(right, sizes, *every)
        new, old = ours(shape, right, sizes), replaced(shape, right, sizes, rng)
        for metric, truth in TRUTH.items():
            point = points[metric][0]
            columns = *held(point, truth, *new[metric]), *held(point, truth, *old[metric])
            found[metric].append(np.stack(columns))
    names = ("coverage", "width", "old coverage", "old width")
    facts = {
        "shape": shape.name,
        "folds": len(shape.groups),
        "groups": sum(shape.groups),
        "seeds": shape.seeds,
        **{f"sd of {name}": value for name, value in effects._asdict().items()},
    }
    rows = []
    for metric, parts in found.items():
        means = np.concatenate(parts, 1).mean(1)
        rows.append(facts | {"metric": metric} | dict(zip(names, means)))
    return rows


def main(out=Path(__file__).parents[1] / "results" / "bench" / "coverage.csv", repetitions=4000):
    rows = []
    for cell, (shape, effects) in enumerate(GRID):
        rows += coverage(shape, effects, int(repetitions), np.random.default_rng(cell))
    write_text(out, pd.DataFrame(rows).to_csv(index=False, float_format="%.3f"))


if __name__ == "__main__":
    main(*sys.argv[1:])
