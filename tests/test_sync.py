"""The committed library is what the notebooks export, and the notebooks are clean."""

import difflib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def text(folder, pattern):
    paths = [path for path in sorted(folder.rglob(pattern)) if not hidden(path)]
    return {path.relative_to(folder).as_posix(): path.read_text().splitlines() for path in paths}


def hidden(path):
    return ".ipynb_checkpoints" in path.parts


def differences(ours, theirs, our_name, their_name):
    lines = []
    for name in sorted(ours | theirs):
        pair = ours.get(name, []), theirs.get(name, [])
        titles = f"{our_name}/{name}", f"{their_name}/{name}"
        lines += difflib.unified_diff(*pair, *titles, lineterm="", n=1)
    return "\n".join(lines)


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ROOT / "nbs", tmp_path / "nbs")
    shutil.copy(ROOT / "settings.ini", tmp_path)
    (tmp_path / "ramer").mkdir()
    shutil.copy(ROOT / "ramer" / "__init__.py", tmp_path / "ramer")  # written by hand
    return tmp_path


def nbdev(command, folder):
    imports = "from nbdev.doclinks import nbdev_export; from nbdev.clean import nbdev_clean; "
    run = [sys.executable, "-c", imports + command]
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_library_is_what_the_notebooks_export(copy):
    nbdev("nbdev_export()", copy)
    committed = text(ROOT / "ramer", "*.py")
    diff = differences(committed, text(copy / "ramer", "*.py"), "committed", "exported")
    if diff:
        pytest.fail("edited .py? edit the notebook, then `make sync`.\n" + diff, pytrace=False)


def test_notebooks_are_clean(copy):
    before = text(copy / "nbs", "*.ipynb")
    nbdev("nbdev_clean()", copy)
    diff = differences(before, text(copy / "nbs", "*.ipynb"), "committed", "cleaned")
    if diff:
        pytest.fail("run `make sync`\n" + diff, pytrace=False)
