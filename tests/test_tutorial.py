"The tutorial runs as it stands, from a built wheel, in an empty folder."

import os
import re
import subprocess

import pandas as pd
import pytest
from house import DEPENDENCIES, ROOT, installed_wheel

TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", TUTORIAL, re.M | re.S)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return installed_wheel(tmp_path_factory.mktemp("installed"), DEPENDENCIES)


@pytest.fixture(scope="module")
def ran(installed, tmp_path_factory):
    "The folder in which every block ran, and what each said."
    folder = tmp_path_factory.mktemp("tutorial")
    path = os.pathsep.join([str(installed), os.environ["PATH"]])
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = clean | {"PATH": path, "OMP_NUM_THREADS": "1"}
    said = []
    for language, block in BLOCKS:
        if "pip install" in block:
            continue
        command = [str(installed / "python"), "-c", block] if language else ["bash", "-ec", block]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        said.append((block, done.stdout, done.stderr))
    return folder, said


def test_ramer_is_the_wheels(installed, tmp_path):
    asked = "import ramer; print(ramer.__file__)"
    done = subprocess.run(
        [str(installed / "python"), "-c", asked], cwd=tmp_path, capture_output=True, text=True
    )
    assert str(installed.parent) in done.stdout


def test_every_block_runs_and_leaves_what_it_says(ran):
    folder, said = ran
    assert len(said) == len(BLOCKS) - 1
    answers = pd.read_csv(folder / "answers.csv")
    assert set(answers.available) == {"l"} and len(answers) == 300
    assert set(pd.read_json(folder / "answers.json").available) == {"a+v+l", "a+l"}
    assert len(pd.read_csv(folder / "reasons.csv")) == 3 * 300
    assert (folder / "gated" / "README.md").exists()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_the_model_is_better_than_chance_and_the_choice_gives_its_reason(ran):
    _, said = ran
    trained = next(error for block, _, error in said if "--out model" in block)
    assert "one-logistic suffices" in trained or "is better than one-logistic" in trained
    accuracy = re.search(r"new speakers: ([\d.]+)", said[-1][1])
    assert float(accuracy[1]) > 0.5


def test_nothing_asks_for_make_or_a_clone():
    assert "make " not in re.sub(r"[^`]*`make`", "", "\n".join(block for _, block in BLOCKS))


EXTRAS = {
    "explore": "explore results",
    "formats": "predict gated clips --out answers.parquet",
    "notebooks": "sweep --dataset gaussian",
    "sources": "data fetch ravdess --folder public",
    "media": "data extract sounds described",
}


@pytest.mark.parametrize("extra", EXTRAS)
def test_what_needs_an_extra_says_which_and_leaves_nothing(extra, installed, ran):
    folder, _ = ran
    (folder / "sounds").mkdir(exist_ok=True)
    (folder / "sounds" / "one.wav").write_bytes(b"RIFF")
    before = {path.name for path in folder.iterdir()}
    command = [str(installed / "ramer"), *EXTRAS[extra].split()]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 2 and f"pip install 'ramer[{extra}]'" in done.stderr
    left = {path.name for path in folder.iterdir()} - before
    assert not left, left
