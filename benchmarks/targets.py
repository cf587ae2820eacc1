"""Every target of the benchmarks beside what was measured, held or missed: the store's, a sweep's.

Reads results/bench/*.csv and writes results/bench/README.md. `make bench` measures all of it anew.
"""

import argparse
from pathlib import Path

import pandas as pd
from search import BENCH, MEMORY_TARGET, with_verdicts

from ramer.io import write_text
from ramer.report.tables import markdown
from ramer.retrieval.store import AUTO_ENGINE

RATIOS = ("search", "stages", "kept")  # files of ratios, each with its own target
WHOLE_WAY_TARGET = 0.5
INTRODUCTION = """# Benchmarks of the store

What the store costs, in ratios of two measurements of one run on one thread, of a processor that
[machine.json](machine.json) names. `make bench` measures all anew and writes this page. A miss
stays here as one.
"""
BESIDE = """## Beside other libraries

How many times as long each takes as an exact store for the same queries, in processor time, and the
share of the true five nearest that it finds ([beside.csv](beside.csv)): less than 1 is faster, more
slower. The columns name stored clips and queries at once. The rows are random, in 256
dimensions: the hardest there are for graphs of links, which find fewer the more rows there are; on
features of trained encoders an index of ours finds .995 ([engines.csv](engines.csv)). lancedb and
milvus-lite search without an index here, and find all. The released loop, rewritten from its
description, also fuses; so does what it is compared with.
"""
SWEEPS = """## Sweeps

What `ramer sweep` costs beside its trainings, how planning and reporting grow, and what faults
cost. A fault is survived if all that it did not hit is done and a line says what failed; lost is
what was done and is gone, made again, or not equal, byte for byte but for seconds, to what a sweep
leaves that nothing disturbed. sweep.csv is of the whole default grid. What a sweep adds there is
its start, some two seconds for each notebook, half of it judging, and tables at the end, which one
worker writes: a larger share of short trainings than of long ones. Stage 1 is kept and shared;
stages 2 are not, as the last row says what that would save.
"""
OF_SWEEPS = {  # file: the command that writes it
    "sweep": "python benchmarks/sweep.py",
    "reporting": "python benchmarks/reporting.py",
    "faults": "make faults",
}
ONNX = """## Answers by onnxruntime

How many times as many processor seconds torch takes as onnxruntime, both on one thread, for what
`ramer onnx` exports: more than 1 means that onnxruntime is faster. The median over the repeats, the
least and the most, and how far the outputs are apart at most. A whole answer is `predict_proba` of
the method and of its export: a method also sets the seeds of torch, and regressions are
scikit-learn's. [onnx.csv](onnx.csv), by `python benchmarks/onnx_speed.py`:
"""
REASONS = """## Why some may be missed

- One query of 5,030 clips takes FAISS a tenth of a millisecond. A search checks, scales, leaves
  out, settles ties and names what it found, and a fill gathers and sums it, in Python, which takes
  longer. Nothing of it grows with the store.
- For many queries of 5,030 clips the choice of the best takes a tenth to a seventh of the products'
  time. FAISS chooses while it multiplies.
- An exact search of 64 or 512 queries uses each row that it has read for all of them. An index
  reads other rows for each query. So its lead is smaller than for one query, and grows with the
  store ([engines.csv](engines.csv)).
- Scores in bfloat16, compared again exactly, were tried, too: shorter products, but more clips to
  be compared again ([narrow.csv](narrow.csv)) where features lie close together.
- At MER2024's size a larger database takes hardly longer than the small one now
  ([mer2024.csv](mer2024.csv), [before](mer2024-before.csv)). The rest of the seconds is not the
  store's: files of single clips are written, read and removed, five methods are trained, and the
  audit looks for more kinds of leaks than before.
"""


def bound_rows(folder, name):
    "The rows of a file of ratios that have a target."
    table = pd.read_csv(folder / f"{name}.csv")
    table = table[table.target.notna()]
    what = table.what + ", by " + table.of
    return table.assign(what=what, file=name).rename(columns={"ratio": "measured"})


def faster_rows(folder):
    "The rows of the approximate engines that have a target."
    table = pd.read_csv(folder / "engines.csv")
    table = table[table.target.notna()]
    recall = table.recall.map("{:.3f}".format).astype(str)
    searched = table.engine + " by " + table["searched by"]
    what = searched + ", times as fast as exact; recall " + recall
    return table.assign(what=what, file="engines", measured=table["times faster"], bound="at least")


def memory_rows(folder):
    "The memory of an engine with an index for each combination of modalities."
    table = pd.read_csv(folder / "engines-built.csv")
    table = table[table.engine == AUTO_ENGINE]
    what = "memory of " + table.engine + ", all seven combinations, by the rows"
    table = table.rename(columns={"memory by rows": "ratio"})
    table = table.assign(what=what, batch=pd.NA, bound="at most", target=MEMORY_TARGET)
    return with_verdicts(table).rename(columns={"ratio": "measured"}).assign(file="engines-built")


def whole_way_rows(folder):
    "Seconds and memory of the whole way at MER2024's size, by those of an earlier commit."
    now, before = [pd.read_csv(folder / f"{name}.csv") for name in ("mer2024", "mer2024-before")]
    peak = "peak memory so far, GB"
    ratios = {
        "seconds": now.seconds.sum() / before.seconds.sum(),
        "peak memory": now[peak].max() / before[peak].max(),
    }
    what = [f"MER2024's size, simulated, the whole way: {name}, by before" for name in ratios]
    table = pd.DataFrame({"what": what, "clips": now.clips.max(), "ratio": ratios.values()})
    table = table.assign(batch=pd.NA, bound="at most", target=WHOLE_WAY_TARGET)
    return with_verdicts(table).rename(columns={"ratio": "measured"}).assign(file="mer2024")


def target_rows(folder=BENCH):
    "A row for each target: what, clips, batch, target, measured, and whether it is held."
    parts = [bound_rows(folder, name) for name in RATIOS if (folder / f"{name}.csv").exists()]
    parts += [faster_rows(folder), memory_rows(folder), whole_way_rows(folder)]
    table = pd.concat(parts, ignore_index=True)
    shown = pd.DataFrame({"what": table.what, "clips": table.clips.map("{:,}".format)})
    shown["queries"] = table.batch.map(lambda n: "" if pd.isna(n) else str(int(n)))
    shown["target"] = table.bound + " " + table.target.map("{:g}".format)
    shown["measured"] = table.measured.map("{:.3g}".format)
    shown["verdict"] = table.holds.map({"yes": "held", "no": "**missed**"})
    shown["file"] = table.file.map("[{0}.csv]({0}.csv)".format)
    return shown


def beside_table(folder=BENCH):
    "A row for each library: times as long, by clips and queries, and recall by clips."
    table = pd.read_csv(folder / "beside.csv")
    cases = table.assign(case=table.clips.map("{:,}".format))
    wide = cases.pivot(index="what", columns=["case", "batch"], values="times as long")
    recalls = cases.groupby(["what", "case"]).recall.first().unstack()
    shown = pd.DataFrame(index=cases.what.unique())
    for case in cases.case.unique():
        for batch in cases.batch.unique():
            shown[f"{case}, {batch} queries"] = wide[case, batch].map("{:.3g}".format)
        found = recalls[case].map("{:.3f}".format, na_action="ignore")
        shown[f"{case}, recall@5"] = found.astype(object).fillna("")
    return shown


def sweeps_section(folder=BENCH):
    "The tables of sweeps that were measured, each with its command; nothing if none was."
    parts = [SWEEPS]
    for name, command in OF_SWEEPS.items():
        path = folder / f"{name}.csv"
        if path.exists():
            table = pd.read_csv(path, dtype=str).fillna("")
            shown = markdown(table.set_index(table.columns[0]))
            parts.append(f"[{name}.csv]({name}.csv), by `{command}`:\n\n{shown}\n")
    return "\n".join(parts) if len(parts) > 1 else ""


def onnx_section(folder=BENCH):
    "The table of answers by onnxruntime; nothing if none was measured."
    path = folder / "onnx.csv"
    if not path.exists():
        return ""
    table = pd.read_csv(path, dtype=str)
    return f"{ONNX}\n{markdown(table.set_index('what'))}\n"


def page(folder=BENCH):
    "The page of results/bench."
    rows = target_rows(folder)
    missed = int((rows.verdict != "held").sum())
    summary = f"{len(rows) - missed} of {len(rows)} targets are held, {missed} are missed."
    table = markdown(rows.set_index("what"))
    beside = f"{BESIDE}\n{markdown(beside_table(folder))}\n"
    parts = [INTRODUCTION, f"{summary}\n\n{table}\n", beside, REASONS, sweeps_section(folder)]
    parts.append(onnx_section(folder))
    return "\n".join(filter(None, parts))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=BENCH)
    folder = parser.parse_args(arguments).folder
    write_text(folder / "README.md", page(folder))
    print(page(folder))


if __name__ == "__main__":
    main()
