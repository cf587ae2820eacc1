"The example package: a method of one's own, in a new process, in a sweep and in its table."

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from house import page_blocks

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "ramer-nearest-centre"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    "A folder in which the example package is installed, as pip does it."
    home = tmp_path_factory.mktemp("example")
    shutil.copytree(EXAMPLE, home / "source")
    target = home / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"]
    options = ["--no-build-isolation", "--target", str(target), str(home / "source")]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def run(installed, folder, *arguments):
    "What the command line writes in a new process that has the package."
    paths = [str(installed), str(ROOT)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "ramer", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_is_of_twenty_lines_or_so():
    code = (EXAMPLE / "ramer_nearest_centre.py").read_text().splitlines()
    assert len([line for line in code if line.strip()]) <= 24


GAUSSIAN = ("run", "--dataset", "gaussian", "--method", "nearest-centre")


@pytest.fixture(scope="module")
def ran(installed, tmp_path_factory):
    "A folder in which the method was run, and what that said."
    home = tmp_path_factory.mktemp("ran")
    return home, run(installed, home, *GAUSSIAN)


def test_a_method_of_ones_own_is_run_loaded_and_tabled(installed, ran):
    home, said = ran
    assert run(installed, home, *GAUSSIAN) == said and len(said.splitlines()) == 8
    assert "nearest-centre" in run(installed, home, "table", "runs")
    [config] = (home / "runs").rglob("config.json")
    assert json.loads(config.read_text())["versions"]["ramer-nearest-centre"] == "1.0"


def test_without_the_package_its_models_are_refused_by_name(ran):
    [model] = (ran[0] / "runs").rglob("model")
    command = [sys.executable, "-m", "ramer", "predict", str(model), "nowhere"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "saved method 'nearest-centre' is unknown" in done.stderr


def test_the_page_names_commands_that_ran_here():
    ((_, block),) = page_blocks("examples/README.md")
    _, listed, alone, swept, trained = [
        line.partition("#")[0].strip() for line in block.splitlines()
    ]
    assert listed == "ramer methods | grep nearest-centre"
    assert alone == f"ramer {' '.join(GAUSSIAN)}"
    assert swept == "ramer sweep quick --method nearest-centre"
    assert trained == "ramer train my-features --method nearest-centre"


def test_it_is_listed_and_trained_on_a_folder(installed, tmp_path):
    from ramer.data.datasets import load_dataset
    from ramer.data.folders import Corpus, write_folder

    write_folder(Corpus(load_dataset("gaussian").parts(0)[0][:120]), tmp_path / "my-features")
    assert "nearest-centre" in run(installed, tmp_path, "methods")
    run(installed, tmp_path, "train", "my-features", "--method", "nearest-centre")
    assert (tmp_path / "model" / "manifest.json").exists()


@pytest.mark.slow
def test_it_is_swept_beside_the_others(installed, tmp_path):
    said = run(
        installed, tmp_path, "sweep", "quick", "--method", "nearest-centre", "--method", "prior"
    )
    assert "nearest-centre" in run(installed, tmp_path, "table", "runs") and said
