"""The README's grid file: a sweep over two data sets and a method of one's own."""

import os
import re
import subprocess
import sys

import pandas as pd
import pytest
from house import DEPENDENCIES, OPTIONAL, ROOT, installed_wheel
from packaging.requirements import Requirement

README = (ROOT / "README.md").read_text()
OWN_CLASS = ROOT / "examples" / "ramer-nearest-centre" / "ramer_nearest_centre.py"
SOME = ["--seed", "0", "--only", "*/train-*", "--only", "*/condition-*-l"]


@pytest.fixture
def mine(tmp_path):
    "A folder with what the README's grid file names, and that file."
    from ramer.data.datasets import load_dataset
    from ramer.data.folders import Corpus, write_folder

    world, _ = load_dataset("gaussian").parts(0)
    for name, clips in (("my-features", world[:150]), ("their-features", world[150:300])):
        write_folder(Corpus(clips), tmp_path / name)
    (tmp_path / "mine.py").write_text(OWN_CLASS.read_text())
    ((grid),) = re.findall(r"```yaml\n(.*?)```", README, re.S)
    (tmp_path / "grid.yaml").write_text(grid)
    return tmp_path


HERE = [sys.executable, "-m", "ramer"]


def sweep(folder, *arguments, program=HERE, path=ROOT):
    """What the README's command did, from another folder than the file's.

    program: that is ramer; path: of Python's modules beside those that are installed.
    """
    (folder / "elsewhere").mkdir(exist_ok=True)
    command = [*program, "sweep", "../grid.yaml", "--set", '{"epochs": 1}']
    environment = os.environ | {"PYTHONPATH": str(path), "RAMER_DATA": str(folder / "elsewhere")}
    return subprocess.run(
        [*command, *arguments],
        cwd=folder / "elsewhere",
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def planned(mine, monkeypatch, capsys):
    "What the command plans, asked in this process."
    from ramer.cli import main

    def plan(*arguments):
        (mine / "elsewhere").mkdir(exist_ok=True)
        monkeypatch.setenv("RAMER_DATA", str(mine / "elsewhere"))
        monkeypatch.chdir(mine / "elsewhere")
        with pytest.raises(SystemExit) as ended:
            main(["sweep", "../grid.yaml", "--set", '{"epochs": 1}', *arguments, "--dry-run"])
        assert not ended.value.code
        return capsys.readouterr().out

    return plan


def judged(folder):
    "{(data set, method, condition)} that the tables have."
    table = pd.read_csv(folder / "elsewhere" / "runs" / "results" / "tables" / "conditions.csv")
    return set(zip(table.dataset, table.method, table.condition))


def test_a_part_of_it_runs_and_goes_on(mine, planned):
    with open(mine / "grid.yaml", "a") as grid:
        grid.write("folds: [0]\n")
    assert "18 of 18 notebooks are to be run" in planned()
    assert not (mine / "elsewhere" / "runs").exists()
    ran = sweep(mine, *SOME)
    assert ran.returncode == 0, ran.stderr
    sets = ("my-features", "their-features")
    methods = ("prior", "zero", "logistic", "ramer", "mine")
    assert {(name, method, "l") for name in sets for method in methods} <= judged(mine)
    assert "0 of 4 notebooks are to be run" in planned(*SOME)
    (mine / "mine.py").write_text(OWN_CLASS.read_text() + "\nCHANGED = True\n")
    assert "4 of 4 notebooks are to be run" in planned(*SOME)


@pytest.mark.slow
def test_what_another_method_left_is_refused_and_can_be_run_again(mine, planned):
    one = ["--only", "my-features/train-0-seed0-fold0"]
    assert sweep(mine, *one).returncode == 0
    (mine / "mine.py").write_text(OWN_CLASS.read_text() + "\nCHANGED = True\n")
    refused = sweep(mine, *one)
    assert refused.returncode == 1 and "other code" in refused.stderr
    assert "--retry" in refused.stderr.splitlines()[-1]
    assert "1 of 1 notebooks" in planned("--retry")


@pytest.mark.slow
def test_all_of_it_runs_from_a_wheel(mine, tmp_path_factory):
    needs = [*DEPENDENCIES, *(Requirement(text).name for text in OPTIONAL["notebooks"])]
    programs = installed_wheel(tmp_path_factory.mktemp("installed"), needs)
    ran = sweep(mine, program=[str(programs / "ramer")], path="")
    assert ran.returncode == 0, ran.stderr
    assert len({key for key in judged(mine) if key[2] == "missing"}) == 2 * 5
    notebook = next((mine / "elsewhere" / "runs" / "notebooks").rglob("condition-*.ipynb"))
    assert str(programs.parent) in notebook.with_suffix(".log").read_text()
