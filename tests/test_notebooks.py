"""Every library notebook runs from top to bottom; a failure shows the cell and its traceback."""

import logging

import pytest
from house import PATHS, ROOT


def skipped_flags(request):
    "Flags of cells that are not run: slow ones, unless they are asked for."
    from nbdev.config import get_config

    if request.config.getoption("--slow"):
        return set()
    return set(get_config(path=ROOT).tst_flags.split())


@pytest.fixture
def own_logging():
    "What a notebook sets on ramer's logger ends with it: the next one of this process is as new."
    logger = logging.getLogger("ramer")
    level, handlers = logger.level, list(logger.handlers)
    yield
    logger.setLevel(level)
    logger.handlers[:] = handlers


@pytest.mark.usefixtures("own_logging")
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_notebook_runs(path, request, monkeypatch):
    monkeypatch.setenv("IN_TEST", "1")
    monkeypatch.chdir(path.parent)
    import matplotlib.pyplot as plt
    from execnb.shell import CaptureShell
    from nbdev.frontmatter import FrontmatterProc
    from nbdev.process import NBProcessor

    skip = skipped_flags(request)
    notebook = NBProcessor(path, procs=FrontmatterProc, process=True).nb

    def not_run(cell):
        flags = getattr(cell, "directives_", None) or {}
        never = flags.get("eval:", [""])[0].lower() == "false"
        return cell.cell_type != "code" or never or bool(skip & set(flags))

    shell = CaptureShell(path)
    try:
        shell.run_all(notebook, exc_stop=True, preproc=not_run)
    except Exception:
        trace = shell.prettytb(fname=path.name)
        pytest.fail(f"{path.relative_to(ROOT)}\n{trace}", pytrace=False)
    finally:
        plt.close("all")
        shell.user_ns.clear()  # else clips and models of every notebook stay in memory
