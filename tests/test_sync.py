"""The committed library is what the notebooks export, and the notebooks are clean."""
import difflib, shutil, subprocess, sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def text(folder, pattern):
    return {p.relative_to(folder).as_posix(): p.read_text().splitlines() for p in sorted(folder.rglob(pattern))
            if ".ipynb_checkpoints" not in p.parts}


def differences(a, b, name_a, name_b):
    return "\n".join(line for k in sorted(a | b) if a.get(k) != b.get(k)
                     for line in difflib.unified_diff(a.get(k, []), b.get(k, []), f"{name_a}/{k}", f"{name_b}/{k}",
                                                      lineterm="", n=1))


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ROOT/"nbs", tmp_path/"nbs"); shutil.copy(ROOT/"settings.ini", tmp_path)
    return tmp_path


def nbdev(command, folder):
    imports = "from nbdev.doclinks import nbdev_export; from nbdev.clean import nbdev_clean; "
    done = subprocess.run([sys.executable, "-c", imports + command], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_library_is_what_the_notebooks_export(copy):
    nbdev("nbdev_export()", copy)
    if diff := differences(text(ROOT/"ramer", "*.py"), text(copy/"ramer", "*.py"), "committed", "exported"):
        pytest.fail("edited .py? run nbdev_update. edited .ipynb? run nbdev_export.\n" + diff, pytrace=False)


def test_notebooks_are_clean(copy):
    before = text(copy/"nbs", "*.ipynb")
    nbdev("nbdev_clean()", copy)
    if diff := differences(before, text(copy/"nbs", "*.ipynb"), "committed", "cleaned"):
        pytest.fail("run nbdev_clean\n" + diff, pytrace=False)
