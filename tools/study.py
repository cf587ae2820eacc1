"""Run studies with papermill: a notebook per data set and fold fills in the runs, a last one draws and answers; then the page of all studies.

A killed study goes on where it was when the same command is given again.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from sweep import ROOT, Job, finish, folders, options_of_all

DATASETS = ("mosi", "ravdess", "ravdess-goemotions", "ravdess-frames", "gaussian", "prototypes")
SIZED = dict.fromkeys(("database", "growth", "unseen"), ("mer2024-shaped",))     # studies that are run there, too: size is the question, or every world is
RESOURCES = "resources"                              # a benchmark, and no study of paired arms


def study_jobs(name, datasets, folds, seeds, runs, results, changes):
    "(a job for each data set and fold, the job that draws and answers) of a study."
    common, out = {"seeds": seeds, "changes": changes, "runs": str(runs)}, runs/"notebooks"/"studies"/name
    parts = [Job(f"studies/{name}", out/f"{dataset}-fold{fold}.ipynb", common | {"datasets": [dataset], "folds": [fold], "results": str(out/"parts"/f"{dataset}-fold{fold}")}) for dataset in datasets for fold in folds]
    return parts, Job(f"studies/{name}", out/"study.ipynb", common | {"datasets": datasets, "folds": folds, "results": str(results)})


def resources_jobs(runs, results):
    "As `study_jobs`: no parts, and the job that measures alone, since other work would be timed with it."
    return [], Job(f"studies/{RESOURCES}", runs/"notebooks"/"studies"/RESOURCES/"study.ipynb", {"results": str(results)})


def publish_readme(results):
    "Write the ledger anew, since claims rest on studies, and the README's blocks on both."
    from ramer.claims import results_block, write_claims
    from ramer.folders import write_text
    from ramer.report import read_results, replace_block
    from ramer.studies import studies_block
    claims, text = write_claims(read_results(results), results), (ROOT/"README.md").read_text()
    for block in (results_block(results, claims), studies_block(results)): text = replace_block(text, block)
    write_text(ROOT/"README.md", text)


def main(arguments=None):
    from ramer.conditions import choose
    from ramer.protocol import available_datasets, load_dataset
    from ramer.gains import STUDIES
    from ramer.studies import write_page
    parser, known = options_of_all(__doc__), [*STUDIES, RESOURCES]
    parser.add_argument("names", nargs="*", help=f"which studies; default all: {', '.join(known)}")
    parser.add_argument("--datasets", nargs="+", help="only these; default: all that can be loaded")
    parser.add_argument("--folds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    options, here = parser.parse_args(arguments), available_datasets()
    try:
        names = [choose("study", name, known) for name in options.names or known]
        for name in options.datasets or (): choose("data set", name, here)
    except ValueError as error: parser.error(str(error))
    runs, results = folders(options)
    for name in names:
        study, wanted = STUDIES.get(name), options.datasets or (*DATASETS, *SIZED.get(name, ()))
        asked = [d for d in wanted if study and d in here and study.suits(load_dataset(d))]
        if study and not asked: print(f"{name}: none of {', '.join(wanted)} has what it asks about, so nothing was run"); continue
        parts, last = study_jobs(name, asked, options.folds, options.seeds, runs, results, options.changes) if study else resources_jobs(runs, results)
        last.out.unlink(missing_ok=True)
        finish(parts, options.workers, name, last.out.parent)
        finish([last], 1, f"{name}, answer", last.out.parent)
        print((results/"studies"/name/"answer.md").read_text())
    write_page(results)
    if options.publish: publish_readme(results)


if __name__ == "__main__": main()
