"""Rerun library notebooks and keep their outputs, in one process (one import of torch)."""

import os
import re
import sys
import time
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
from execnb.nbio import read_nb, write_nb
from execnb.shell import CaptureShell
from nbdev.clean import nbdev_clean

LIBRARY = "[0-9][0-9]_*.ipynb"


def skipped(cell):
    if cell.cell_type != "code":
        return True
    return bool(re.search(r"^#\|\s*eval:\s*false", cell.source, re.M | re.I))


def render(path):
    "Run one notebook in its folder and write it back with its outputs, cleaned."
    notebook = read_nb(path)
    for cell in notebook.cells:
        if not skipped(cell):
            cell.outputs = []  # of a cell that shows nothing any more, too
    shell = CaptureShell(path, mpl_format="png")
    os.chdir(path.parent)
    try:
        shell.run_all(notebook, exc_stop=True, preproc=skipped)
    except Exception:
        sys.exit(shell.prettytb(fname=path.name))
    write_nb(notebook, path)
    nbdev_clean(str(path))


def main(names):
    library = sorted(Path("nbs").resolve().rglob(LIBRARY), key=lambda path: path.name)
    home = Path.cwd()
    for path in [Path(name).resolve() for name in names] or library:
        start = time.time()
        render(path)
        os.chdir(home)
        print(f"{path.name} {time.time() - start:.1f}s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
