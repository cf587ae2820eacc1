"""Every library notebook runs from top to bottom; a failure shows the cell and its traceback."""
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT/"nbs").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_runs(path, request, monkeypatch):
    monkeypatch.setenv("IN_TEST", "1")
    monkeypatch.chdir(path.parent)
    import matplotlib.pyplot as plt
    from execnb.shell import CaptureShell
    from nbdev.config import get_config
    from nbdev.frontmatter import FrontmatterProc
    from nbdev.process import NBProcessor
    skip = set() if request.config.getoption("--slow") else set(get_config(path=ROOT).tst_flags.split())
    notebook = NBProcessor(path, procs=FrontmatterProc, process=True).nb

    def not_run(cell):
        flags = getattr(cell, "directives_", None) or {}
        return cell.cell_type != "code" or bool(skip & set(flags)) or flags.get("eval:", [""])[0].lower() == "false"

    shell = CaptureShell(path)
    try: shell.run_all(notebook, exc_stop=True, preproc=not_run)
    except Exception: pytest.fail(f"{path.relative_to(ROOT)}\n{shell.prettytb(fname=path.name)}", pytrace=False)
    finally: plt.close("all")
