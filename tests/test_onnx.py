"Exported parts answer as torch does, at every size, and what cannot be exported or read is named."

import contextlib
import io
import re
import shlex
import shutil
import sys
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from house import ROOT, page_blocks
from numpy.testing import assert_allclose, assert_array_equal

onnx = pytest.importorskip("onnx", reason="onnx is not installed (pip install 'ramer[onnx]')")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from ramer.cli import main
from ramer.conditions import by_condition, condition_mask, random_masks
from ramer.data.clips import Clips
from ramer.data.folders import Corpus, write_folder
from ramer.data.worlds import World, sample
from ramer.methods.gated import evidence_of
from ramer.methods.registry import configure, make_method
from ramer.onnx_export import OnnxModel, export_onnx, exportable, searched_fills

CLOSE = {"atol": 1e-4, "rtol": 0}
MOST = 6  # frames of audio in training
WORLD = World("small", dims={"a": 8, "l": 12}, signal={"a": 1.0, "l": 1.2})


def drawn(n, seed):
    return sample(WORLD, n, seed, f"part{seed}-")


def with_frames(clips, most, seed=0):
    "Audio as up to `most` frames, of which a clip's own number is valid."
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, most + 1, len(clips))
    x = clips.features["a"][:, None] + 0.3 * rng.normal(size=(len(clips), most, 8))
    x[np.arange(most) >= lengths[:, None]] = 0
    features = {"a": 100 + 30 * x, "l": 5 * clips.features["l"] - 2}
    return replace(clips, features=features, lengths={"a": lengths}, present=clips.present)


def fitted(name, train, dev, **changes):
    changes = {"epochs": 2, "hidden": 32, "gate_steps": 60} | changes
    return make_method(configure("small", name, **changes)).fit(train, dev)


def of_the_store(method, exported, clips, mask):
    "What a method with a store answers, all that can be by onnxruntime."
    by_h = f"query-{method.store.modalities[0]}.onnx" in exported.sessions
    live = method.config.query == "live"
    scaled = method.stage1.scaler(clips.hide(mask))
    queries = method.query_features(scaled).numpy()
    if by_h or live:
        assert_allclose(exported.queries(clips)[mask], queries[mask], atol=1e-3)
        queries = exported.queries(clips)
    return exported.classify(exported.hidden(clips), mask, searched_fills(method, queries, mask))


def mixed_by_the_gate(method, exported, clips, mask):
    "What ramer-gated answers, of which two parts are by onnxruntime."
    shown = clips.hide(mask)
    zero = torch.from_numpy(exported.classify(exported.hidden(shown), mask))
    linear = torch.from_numpy(exported.linear(shown, mask))
    scaled = method.stage1.scaler(shown)
    answers = np.zeros(zero.shape)
    for condition, rows in by_condition(mask, clips.modalities):
        voters = method.voters(scaled[rows], condition, method.store)
        evidence = evidence_of(zero[rows], linear[rows], condition.code, voters)
        with torch.no_grad():
            answers[rows] = method.gate.mix(evidence)
    return answers


def by_onnx(method, exported, clips, mask):
    "A method's answers, all that can be by onnxruntime."
    if exported.about["answers alone"]:
        return exported.predict_proba(clips, mask)
    if exported.about["method"] == "ramer-gated":
        return mixed_by_the_gate(method, exported, clips, mask)
    return of_the_store(method, exported, clips, mask)


@pytest.fixture(scope="module")
def parts():
    return [with_frames(drawn(n, seed), MOST, seed) for seed, n in enumerate((120, 50))]


@pytest.fixture(scope="module")
def zero(parts, tmp_path_factory):
    "(method, folder of its export): audio as frames, text as vectors."
    method = fitted("zero", *parts)
    folder = tmp_path_factory.mktemp("zero") / "exported"
    export_onnx(method, folder)
    return method, folder


@pytest.mark.parametrize("n, most", [(1, 1), (1, 5), (7, 2), (33, MOST)])
def test_answers_agree_at_other_sizes_than_those_exported(zero, n, most):
    method, folder = zero
    clips = with_frames(drawn(n, 7), most, seed=n)
    mask = random_masks(n, 2, np.random.default_rng(n))
    exported = OnnxModel(folder)
    assert_allclose(exported.predict_proba(clips, mask), method.predict_proba(clips, mask), **CLOSE)
    together = exported.predict_proba(clips, mask)
    one_by_one = [exported.predict_proba(clips[[i]], mask[[i]])[0] for i in range(n)]
    assert_allclose(together, one_by_one, **CLOSE)  # what pads others does not matter


def test_a_sequence_longer_than_in_training_is_cut_with_a_warning(zero):
    method, folder = zero
    clips = with_frames(drawn(9, 8), MOST + 4)
    assert clips.lengths["a"].max() > MOST
    with pytest.warns(UserWarning, match="at most 6 were seen in training"):
        found = OnnxModel(folder).predict_proba(clips)
    with pytest.warns(UserWarning, match="at most 6 were seen in training"):
        assert_allclose(found, method.predict_proba(clips), **CLOSE)


def test_what_a_clip_lacks_never_matters(zero):
    method, folder = zero
    exported = OnnxModel(folder)
    clips = with_frames(drawn(20, 9), MOST)
    mask = random_masks(20, 2, np.random.default_rng(0))
    spoiled = clips.with_features(l=1e4 * np.ones((20, 12)))
    only_audio = condition_mask("a", 20, clips.modalities)
    expected = exported.predict_proba(clips, only_audio)
    assert_array_equal(exported.predict_proba(spoiled, only_audio), expected)
    assert_allclose(
        exported.predict_proba(clips.hide(mask)), method.predict_proba(clips.hide(mask)), **CLOSE
    )
    text = Clips(clips.ids, {"l": clips.features["l"]})  # has no audio at all
    assert_allclose(exported.predict_proba(text), method.predict_proba(text), **CLOSE)


def test_weights_lie_in_the_files_which_name_nothing_of_the_machine(zero):
    _, folder = zero
    kinds = {path.suffix for path in folder.iterdir()}
    assert kinds == {".onnx", ".json"}
    for path in folder.glob("*.onnx"):
        model = onnx.load(path, load_external_data=False)
        onnx.checker.check_model(model)
        assert not [x.name for x in model.graph.initializer if x.external_data]
        assert not re.search(rb"\.py|site-packages|/home/|stack_trace", path.read_bytes())
    hidden = OnnxModel(folder).sessions["classifier.onnx"]
    assert [given.name for given in hidden.get_inputs()] == ["h", "available"]
    weights = (folder / "classifier.onnx").stat().st_size
    assert weights < 4 * (64 * 256 + 256 * 128 + 128 * 6 + 2000) + 10_000  # no encoder in it


@pytest.mark.parametrize("name", ["encoder-a.onnx", "onnx.json"])
def test_a_file_that_changed_or_is_missing_is_not_run(zero, name, tmp_path):
    folder = shutil.copytree(zero[1], tmp_path / "copy")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is not the file that was saved .its SHA-256"):
        OnnxModel(folder)
    (folder / name).unlink()
    with pytest.raises((ValueError, FileNotFoundError), match="is missing|is no export"):
        OnnxModel(folder)


@pytest.mark.parametrize(
    "name, classes", [("logistic", 2), ("one-logistic", 6), ("inverse-probability", 2)]
)
def test_regressions_agree_for_two_classes_and_more(name, classes, parts, tmp_path):
    train, dev = [clips[clips.labels < classes] for clips in parts]
    kept = train.classes[:classes]
    train, dev = [clips.in_classes(kept) for clips in (train, dev)]
    absent = np.arange(len(train))[:, None] % 5 == [0, 1]
    method = fitted(name, train.hide(~absent), dev)
    export_onnx(method, tmp_path / "exported")
    exported = OnnxModel(tmp_path / "exported")
    mask = random_masks(len(dev), 2, np.random.default_rng(0))
    assert_allclose(exported.predict_proba(dev, mask), method.predict_proba(dev, mask), **CLOSE)


def said_by(*arguments):
    "(exit code, what the command line says on either stream)."
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        with pytest.raises(SystemExit) as ended:
            main([*map(str, arguments)])
    return ended.value.code, out.getvalue()


def test_bad_input_is_one_line_and_leaves_nothing(parts, zero, tmp_path):
    fitted("prior", *parts).save(tmp_path / "prior")
    zero[0].save(tmp_path / "zero")
    (tmp_path / "there").mkdir()
    before = sorted(tmp_path.iterdir())
    cases = {
        ("nothing", "out"): "nothing holds no saved method",
        ("prior", "out"): "'prior' has neither encoders",
        ("zero", "there"): "there exists; choose another folder",
        ("zero", "there", "--replace"): "there holds no onnx.json",
    }
    for (model, out, *options), expected in cases.items():
        code, said = said_by("onnx", tmp_path / model, tmp_path / out, *options)
        assert code == 2 and expected in said and said.count("\n") == 1, said
    assert "these methods can be exported: zero, mean" in said_by(
        "onnx", tmp_path / "prior", tmp_path / "out"
    )[1].replace("\n", " ")
    with patch.dict(sys.modules, {"onnx": None}):
        sys.modules.pop("ramer.onnx_export")
        code, said = said_by("onnx", tmp_path / "zero", tmp_path / "out")
    assert code == 2 and "pip install 'ramer[onnx]'" in said
    assert sorted(tmp_path.iterdir()) == before


HOW_TO = (ROOT / "docs" / "onnx.md").read_text()
BLOCKS = page_blocks("docs/onnx.md")


def ran(kind, block, names):
    "What a block of the page prints."
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        if kind == "python":
            exec(block, names)
            return out.getvalue()
        for line in block.splitlines():
            with pytest.raises(SystemExit) as ended:
                main(shlex.split(line)[1:])
            assert not ended.value.code, line
    return ""


def test_the_how_to_runs_and_prints_what_it_shows(tmp_path, monkeypatch):
    train, dev = drawn(120, 1), drawn(60, 2)
    fitted("ramer", train, dev).save(tmp_path / "model")
    groups = np.char.add("speaker", (np.arange(60) % 12).astype(str))
    write_folder(Corpus(replace(dev, groups=groups)), tmp_path / "my-features")
    monkeypatch.chdir(tmp_path)
    names, printed = {}, ""
    for kind, block in BLOCKS:
        if kind == "text":
            assert printed == block
        else:
            printed = ran(kind, block, names)
    assert [kind for kind, _ in BLOCKS].count("text") == 3


def test_the_how_to_names_the_methods_that_answer_alone():
    named = set(re.findall(r"`([a-z-]+)`", HOW_TO.split("## Which methods")[1].split("##")[0]))
    assert named <= set(exportable())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, changes",
    [
        ("mean", {}),
        ("mean", {"unit_length": False, "width": 0}),
        ("distilled", {}),
        ("zero", {"layers": 2, "heads": 3}),
        ("store-mean", {}),
        ("ramer", {"query": "live"}),
        ("ramer", {"encoders": "frozen", "k": 3}),
        ("ramer-raw", {}),
        ("ramer-crossfit", {}),
        ("ramer-released", {}),
        ("ramer-gated", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value) or "default",
)
@pytest.mark.parametrize("frames", [True, False])
def test_every_kind_of_method_agrees(name, changes, frames, parts, tmp_path):
    clips = with_frames(drawn(40, 5), MOST)
    if not frames:
        parts, clips = [drawn(120, 1), drawn(50, 2)], drawn(40, 5)
    method = fitted(name, *parts, **changes)
    export_onnx(method, tmp_path / "exported")
    mask = random_masks(len(clips), 2, np.random.default_rng(0))
    found = by_onnx(method, OnnxModel(tmp_path / "exported"), clips, mask)
    assert_allclose(found, method.predict_proba(clips, mask), **CLOSE)
