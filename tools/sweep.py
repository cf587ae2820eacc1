"""Run a grid with papermill: train notebooks, then one notebook per data set and condition, then the tables.

A killed sweep goes on where it was when the same command is given again.
"""
import argparse, hashlib, json, logging, os, shutil, signal, sys, threading, time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT/"nbs"/"experiments"
CONTEST = ["prior", "zero", "mean", "store-mean", "random", "ramer"]
OPPONENTS = ("ae", "cra", "mmin", "if-mmin", "cif-mmin", "distilled", "transformer", "shaspec", "momke", "m3care",
             "logistic", "knn", "impute-logistic", "impute-boosting", "boosting")
STUDIED = ("ramer-e2e", "ramer-raw", "ramer-top-1")
VARIANTS = ("if-mmin-1", "ae-lineage", *(f"{name}-published" for name in OPPONENTS[:5]))
LEAKING = ("ravdess-frames", "prototypes", "mer2024-shaped", "gaussian", "ravdess-goemotions", "ravdess", "mosi")
DATABASES = ["zero", "random", "ramer", "ramer-medium", "ramer-large", "ramer-turbo"]


@dataclass(frozen=True)
class Part:
    "The share of a grid that one data set has: which methods, folds and seeds, and how many folds one notebook trains."
    dataset: str
    methods: tuple
    folds: tuple
    seeds: tuple = (0,)
    folds_each: int = 5


@dataclass(frozen=True)
class Job:
    "A notebook to be executed with parameters into a file."
    notebook: str
    out: Path
    parameters: dict


def grid_parts(name):
    "The parts of a named grid, longest first; real sets only where their files are present."
    from ramer.protocol import available_datasets
    parts = {
        "quick": [Part("gaussian", ("prior", "zero", "random", "ramer", "bayes"), (0, 1), folds_each=1)],
        "default": [
            Part("prototypes", (*CONTEST, "bayes"), (0,)), Part("ravdess-frames", ("prior", "zero", "mean", "random", "ramer"), (0,)),
            Part("gaussian", (*CONTEST, "bayes"), (0, 1)), Part("ravdess-goemotions", tuple(CONTEST), (0, 1)), Part("mer2024-shaped", (*DATABASES, "bayes"), (0, 1)),
            Part("ravdess", tuple(CONTEST), (0, 1)), Part("mosi", tuple(CONTEST), (0, 1, 2))],
        "leaks": [Part(name, ("zero", "ramer"), range(5), folds_each=1) for name in LEAKING], "publish": publish_parts()}[name]
    here = set(available_datasets())                                 # loads every set: once, not once a part
    return [part for part in parts if part.dataset in here]


def publish_parts():
    """Everything that is committed: five folds, with two seeds for RAMER, its studies and controls, with one for opponents, variants and the released code's switches.

    Its native widths cost hours on the widest inputs, so encoder sizes and the whole preset run on one real set only.
    """
    from ramer.ramer import RELEASED_SWITCHES
    sets = ("prototypes", "gaussian", "ravdess-goemotions", "ravdess", "mosi", "mer2024-shaped", "ravdess-frames")
    contest, both = {"folds": range(5), "seeds": (0, 1)}, (*CONTEST, "bayes")
    switches = tuple(f"ramer+{name}" for name in RELEASED_SWITCHES)
    cheap = tuple(name for name in switches if name != "ramer+encoder-sizes")
    return [Part("prototypes", both, **contest, folds_each=1), Part("ravdess-frames", tuple(CONTEST), **contest, folds_each=1),
            Part("prototypes", cheap, range(3), folds_each=1), Part("gaussian", both, **contest), Part("ravdess-goemotions", (*switches, "ramer-released"), range(5), folds_each=2),
            Part("ravdess-goemotions", tuple(CONTEST), **contest), Part("ravdess", tuple(CONTEST), **contest),
            Part("mer2024-shaped", (*DATABASES, "bayes"), **contest), Part("mosi", tuple(CONTEST), **contest),
            *(Part(name, STUDIED, **contest) for name in sets),
            *(Part(name, OPPONENTS, range(5), folds_each=1) for name in sets),
            *(Part(name, VARIANTS, range(5), folds_each=2) for name in ("ravdess-goemotions", "mosi"))]


def only(parts, **wanted):
    "The parts with nothing but the wanted datasets, methods and seeds; what is not given is not restricted. Raises ValueError for a name that no part has."
    from ramer.conditions import choose
    for what, names in wanted.items():
        known = dict.fromkeys(str(n) for part in parts for n in ([part.dataset] if what == "datasets" else getattr(part, what)))
        for name in names or (): choose(what.removesuffix("s"), name, known)
    keep = lambda values, what: tuple(v for v in values if not wanted.get(what) or str(v) in wanted[what])
    some = [replace(part, methods=keep(part.methods, "methods"), seeds=keep(part.seeds, "seeds")) for part in parts if keep([part.dataset], "datasets")]
    return [part for part in some if part.methods and part.seeds]


def tune_jobs(parts, runs, changes):
    "A tune job for each data set of some parts, and each fold where a real set's folds tune for themselves; a data set's methods together, so that they share stage 1."
    from ramer.experiment import TUNED_AS
    from ramer.protocol import load_dataset
    where, out = [TUNED_AS.get(part.dataset, part.dataset) for part in parts], []
    for dataset in dict.fromkeys(where):
        some = [part for part, at in zip(parts, where) if at == dataset]
        methods = list(dict.fromkeys(m for part in some for m in part.methods))
        folds = [0] if load_dataset(dataset).independent_folds else sorted({fold for part in some for fold in part.folds})
        out += [Job("tune", runs/"notebooks"/dataset/f"tune-fold{fold}.ipynb", {"dataset": dataset, "methods": methods, "folds": [fold], "changes": changes, "runs": str(runs)}) for fold in folds]
    return out


def leak_jobs(parts, runs, changes):
    "A leaks job for every fold and seed of some parts."
    return [Job("leaks", runs/"notebooks"/part.dataset/f"leaks-fold{fold}-seed{seed}.ipynb", {"dataset": part.dataset, "methods": list(part.methods), "folds": [fold], "seeds": [seed], "changes": changes, "runs": str(runs)})
            for part in parts for seed in part.seeds for fold in part.folds]


def jobs(parts, runs, changes, tuning):
    "(train jobs, condition jobs) of a grid's parts, with what the trials in the folder `tuning` chose."
    from ramer.protocol import judged_conditions, load_dataset
    train, judge = [], []
    for number, part in enumerate(parts):
        chosen, folds, out = load_dataset(part.dataset), list(part.folds), runs/"notebooks"/part.dataset
        common = {"dataset": part.dataset, "methods": list(part.methods), "changes": changes, "tuning": str(tuning), "runs": str(runs)}
        for seed in part.seeds:
            for i in range(0, len(folds), part.folds_each):
                some = folds[i:i + part.folds_each]
                train.append(Job("train", out/f"train-{number}-seed{seed}-fold{some[0]}.ipynb", common | {"folds": some, "seeds": [seed]}))
        for condition in judged_conditions(*chosen.parts(0)):
            judge.append(Job("condition", out/f"condition-{number}-{condition}.ipynb", common | {"folds": folds, "seeds": list(part.seeds), "condition": condition}))
    return train, judge


def follow(parent):
    "End this worker, and so its kernel, when the parent is gone."
    signal.signal(signal.SIGINT, signal.SIG_IGN)                     # Ctrl-C is the parent's to handle
    def watch():
        while os.getppid() == parent: time.sleep(1)
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()


def check_parameters(notebook, parameters):
    "Raise ValueError for a notebook without a parameters cell, or a parameter that it does not have, with the nearest name."
    import papermill
    from ramer.conditions import choose
    known = papermill.inspect_notebook(str(notebook))
    if not known: raise ValueError(f"{notebook.name} has no cell tagged 'parameters'; tag the cell that assigns them")
    for name in parameters: choose(f"parameter of {notebook.name}", name, known)


def job_key(job):
    "A hash of everything that decides an executed notebook: its cells, its parameters and the package's code."
    cells = [(c["cell_type"], "".join(c["source"])) for c in json.loads((NOTEBOOKS/f"{job.notebook}.ipynb").read_text())["cells"]]
    code = [path.read_text() for path in sorted((ROOT/"ramer").glob("*.py"))]
    return hashlib.sha256(json.dumps([cells, job.parameters, code], sort_keys=True).encode()).hexdigest()


def is_done(out, key):
    "Whether an executed notebook ended well and came from this very job."
    try: return json.loads(out.read_text())["metadata"].get("ramer") == {"key": key, "ok": True}
    except (OSError, ValueError, KeyError, TypeError): return False


def execute(job, key, timeout):
    "Execute one notebook in this worker, in the notebook's folder; returns (job, seconds, error or '')."
    import nbformat, papermill
    start, part, error, log = time.time(), job.out.with_suffix(".part.ipynb"), "", job.out.with_suffix(".log")
    notebook = NOTEBOOKS/f"{job.notebook}.ipynb"
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)  # the kernel's own stderr goes there too
    logger = logging.getLogger("papermill")
    logger.handlers[:], logger.propagate = [logging.FileHandler(log)], False
    logger.setLevel("INFO")
    try:
        papermill.execute_notebook(notebook, str(part), parameters=job.parameters, kernel_name="python3", cwd=str(notebook.parent),
                                   progress_bar=False, log_output=True, execution_timeout=timeout, start_timeout=120)
    except papermill.PapermillExecutionError as e: error = f"cell {e.cell_index}: {e.ename}: {e.evalue}"
    except Exception as e: error = f"{type(e).__name__}: {next(iter(str(e).strip().splitlines()), '')}"
    if part.exists():
        executed = nbformat.read(part, 4)
        executed.metadata["ramer"] = {"key": key, "ok": not error}
        nbformat.write(executed, part)
        os.replace(part, job.out)
    return job, time.time() - start, error


def run_jobs(todo, workers, title, timeout=3600):
    "Execute jobs in worker processes with a progress bar; returns how many failed. Jobs already done are skipped."
    from tqdm import tqdm
    for job in todo: check_parameters(NOTEBOOKS/f"{job.notebook}.ipynb", job.parameters)
    keyed = [(job, job_key(job)) for job in todo]
    left, failed = [(job, key) for job, key in keyed if not is_done(job.out, key)], 0
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=follow, initargs=(os.getpid(),)) as pool, \
            tqdm(total=len(keyed), initial=len(keyed) - len(left), desc=title, unit="notebook") as bar:
        for job, _ in left: job.out.parent.mkdir(parents=True, exist_ok=True)
        futures = [pool.submit(execute, job, key, timeout) for job, key in left]
        try:
            for future in as_completed(futures):
                job, seconds, error = future.result()
                bar.update()
                if error: bar.write(f"{job.out}: {error}"); failed += 1
        except KeyboardInterrupt:
            bar.write("stopped; the same command goes on from here")
            os._exit(130)
    return failed


def options_of_all(doc):
    "A parser with the options that every sweep has."
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--runs", type=Path, default=ROOT/"runs", help="where run folders, executed notebooks and results go")
    parser.add_argument("--changes", type=json.loads, default={}, help="JSON: fields of Config that differ from the defaults")
    parser.add_argument("--publish", action="store_true", help="write into results/ and the README instead of the runs folder")
    return parser


def folders(options):
    "(the runs folder, the folder of results), absolute; from here on, whatever runs has one thread."
    os.environ.update(ONE_THREAD)
    runs = options.runs.resolve()
    return runs, ROOT/"results" if options.publish else runs/"results"


def finish(todo, workers, title, traces):
    "`run_jobs`, and an end to it all if a notebook failed."
    if failed := run_jobs(todo, workers, title): sys.exit(f"{title}: {failed} notebooks failed; errors are above, traces in {traces}")


def tune(parts, runs, results, options):
    "Let every method of the parts try its values; returns the folder of the choices."
    from ramer.experiment import collect_tuning
    finish(tune_jobs(parts, runs, options.changes), options.workers, "tune", runs/"notebooks")
    print(*collect_tuning(runs, results/"tuning"), sep="\n")
    return results/"tuning"


def measure_leaks(parts, runs, results, options):
    "Measure what each leak is worth on the parts, and print it."
    from ramer.folders import write_text
    from ramer.leaks import collect_leaks, leaks_block, write_leaks
    from ramer.report import replace_block
    finish(leak_jobs(parts, runs, options.changes), options.workers, "leaks", runs/"notebooks")
    collect_leaks(runs, results)
    table = write_leaks(results)
    if options.publish: write_text(ROOT/"README.md", replace_block((ROOT/"README.md").read_text(), leaks_block(table)))
    print((results/"leaks"/"inflation.md").read_text())


def make_tables(parts, runs, results, options, tuning):
    "Train and judge the parts, then write the tables and say how they compare with the committed ones."
    train, judge = jobs(parts, runs, options.changes, tuning)
    for todo, title in ((train, "train"), (judge, "conditions")): finish(todo, options.workers, title, runs/"notebooks")
    if options.publish and not (options.datasets or options.methods or options.seeds): shutil.rmtree(results/"runs", ignore_errors=True)
    tables = Job("tables", runs/"notebooks"/"tables.ipynb", {"runs": str(runs), "results": str(results), "committed": str(ROOT/"results"), "publish": options.publish})
    tables.out.unlink(missing_ok=True)
    finish([tables], 1, "tables", tables.out)
    print((results/"comparison.txt").read_text() if not options.publish else f"published to {results}; read the change with git diff")


def main(arguments=None):
    parser = options_of_all(__doc__)
    parser.add_argument("--grid", choices=("quick", "default", "leaks", "publish"), default="default")
    parser.add_argument("--tune", action="store_true", help="first let every method try its three values of one field on dev; otherwise the committed choices hold")
    for what in ("datasets", "methods", "seeds"): parser.add_argument(f"--{what}", nargs="+", help="only these; with --publish, the lines of other data sets and methods stay")
    options = parser.parse_args(arguments)
    runs, results = folders(options)
    try: parts = only(grid_parts(options.grid), datasets=options.datasets, methods=options.methods, seeds=options.seeds)
    except ValueError as error: parser.error(str(error))
    tuning = tune(parts, runs, results, options) if options.tune else ROOT/"results"/"tuning"
    if options.grid == "leaks": measure_leaks(parts, runs, results, options)
    else: make_tables(parts, runs, results, options, tuning)


if __name__ == "__main__": main()
