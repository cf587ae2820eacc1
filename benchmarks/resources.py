"""What each stage costs as clips grow: seconds, processor seconds (for energy) and peak memory.

Writes table.csv, figure.png and answer.md into results/studies/resources: medians over the repeats,
the least and the most, and ratios to the smallest size, all of one run, each method and size in a
process of its own. The world is `prototypes`; the epochs are fixed, so that work depends on clips.
Seconds and memory are of one machine: the ratios are what carries over. Run on a quiet machine:
`OMP_NUM_THREADS=1 .venv/bin/python benchmarks/resources.py`.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from search import peak_memory

from ramer.conditions import all_conditions, condition_mask
from ramer.data.worlds import WORLDS, sample
from ramer.io import write_text
from ramer.methods.fills import FillMethod
from ramer.methods.pretraining import pretrain
from ramer.methods.registry import configure, make_method
from ramer.report.tables import markdown

QUESTION = "What does each stage cost in seconds, energy and memory as the data grow?"
CHANGE = (
    "More epochs, which cost every stage 1 and 3 alike; features as wide as MER2024's, whose first "
    "layers and whose copies in memory then cost most; a graphics processor."
)
SIZES = (500, 1000, 2000, 4000)
METHODS = ("zero", "ramer", "ramer-gated")
N_TEST = 600
STEPS = {  # a method's own steps, timed inside fit
    "train_network": "stage 3",
    "remember": "stage 2",
    "fit_retrieval": "keys and gate",
}
STAGES = ("stage 1", "stage 2", "stage 3", "keys and gate", "an answer")
MEASURES = {"seconds": "seconds", "cpu": "processor seconds", "memory": "peak memory, MB"}


class Meter:
    "Rows of what steps cost: wall and processor seconds, and peak memory up to the step's end."

    def __init__(self):
        self.rows = []

    def __call__(self, stage, step, clips=1):
        "What step() returns; its cost is divided by `clips`."
        start, used = time.perf_counter(), time.process_time()
        out = step()
        memory = peak_memory() / 2**20
        seconds = (time.perf_counter() - start) / clips
        cpu = (time.process_time() - used) / clips
        self.rows.append({"stage": stage, "seconds": seconds, "cpu": cpu, "memory": memory})
        return out


def timed(method, meter):
    "The method, whose steps inside fit are metered; a stage 2 that keeps nothing is none."
    for name, stage in STEPS.items():
        if getattr(type(method), name, FillMethod.remember) is not FillMethod.remember:
            setattr(method, name, partial(metered, meter, stage, getattr(method, name)))
    return method


def metered(meter, stage, step, *given):
    "What step(*given) returns, metered."
    return meter(stage, lambda: step(*given))


def incomplete_masks(clips):
    "The constant mask of every condition that lacks a modality."
    conditions = all_conditions(clips.modalities).items()
    incomplete = [name for name, kept in conditions if len(kept) < len(clips.modalities)]
    return [condition_mask(name, len(clips), clips.modalities) for name in incomplete]


def measure(name, clips, epochs):
    "The rows of one method trained on this many clips, answering under incomplete conditions."
    config = configure("prototypes", name, epochs=epochs, patience=epochs)
    sizes = enumerate((clips, clips // 4, N_TEST))
    world = WORLDS["prototypes"]
    train, dev, test = [sample(world, n, seed, prefix=str(seed)) for seed, n in sizes]
    meter = Meter()
    method = make_method(config)
    method.stage1 = meter("stage 1", lambda: pretrain(train, dev, config))
    timed(method, meter).fit(train, dev)
    masks = incomplete_masks(test)
    n_answers = N_TEST * len(masks)
    meter("an answer", lambda: [method.predict_proba(test, mask) for mask in masks], n_answers)
    return [row | {"method": name, "clips": clips} for row in meter.rows]


def measured_warm(name, clips, epochs):
    "`measure` after a small trial: what libraries do once at their first use is no stage's cost."
    measure(name, 100, 1)
    return measure(name, clips, epochs)


def each_in_a_process(asked):
    """The rows of `measured_warm` for each (name, clips, epochs), in a process of its own.

    Each is a copy of one process that has imported all and measured nothing, so that its peak
    memory is its own.
    """
    copies = get_context("forkserver")
    copies.set_forkserver_preload(["matplotlib.pyplot", "ramer.methods.registry"])
    with ProcessPoolExecutor(1, copies, max_tasks_per_child=1) as pool:
        for rows in pool.map(measured_warm, *zip(*asked)):
            yield from rows


def summary(rows):
    "A row per method, stage and size: median, least and most, and the ratio to the smallest size."
    measures = list(MEASURES)
    grouped = pd.DataFrame(rows).groupby(["method", "stage", "clips"], sort=False)
    table = grouped[measures].agg(["median", "min", "max"])
    table.columns = [name if kind == "median" else f"{name} {kind}" for name, kind in table.columns]
    first = table.groupby(["method", "stage"], sort=False)[measures].transform("first")
    times = (table[measures] / first).add_prefix("times ")
    return table.join(times).reset_index()


def draw_panel(ax, rows, measure):
    "A line per stage: medians by size, with their range."
    colors = dict(zip(STAGES, plt.cm.tab10.colors))
    for stage, part in rows.groupby("stage", sort=False):
        least, most = part[f"{measure} min"], part[f"{measure} max"]
        ax.fill_between(part.clips, least, most, color=colors[stage], alpha=0.2)
        ax.plot(part.clips, part[measure], color=colors[stage], marker="o", ms=3, label=stage)
    ax.set(xscale="log", yscale="linear" if measure == "memory" else "log")
    ax.grid(alpha=0.25)


def draw(table):
    "A panel per measure and method: medians by size, with their range, a line per stage."
    methods = list(dict.fromkeys(table.method))
    sizes = sorted(set(table.clips))
    fig, axes = plt.subplots(
        len(MEASURES),
        len(methods),
        figsize=(3.2 * len(methods), 7.5),
        sharex=True,
        sharey="row",
        layout="constrained",
        squeeze=False,
    )
    for line, (measure, label) in zip(axes, MEASURES.items()):
        for ax, method in zip(line, methods):
            draw_panel(ax, table[table.method == method], measure)
            ax.set_xticks(sizes, sizes, fontsize=8)
            ax.minorticks_off()
        line[0].set_ylabel(label)
    for ax, method in zip(axes[0], methods):
        ax.set_title(method)
    for ax in axes[-1]:
        ax.legend(frameon=False, fontsize=8)
    fig.supxlabel("clips in the train part")
    return fig


def growth(method, stages):
    "How many times the processor seconds of each of a method's stages have grown."
    grown = [f"{stage} {times:.1f}" for stage, times in stages["times cpu"].items()]
    return f"{method}: {', '.join(grown)}"


def costs_beside(at):
    "What each method but the first costs, in times of the first one's cost."
    by_method = at.groupby("method", sort=False)
    fit_cpu = at.drop(index="an answer", level="stage").groupby("method", sort=False).cpu.sum()
    answer_cpu = at.cpu.xs("an answer", level="stage")
    peaks = by_method.memory.max()
    first = at.index[0][0]
    for method in fit_cpu.index[1:]:
        fit_ratio = fit_cpu[method] / fit_cpu[first]
        answer_ratio = answer_cpu[method] / answer_cpu[first]
        memory_ratio = peaks[method] / peaks[first]
        yield (
            f"*{method}* {fit_ratio:.1f} times the processor seconds to fit, "
            f"{answer_ratio:.1f} times those of an answer and {memory_ratio:.2f} times the memory"
        )


def answer(table):
    "Sentences that answer QUESTION: what more clips cost, and each method against the first."
    small, large = table.clips.min(), table.clips.max()
    at = table[table.clips == large].set_index(["method", "stage"])
    grown = "; ".join(growth(method, at.loc[method]) for method in at.index.unique(0))
    more = large / small
    sentences = (
        f"With {more:g} times the clips ({small} to {large}) processor seconds grow this "
        f"many times ({grown}); an answer is one clip's."
    )
    costs = "; ".join(costs_beside(at))
    if not costs:
        return sentences
    return f"{sentences} At {large} clips and of *{at.index[0][0]}*'s, {costs}."


def page(table, repeats, epochs):
    "The study's answer as Markdown: the question, sentences, the table and the figure."
    measures = list(MEASURES)
    times = [f"times {name}" for name in measures]
    rows = table.set_index("method")[["stage", "clips", *measures, *times]]
    rows = rows.round(dict.fromkeys(times, 1))
    for name in ("seconds", "cpu"):
        rows[name] = rows[name].map("{:.3g}".format)
    rows["memory"] = rows.memory.round().astype(int)
    parts = [
        f"# {QUESTION}",
        answer(table),
        markdown(rows),
        f"Medians of {repeats} repeats, each method and size in a process of its own, "
        f"{epochs} epochs; peak memory in MB, of the whole process; *times* are "
        "ratios to the smallest size. "
        "Processor seconds stand for energy, which nothing here measures.",
        "![what each stage costs](figure.png)",
        f"What would change it: {CHANGE}",
    ]
    return "\n\n".join(parts) + "\n"


def options_of(arguments):
    "The command line's options."
    results = Path(__file__).parents[1] / "results" / "studies" / "resources"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=results)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    return parser.parse_args(arguments)


def main(arguments=None):
    options = options_of(arguments)
    one_round = list(product(options.methods, options.sizes, [options.epochs]))
    table = summary(each_in_a_process(one_round * options.repeats))
    write_text(options.out / "table.csv", table.to_csv(index=False, float_format="%.6g"))
    draw(table).savefig(options.out / "figure.png", dpi=110, metadata={"Software": None})
    write_text(options.out / "answer.md", page(table, options.repeats, options.epochs))


if __name__ == "__main__":
    main()
