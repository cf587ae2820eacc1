"""Whether two machines give the same: runs of one folder against the same runs of another.

Writes results/bench/machines.csv: for each data set, method and condition whether every confusion
matrix is the same, or the WA within the 95 % interval of the other machine's, and with which
versions each was made. Both folders are what `ramer sweep --runs` writes, brought together here:
`.venv/bin/python benchmarks/machines.py HERE THERE`.
"""

import argparse
import tempfile
from pathlib import Path

from search import BENCH, file_path, write_table

from ramer.report.comparison import compare, comparison_text
from ramer.runs.folders import read_json
from ramer.runs.results import collect, finished_runs, read_results

NAMED = ("python", "torch", "numpy", "scikit-learn", "faiss-cpu")


def versions_of(runs):
    "The versions that the runs of a folder were made with, as text; one if all are the same."
    remedy = "make the run anew"
    known = [read_json(path / "config.json", remedy)["versions"] for path in finished_runs(runs)]
    texts = {", ".join(f"{name} {each[name]}" for name in NAMED) for each in known}
    return "; ".join(sorted(texts))


def results_of(runs):
    "The lines of a runs folder, as `read_results` gives them."
    with tempfile.TemporaryDirectory() as home:
        collect(runs, home)
        return read_results(home)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("here", type=Path, help="a runs folder")
    parser.add_argument("there", type=Path, help="a runs folder of another machine")
    parser.add_argument("--out", type=file_path, default=BENCH / "machines.csv")
    given = parser.parse_args()
    table = compare(results_of(given.here), results_of(given.there))
    table["here"], table["there"] = versions_of(given.here), versions_of(given.there)
    write_table(table, given.out)
    print(comparison_text(table))


if __name__ == "__main__":
    main()
