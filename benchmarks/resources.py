"""What each stage costs as clips grow: seconds, processor seconds (a proxy of energy) and peak memory, each method and size in a process of its own.

Writes table.csv, figure.png and answer.md into results/studies/resources: medians over the repeats, the least and the most, and ratios to the smallest size, all of one run. The world is `prototypes`; the epochs are fixed, so that work depends on clips only.
Seconds and memory are of one machine: the ratios are what carries over. Run on a quiet machine: `OMP_NUM_THREADS=1 .venv/bin/python benchmarks/resources.py`.
"""
import argparse, json, resource, subprocess, sys, time
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from ramer.conditions import all_conditions, condition_mask
from ramer.controls import configure, make_method
from ramer.fills import FillMethod
from ramer.folders import write_text
from ramer.report import markdown
from ramer.training import pretrain
from ramer.worlds import WORLDS, sample

QUESTION = "What does each stage cost in seconds, energy and memory as the data grow?"
CHANGE = "More epochs, which cost every stage 1 and 3 alike; features as wide as MER2024's, whose first layers and whose copies in memory then cost most; a graphics processor."
SIZES, METHODS, ASKED = (500, 1000, 2000, 4000), ("zero", "ramer", "ramer-e2e"), 600
STEPS = {"train_network": "stage 3", "remember": "stage 2", "fit_retrieval": "keys and gate"}       # a method's own steps, timed inside fit
MEASURES = {"seconds": "seconds", "cpu": "processor seconds", "memory": "peak memory, MB"}


class Meter:
    "Rows of what steps cost: wall seconds, processor seconds of this process, and its peak memory up to the end of the step."
    def __init__(self): self.rows = []

    def __call__(self, stage, step, clips=1):
        "What step() returns; its cost is divided by `clips`."
        start, used = time.perf_counter(), time.process_time()
        out = step()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2 ** 20 if sys.platform == "darwin" else 2 ** 10)
        self.rows.append({"stage": stage, "seconds": (time.perf_counter() - start) / clips, "cpu": (time.process_time() - used) / clips, "memory": peak})
        return out


def timed(method, meter):
    "The method, whose steps inside fit are metered; a stage 2 that keeps nothing is none."
    for name, stage in STEPS.items():
        if getattr(type(method), name, FillMethod.remember) is not FillMethod.remember: setattr(method, name, partial(metered, meter, stage, getattr(method, name)))
    return method


def metered(meter, stage, step, *given):
    "What step(*given) returns, metered."
    return meter(stage, lambda: step(*given))


def measure(name, clips, epochs):
    "The rows of one method trained on this many clips, and asked under every incomplete condition."
    world, config, meter = WORLDS["prototypes"], configure("prototypes", name, epochs=epochs, patience=epochs), Meter()
    train, dev, test = meter("clips made", lambda: [sample(world, n, seed, prefix=str(seed)) for seed, n in enumerate((clips, clips // 4, ASKED))])
    method = make_method(config)
    method.stage1 = meter("stage 1", lambda: pretrain(train, dev, config))
    timed(method, meter).fit(train, dev)
    masks = [condition_mask(condition, ASKED) for condition, kept in all_conditions(test.modalities).items() if len(kept) < 3]
    meter("an answer", lambda: [method.predict_proba(test, mask) for mask in masks], ASKED * len(masks))
    return [row | {"method": name, "clips": clips} for row in meter.rows if row["stage"] != "clips made"]


def measured_warm(name, clips, epochs):
    "`measure` after a small trial of the same: what libraries do once at their first use is no stage's cost."
    measure(name, 100, 1)
    return measure(name, clips, epochs)


def in_a_process(name, clips, epochs):
    "`measure` in a fresh process, whose peak memory is its own."
    command = [sys.executable, "-W", "ignore", __file__, "--one", name, str(clips), "--epochs", str(epochs)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def summary(rows):
    "A row per method, stage and size: the median, least and most of each measure over the repeats, and the median's ratio to the smallest size's."
    keys = ["method", "stage", "clips"]
    table = pd.DataFrame(rows).groupby(keys, sort=False)[list(MEASURES)].agg(["median", "min", "max"])
    table.columns = [name if kind == "median" else f"{name} {kind}" for name, kind in table.columns]
    first = table.groupby(["method", "stage"], sort=False)[list(MEASURES)].transform("first")
    return table.join((table[list(MEASURES)] / first).add_prefix("times ")).reset_index()


def draw(table):
    "A panel per measure and method: medians by size, with the range over the repeats, a line per stage. Returns the figure."
    methods, colors = list(dict.fromkeys(table.method)), dict(zip(("stage 1", "stage 2", "stage 3", "keys and gate", "an answer"), plt.cm.tab10.colors))
    fig, axes = plt.subplots(len(MEASURES), len(methods), figsize=(3.2 * len(methods), 7.5), sharex=True, sharey="row", layout="constrained", squeeze=False)
    for line, (measure, label) in zip(axes, MEASURES.items()):
        for ax, method in zip(line, methods):
            for stage, some in table[table.method == method].groupby("stage", sort=False):
                ax.fill_between(some.clips, some[f"{measure} min"], some[f"{measure} max"], color=colors[stage], alpha=.2)
                ax.plot(some.clips, some[measure], color=colors[stage], marker="o", ms=3, label=stage)
            ax.set(xscale="log", yscale="linear" if measure == "memory" else "log"); ax.grid(alpha=.25); ax.set_xticks(sorted(set(table.clips)), sorted(set(table.clips)), fontsize=7); ax.minorticks_off()
        line[0].set_ylabel(label)
    for ax, method in zip(axes[0], methods): ax.set_title(method)
    for ax in axes[-1]: ax.legend(frameon=False, fontsize=7)
    fig.supxlabel("clips in the train part")
    return fig


def answer(table):
    "Sentences that answer QUESTION, computed from the table: what more clips cost each method, and what each method costs at the largest size, against the first."
    small, large = table.clips.min(), table.clips.max()
    at = table[table.clips == large].set_index(["method", "stage"])
    grown = [f"{method}: " + ", ".join(f"{stage} {row['times cpu']:.1f}" for stage, row in at.loc[method].iterrows()) for method in at.index.unique(0)]
    fitted, first = at.drop(index="an answer", level="stage").groupby("method", sort=False).cpu.sum(), at.index[0][0]
    peaks, asked = at.groupby("method", sort=False).memory.max(), at.cpu.xs("an answer", level="stage")
    costs = [f"*{method}* {fitted[method] / fitted[first]:.1f} times the processor seconds to fit, {asked[method] / asked[first]:.1f} times those of an answer and {peaks[method] / peaks[first]:.2f} times the memory" for method in fitted.index[1:]]
    return f"With {large / small:g} times the clips ({small} to {large}) processor seconds grow this many times ({'; '.join(grown)}); an answer is one clip's." + (f" At {large} clips and of *{first}*'s, {'; '.join(costs)}." if costs else "")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1]/"results"/"studies"/"resources")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "CLIPS"), help="measure this here and print it as JSON")
    options = parser.parse_args(arguments)
    if options.one: print(json.dumps(measured_warm(options.one[0], int(options.one[1]), options.epochs))); return
    table = summary([row for _ in range(options.repeats) for method in options.methods for clips in options.sizes for row in in_a_process(method, clips, options.epochs)])
    write_text(options.out/"table.csv", table.to_csv(index=False, float_format="%.6g"))
    draw(table).savefig(options.out/"figure.png", dpi=110, metadata={"Software": None})
    rows = table.set_index("method")[["stage", "clips", *MEASURES, *(f"times {name}" for name in MEASURES)]].round({f"times {name}": 1 for name in MEASURES})
    rows = rows.assign(**{name: rows[name].map("{:.3g}".format) for name in ("seconds", "cpu")}, memory=rows.memory.round().astype(int))
    write_text(options.out/"answer.md", "\n\n".join([f"# {QUESTION}", answer(table), markdown(rows), f"Medians of {options.repeats} repeats, each method and size in a process of its own, {options.epochs} epochs; peak memory in MB, of the whole process; *times* are ratios to the smallest size. "
                                                    "Processor seconds stand for energy, which nothing here measures.", "![what each stage costs](figure.png)", f"What would change it: {CHANGE}"]) + "\n")


if __name__ == "__main__": main()
