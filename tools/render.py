"""Rerun library notebooks and keep their outputs, in one process (one import of torch)."""
import os, re, sys, time
from pathlib import Path
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
from execnb.nbio import read_nb, write_nb
from execnb.shell import CaptureShell
from nbdev.clean import nbdev_clean


def skipped(cell):
    return cell.cell_type != "code" or bool(re.search(r"^#\|\s*eval:\s*false", cell.source, re.M | re.I))


def main(paths):
    home = Path.cwd()
    for path in [Path(p).resolve() for p in paths] or sorted(Path("nbs").resolve().glob("*.ipynb")):
        start, notebook, shell = time.time(), read_nb(path), CaptureShell(path, mpl_format="png")
        os.chdir(path.parent)
        try: shell.run_all(notebook, exc_stop=True, preproc=skipped)
        except Exception: sys.exit(shell.prettytb(fname=path.name))
        os.chdir(home)
        write_nb(notebook, path)
        nbdev_clean(str(path))
        print(f"{path.name} {time.time() - start:.1f}s", flush=True)


if __name__ == "__main__": main(sys.argv[1:])
