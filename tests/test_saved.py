"A method on disk: whole or refused, there whatever is killed, and nothing left behind."

import json
import os
import signal
import stat
import time
import warnings

import numpy as np
import pytest

from ramer.data.datasets import load_dataset
from ramer.evaluation.protocol import Protocol
from ramer.io import sign_folder
from ramer.methods.registry import configure, load_method, make_method

KILLS = (20, pytest.param(100, marks=pytest.mark.slow))


@pytest.fixture(scope="module")
def protocol():
    return Protocol(load_dataset("gaussian"), fold=0, seed=0)


@pytest.fixture(scope="module")
def methods(protocol):
    "Two small fitted methods with a store, which answer differently."
    few, some = protocol.train[:120], protocol.dev[:40]
    configs = [configure("gaussian", "ramer-gated", seed=seed, epochs=1) for seed in (0, 1)]
    return [make_method(config).fit(few, some) for config in configs]


@pytest.fixture
def saved(methods, tmp_path):
    methods[0].save(tmp_path / "model")
    return tmp_path / "model"


def files_of(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_flipped_bit_anywhere_is_refused(saved):
    generator = np.random.default_rng(0)
    for path in files_of(saved):
        whole = path.read_bytes()
        for _ in range(20):
            changed = bytearray(whole)
            changed[generator.integers(len(whole))] ^= 1 << generator.integers(8)
            path.write_bytes(changed)
            with pytest.raises(ValueError, match="is not the file that was saved|model format"):
                load_method(saved)
        path.write_bytes(whole)
    load_method(saved)


@pytest.mark.parametrize("share", [0, 0.5])
def test_a_file_that_is_cut_or_missing_is_refused(saved, share):
    for path in files_of(saved):
        whole = path.read_bytes()
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match="is not the file that was saved"):
            load_method(saved)
        path.unlink()
        with pytest.raises(ValueError, match="it is missing|is missing|without checksums"):
            load_method(saved)
        path.write_bytes(whole)


def test_a_newer_format_is_refused_by_name(saved):
    (saved / "manifest.json").unlink()
    sign_folder(saved, 2)
    with pytest.raises(ValueError, match="has model format 2, .* install a newer ramer"):
        load_method(saved)


def test_a_folder_of_the_first_version_is_read_with_a_warning(saved, methods, protocol):
    (saved / "manifest.json").unlink()
    facts = json.loads((saved / "model.json").read_text())
    del facts["about"]
    (saved / "model.json").write_text(json.dumps(facts))
    with pytest.warns(UserWarning, match="without checksums"):
        loaded = load_method(saved)
    assert (loaded.predict(protocol.dev) == methods[0].predict(protocol.dev)).all()


def test_permissions_follow_the_umask(methods, tmp_path):
    before = os.umask(0o027)
    try:
        methods[0].save(tmp_path / "model")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o750
    for path in files_of(tmp_path / "model"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_the_card_says_what_the_model_learned_from(saved, protocol):
    card = (saved / "README.md").read_text()
    assert "120 train clips (120 labelled)" in card
    assert all(name in card for name in protocol.classes)
    assert "features, labels, ids and groups of 120 clips" in card


def seconds_of_a_save(method, path):
    "In a child, whose memory is copied as it is written to: slower than here."
    start = time.perf_counter()
    child = os.fork()
    if not child:
        method.save(path, replace_existing=True)
        os._exit(0)
    os.waitpid(child, 0)
    return time.perf_counter() - start


def save_for_ever(methods, path):
    "In a child: save one method after the other over the same folder. Returns the child's number."
    child = os.fork()
    if child:
        return child
    while True:
        for method in methods:
            method.save(path, replace_existing=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked here")
@pytest.mark.parametrize("kills", KILLS)
def test_kills_lose_nothing_and_leave_nothing(kills, methods, protocol, tmp_path):
    path = tmp_path / "model"
    methods[0].save(path)
    answers = [method.predict_proba(protocol.dev) for method in methods]
    generator = np.random.default_rng(0)
    seen, left = set(), 0
    warnings.simplefilter("ignore")  # a fork beside threads, none of which computes
    taken = np.median([seconds_of_a_save(methods[0], path) for _ in range(5)])
    for i in range(kills):
        child = save_for_ever(methods if i % 2 else methods[::-1], path)
        time.sleep(generator.uniform(0.1 * taken, 1.3 * taken))  # within a save, or after it
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert path.exists()
        left += len(list(tmp_path.iterdir())) > 1
        answer = load_method(path).predict_proba(protocol.dev)
        seen |= {i for i, expected in enumerate(answers) if np.array_equal(answer, expected)}
        assert any(np.array_equal(answer, expected) for expected in answers)
        assert [beside.name for beside in tmp_path.iterdir()] == ["model"]
    assert left  # some were killed in the middle
    assert seen == {0, 1}
