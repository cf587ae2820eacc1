"The tutorial and the how-to pages run as they stand, from a built wheel, in an empty folder."

import os
import re
import subprocess

import pandas as pd
import pytest
from house import DEPENDENCIES, installed_wheel, page_blocks

BLOCKS = page_blocks("docs/tutorial.md")
SLOW = pytest.mark.slow
HOW_TO = ["own-data", *(pytest.param(name, marks=SLOW) for name in ("own-method", "privacy"))]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    return installed_wheel(tmp_path_factory.mktemp("installed"), DEPENDENCIES)


def run_block(language, block, folder, installed, given=None):
    "What a block did in a folder, in the environment of the wheel."
    path = os.pathsep.join([str(installed), os.environ["PATH"]])
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = clean | {"PATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "120"} | (given or {})
    command = (
        [str(installed / "python"), "-c", block] if language == "python" else ["bash", "-ec", block]
    )
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def ran(installed, tmp_path_factory):
    "The folder in which every block of the tutorial ran, and what each said."
    folder = tmp_path_factory.mktemp("tutorial")
    said = []
    for language, block in BLOCKS:
        if "pip install" not in block:
            done = run_block(language, block, folder, installed)
            said.append((block, done.stdout, done.stderr))
    return folder, said


NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def check_shown(shown, said):
    "The same words, and numbers that another processor may round differently."
    assert NUMBER.sub("#", said).split() == NUMBER.sub("#", shown).split()
    numbers = [[float(n) for n in NUMBER.findall(text)] for text in (said, shown)]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.03, rel=0.01)


@pytest.mark.parametrize("page", HOW_TO)
def test_a_how_to_runs_as_it_stands_and_prints_what_it_shows(page, installed, tmp_path):
    said, given, compared = "", {}, 0
    for language, block in page_blocks(f"docs/{page}.md"):
        saved = re.match(r"# (\S+\.py)\n", block)
        if language == "text":
            check_shown(block, said)
            compared += 1
        elif saved:
            (tmp_path / saved[1]).write_text(block)
        elif language in ("python", "sh"):
            given |= dict(re.findall(r"^export (\w+)='(.*)'$", block, re.M))
            in_order = "exec 2>&1\n" if language == "sh" else ""
            said = run_block(language, in_order + block, tmp_path, installed, given).stdout
    assert compared > 1


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
