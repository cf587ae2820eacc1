"""Bad input over five doors: one sentence that says what was given and what to do; nothing is lost.

The doors: the command line, a folder of features, `Clips`, the estimators, a model on disk.
"""

import contextlib
import hashlib
import io
import json
import shutil
import warnings

import numpy as np
import pandas as pd
import pytest

import ramer
from ramer.cli import main
from ramer.data.clips import Clips
from ramer.data.datasets import folder_dataset
from ramer.data.folders import Corpus, read_folder, write_folder
from ramer.evaluation.protocol import Protocol
from ramer.methods.registry import configure, load_method, make_method
from ramer.models import parts_of

N = 60
CLASSES = ("angry", "happy", "sad")
WIDTHS = {"a": 5, "l": 7}


def drawn(n=N, offset=0):
    "Clips of twelve speakers in three classes."
    generator = np.random.default_rng(offset)
    labels = np.arange(n) % 3
    features = {m: generator.normal(size=(n, w)) + labels[:, None] for m, w in WIDTHS.items()}
    groups = [f"speaker-{i % 12}" for i in range(n)]
    return Clips([f"c{offset + i}" for i in range(n)], features, labels, CLASSES, groups)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "A folder of features and two saved models, one with a store and one without."
    home = tmp_path_factory.mktemp("made")
    clips = drawn()
    write_folder(Corpus(clips), home / "clips")
    train, dev, _ = parts_of(Corpus(clips))
    for name, method in (("gated", "ramer-gated"), ("linear", "one-logistic")):
        config = configure("own", method, epochs=1)
        make_method(config).fit(train, dev).save(home / name)
    (home / "signs.png").touch()
    return home


@pytest.fixture
def home(made, tmp_path):
    "A copy of them, to be spoilt."
    shutil.copytree(made, tmp_path / "home")
    return tmp_path / "home"


def one_sentence(text):
    "Whether a message is one line that says what is wrong and what to do or what was expected."
    advice = (";", "expected", "did you mean", "give ", "holds no", "choose", "Maybe you")
    return "\n" not in text.strip() and any(word in text for word in advice)


def state_of(folder):
    "Every file below a folder, by its hash."
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def refuses(action, said):
    "An action ends in one sentence that holds some words."
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises((ValueError, TypeError, FileNotFoundError, FileExistsError)) as caught:
            action()
    text = str(caught.value)
    assert said in text, text
    assert one_sentence(text), text


# -- the command line ------------------------------------------------------------------------------
COMMANDS = {
    "no such folder": (["train", "{home}/nowhere"], "does not exist"),
    "no such model": (["predict", "{home}/nowhere", "{home}/clips"], "holds no saved method"),
    "a folder that is no model": (["predict", "{home}/clips", "{home}/clips"], "holds no saved"),
    "unknown method": (
        ["train", "{home}/clips", "--out", "{home}/new", "--method", "rammer"],
        "did you mean 'ramer'?",
    ),
    "unknown field": (
        ["train", "{home}/clips", "--out", "{home}/new", "--set", '{"epoch": 1}'],
        "did you mean 'epochs'?",
    ),
    "unknown field of a sweep": (
        ["sweep", "quick", "--runs", "{home}/runs", "--set", '{"epoch": 1}'],
        "did you mean 'epochs'?",
    ),
    "unknown field of a study": (
        ["study", "top-k", "--runs", "{home}/runs", "--set", '{"epoch": 1}'],
        "did you mean 'epochs'?",
    ),
    "what a study varies": (
        ["study", "top-k", "--runs", "{home}/runs", "--set", '{"k": 3}'],
        "k is what top-k varies",
    ),
    "what resources are measured on": (
        ["study", "resources", "--runs", "{home}/runs", "--dataset", "mosi"],
        "resources has clips and settings of its own",
    ),
    "which run it is": (
        ["sweep", "quick", "--runs", "{home}/runs", "--set", '{"seed": 3}'],
        "seed says which run it is",
    ),
    "no JSON": (
        ["train", "{home}/clips", "--out", "{home}/new", "--set", "epochs=1"],
        "expected JSON such as",
    ),
    "no object": (
        ["train", "{home}/clips", "--out", "{home}/new", "--set", "3"],
        "expected a JSON object",
    ),
    "a model is there": (["train", "{home}/clips", "--out", "{home}/gated"], "choose another"),
    "no model to replace": (
        ["train", "{home}/clips", "--out", "{home}/clips", "--replace"],
        "holds no model.json",
    ),
    "unknown condition": (
        ["predict", "{home}/gated", "{home}/clips", "--given", "x"],
        "condition 'x' is unknown",
    ),
    "an end of no format": (
        ["predict", "{home}/gated", "{home}/clips", "--out", "{home}/answers.txt"],
        "expected a name with .csv",
    ),
    "a table is there": (
        ["predict", "{home}/gated", "{home}/clips", "--out", "{home}/clips/clips.csv"],
        "add --replace",
    ),
    "a table is there, which is said before anything is read": (
        ["predict", "{home}/nowhere", "{home}/clips", "--out", "{home}/clips/clips.csv"],
        "add --replace",
    ),
    "a figure of another kind": (
        ["diagnose", "{home}/nowhere", "--figure", "{home}/signs.pdf"],
        "expected a name with .png",
    ),
    "a figure is there": (
        ["diagnose", "{home}/nowhere", "--figure", "{home}/signs.png"],
        "add --replace",
    ),
    "several sources": (
        ["predict", "{home}/gated", "{home}/clips", "{home}/clips"],
        "expected one folder, or recordings",
    ),
    "explain without a store": (
        ["explain", "{home}/linear", "{home}/clips", "--given", "l"],
        "answers without neighbours",
    ),
    "enrol without a store": (["enrol", "{home}/clips", "{home}/linear"], "keeps no store"),
    "enrol what is stored": (["enrol", "{home}/clips", "{home}/gated"], "already stored"),
    "forget without a store": (["forget", "{home}/linear", "--group", "x"], "keeps no store"),
    "forget a misspelt speaker": (
        ["forget", "{home}/gated", "--group", "speakr-1"],
        "did you mean 'speaker-1",
    ),
    "forget nothing": (["forget", "{home}/gated"], "name some and leave some"),
    "tune an unknown method": (["tune", "{home}/clips", "--method", "ramr"], "did you mean"),
    "a path for a data set": (["run", "--dataset", "./clips"], "is a path, expected a name"),
    "an unknown data set": (["run", "--dataset", "gausian"], "did you mean 'gaussian'?"),
    "no runs": (["table", "{home}/clips"], "holds no finished run"),
    "a device that is not here": (
        ["--device", "cuda:9", "train", "{home}/clips", "--out", "{home}/new", "--method", "zero"],
        "torch finds no such GPU; choose auto or cpu",
    ),
    "a recording that is not there": (
        ["predict", "{home}/gated", "{home}/gone.wav"],
        "expected recordings or features",
    ),
    "features without =": (
        ["data", "inspect", "{home}/clips", "--features", "a"],
        "expected MODALITY=PATH",
    ),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_the_command_line_refuses(case, home):
    arguments, said = COMMANDS[case]
    before = state_of(home)
    written = io.StringIO()
    with contextlib.redirect_stderr(written), pytest.raises(SystemExit) as ended:
        main([argument.replace("{home}", str(home)) for argument in arguments])
    lines = [line for line in written.getvalue().splitlines() if line.startswith("ramer: ")]
    assert ended.value.code == 2
    assert len(lines) == 1 and said in lines[0], written.getvalue()
    assert one_sentence(lines[0])
    assert state_of(home) == before


# -- a folder --------------------------------------------------------------------------------------
def rewritten(**columns):
    "A change of the table of clips: new or other columns, None to drop one."

    def change(folder):
        table = pd.read_csv(folder / "clips.csv", dtype=str, keep_default_na=False)
        for name, value in columns.items():
            if value is None:
                table = table.drop(columns=name)
            else:
                table[name] = value
        table.to_csv(folder / "clips.csv", index=False)

    return change


def with_file(name, content):
    "A change of the folder: a file with this array, text or bytes; None removes it."

    def change(folder):
        if content is None:
            (folder / name).unlink()
        elif isinstance(content, np.ndarray):
            np.save(folder / name, content)
        elif isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            (folder / name).write_text(content)

    return change


halves = ["train" if i % 2 else "test" for i in range(N)]
FOLDERS = {
    "no table": (with_file("clips.csv", None), "holds no clips.csv"),
    "an empty table": (with_file("clips.csv", "id\n"), "lists no clip"),
    "no ids": (rewritten(id=None), "expected one named 'id'"),
    "an id twice": (rewritten(id="x"), "occurs 60 times"),
    "an empty id": (rewritten(id=[""] + [f"c{i}" for i in range(1, N)]), "give every clip one"),
    "a misspelt column": (rewritten(lacking="a"), "'lacking' is unknown"),
    "a column in capitals": (rewritten(Label="sad"), "Label"),
    "an unknown split": (rewritten(split=["Test"] + ["train"] * (N - 1)), "did you mean 'test'?"),
    "two test splits": (rewritten(split=["test1", "test2"] * (N // 2)), "has the test splits"),
    "dev and no test": (rewritten(split=["dev", "train"] * (N // 2)), "name the test clips"),
    "a group in two folds": (rewritten(fold=[str(i // 30) for i in range(N)]), "lies in two folds"),
    "folds from one": (
        rewritten(fold=[str(1 + i % 12 // 4) for i in range(N)]),
        "has the folds 1, 2, 3; number them from 0 to 2",
    ),
    "a single fold": (rewritten(fold="0"), "none is left to learn from"),
    "a fold that is no number": (rewritten(fold="first"), "column fold holds 'first'"),
    "no labels": (rewritten(label=""), "no labelled clip"),
    "an unknown modality is missing": (rewritten(missing="q"), "q"),
    "no features": (lambda folder: [p.unlink() for p in folder.glob("*.npy")], "no feature"),
    "too few rows": (with_file("a.npy", np.ones((N - 1, 5))), "59"),
    "a row of text": (with_file("a.npy", np.full((N, 5), "x")), "a.npy"),
    "infinite": (with_file("a.npy", np.full((N, 5), np.inf)), "has no measurement"),
    "four dimensions": (with_file("a.npy", np.ones((N, 2, 2, 2))), "shape"),
    "no array": (with_file("a.npy", b"no array at all"), "never unpickled"),
    "pickled objects": (with_file("a.npy", np.array([{}] * N, object)), "never unpickled"),
    "a stray array": (with_file("ids.npy", np.arange(N)), "ids"),
    "two files of one modality": (with_file("a.safetensors", b"x"), "a"),
    "about.json is no JSON": (with_file("about.json", "{"), "about.json"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_is_refused(case, home):
    change, said = FOLDERS[case]
    change(home / "clips")
    before = state_of(home)
    refuses(lambda: Protocol(folder_dataset(home / "clips")), said)
    assert state_of(home) == before


# -- Clips -----------------------------------------------------------------------------------------
ids = [f"c{i}" for i in range(4)]
x = np.ones((4, 3))
CLIPS = {
    "an id twice": (lambda: Clips(["c", "c"], {"a": x[:2]}), "'c'"),
    "no modality": (lambda: Clips(ids, {}), "modalit"),
    "rows that do not fit": (lambda: Clips(ids, {"a": x[:3]}), "expected"),
    "one dimension": (lambda: Clips(ids, {"a": x[:, 0]}), "shape"),
    "half a label": (lambda: Clips(ids, {"a": x}, [0.5, 0, 0, 0], ("s", "t")), "whole"),
    "a label outside": (lambda: Clips(ids, {"a": x}, [0, 1, 2, 5], ("s", "t")), "class"),
    "labels without classes": (lambda: Clips(ids, {"a": x}, [0, 1, 0, 1]), "class"),
    "too few groups": (lambda: Clips(ids, {"a": x}, groups=["g"]), "group"),
    "present of another shape": (lambda: Clips(ids, {"a": x}, present=np.eye(4, 2) > 0), "(4, 2)"),
    "lengths beyond the frames": (
        lambda: Clips(ids, {"a": np.ones((4, 2, 3))}, lengths={"a": [9] * 4}),
        "length",
    ),
    "another class": (
        lambda: Clips(ids, {"a": x}, [0, 0, 1, 1], ("s", "t")).in_classes(("s", "u")),
        "'t'",
    ),
}


@pytest.mark.parametrize("case", CLIPS)
def test_clips_are_refused(case):
    refuses(*CLIPS[case])


# -- estimators ------------------------------------------------------------------------------------
views = {m: np.array(v) for m, v in drawn().features.items()}
y = np.array(CLASSES)[drawn().labels]


def small(**options):
    return ramer.RAMERClassifier(epochs=1, **options)


ESTIMATORS = {
    "one class": (lambda: small().fit(views, np.full(N, "sad")), "one class"),
    "numbers to regress": (lambda: small().fit(views, np.linspace(0, 1, N)), "label"),
    "too few labels": (lambda: small().fit(views, y[:-1]), str(N)),
    "a device of no kind": (lambda: small(device="gpu").fit(views, y), "expected auto, cpu, cuda"),
    "no threads": (lambda: small(threads=-1).fit(views, y), "expected a number of threads"),
    "an unknown setting": (lambda: small(settings={"kk": 3}).fit(views, y), "'kk' is unknown"),
    "a view too many": (
        lambda: small(blocks={"a": 0}).fit([views["a"], views["l"]], y),
        "give one for each",
    ),
    "columns that are not there": (
        lambda: small(blocks={"a": [0, 99]}).fit(views["a"], y),
        "blocks do not fit",
    ),
    "names that are not there": (
        lambda: small(blocks={"a": ["p", "q"]}).fit(pd.DataFrame({"p": np.ones(N)}), y),
        "blocks name columns",
    ),
    "a modality it has not seen": (
        lambda: small().fit({"a": views["a"]}, y).predict({"q": views["a"]}),
        "'q'",
    ),
    "another width": (
        lambda: small().fit(views, y).predict({"a": np.ones((2, 9))}),
        "expected",
    ),
    "a clip with nothing": (
        lambda: small().fit(views, y).predict({"a": np.full((2, 5), np.nan)}),
        "no modality",
    ),
    "far from all it has seen": (
        lambda: small().fit(views, y).predict({"a": np.full((2, 5), 1e30)}),
        "check its units",
    ),
    "sequences to impute": (
        lambda: ramer.MissingModalityImputer(epochs=1).fit({"a": np.ones((N, 2, 3))}, y),
        "sequence",
    ),
}


@pytest.mark.parametrize("case", ESTIMATORS)
def test_an_estimator_refuses(case):
    refuses(*ESTIMATORS[case])


# -- a model on disk -------------------------------------------------------------------------------
def edited(folder, change):
    "Change the facts of a saved model, and leave its manifest as it was."
    facts = json.loads((folder / "model.json").read_text())
    change(facts)
    (folder / "model.json").write_text(json.dumps(facts))


MODELS = {
    "an empty folder": (lambda m: [shutil.rmtree(m), m.mkdir()], "holds no saved method"),
    "no facts": (lambda m: (m / "model.json").unlink(), "it is missing"),
    "no weights": (lambda m: (m / "model.safetensors").unlink(), "it is missing"),
    "no manifest": (lambda m: (m / "manifest.json").unlink(), "manifest.json is missing"),
    "no store": (lambda m: shutil.rmtree(m / "store"), "it is missing"),
    "cut weights": (
        lambda m: (m / "model.safetensors").write_bytes(b"cut"),
        "is not the file that was saved",
    ),
    "another method": (
        lambda m: edited(m, lambda facts: facts["config"].update(method="ramer")),
        "is not the file that was saved",
    ),
    "an edited card": (
        lambda m: (m / "README.md").write_text("The best model."),
        "is not the file that was saved",
    ),
    "a manifest of nothing": (lambda m: (m / "manifest.json").write_text("{}"), "format None"),
    "no JSON": (lambda m: (m / "manifest.json").write_text("{"), "it is not JSON"),
    "pickled weights in its place": (
        lambda m: (m / "model.safetensors").write_bytes(b"\x80\x04."),
        "is not the file that was saved",
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_model_on_disk_is_refused(case, home):
    change, said = MODELS[case]
    change(home / "gated")
    before = state_of(home)
    refuses(lambda: load_method(home / "gated"), said)
    assert state_of(home) == before


def test_the_table_has_sixty_cases_over_five_doors():
    doors = (COMMANDS, FOLDERS, CLIPS, ESTIMATORS, MODELS)
    assert all(len(door) >= 10 for door in doors)
    assert sum(map(len, doors)) >= 60


def test_what_is_good_passes(home):
    "So that the doors are not merely shut."
    assert len(read_folder(home / "clips")) == N
    assert len(load_method(home / "gated").predict(drawn(6, 100))) == 6
    assert small().fit(views, y).predict(views).shape == (N,)
