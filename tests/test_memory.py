"""What does not fit in memory stays on disk, and comes out the same."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from ramer.conditions import random_masks
from ramer.data import layouts
from ramer.data.arrays import Rows
from ramer.data.clips import Clips
from ramer.data.folders import Corpus, read_folder, write_folder
from ramer.data.worlds import WORLDS, sample
from ramer.evaluation.audit import find_leaks
from ramer.evaluation.protocol import cut_dev
from ramer.methods.registry import configure, make_method


@pytest.fixture(scope="module")
def whole():
    clips = sample(WORLDS["gaussian"], 200, 0)
    labels = np.where(np.arange(200) % 3, clips.labels, -1)
    return Clips(
        clips.ids,
        clips.features | {"v": np.repeat(clips.features["v"][:, None], 3, 1)},
        labels,
        clips.classes,
        [f"p{i // 5}" for i in range(200)],
        {"v": 1 + np.arange(200) % 3},
    )


@pytest.mark.parametrize("lacking", [False, True])
@pytest.mark.parametrize("name", ["ramer-turbo", "ramer-gated", "momke", "knn"])
def test_rows_of_a_mapped_folder_are_no_copies_and_learn_the_same(
    name, lacking, whole, tmp_path, monkeypatch
):
    present = np.random.default_rng(0).random((200, 3)) < (0.7 if lacking else 1)
    present[~present.any(1)] = True
    write_folder(Corpus(whole.hide(present)), tmp_path / "mine")
    garbage = np.load(tmp_path / "mine" / "l.npy")
    garbage[~present[:, 2]] = 7.0
    np.save(tmp_path / "mine" / "l.npy", garbage)  # what stands on disk where a clip lacks its text
    monkeypatch.setattr("ramer.data.arrays.SMALL", 0)
    mapped = read_folder(tmp_path / "mine").clips
    clips = whole.hide(present)
    assert mapped.hash() == clips.hash()
    assert not mapped.features["l"][~present[:, 2]].any()
    parts = cut_dev(mapped, seed=0)
    copies = cut_dev(clips, seed=0)
    features = [x for part in parts for x in part.features.values()]
    assert all(isinstance(x, Rows) for x in features)
    assert [part.hash() for part in parts] == [copy.hash() for copy in copies]
    new = clips[:40].hide(np.ones((40, 3), bool))
    mask = random_masks(40, 3, np.random.default_rng(0))
    mask = np.where((mask & new.present).any(1, keepdims=True), mask, new.present)
    config = configure("gaussian", name, epochs=1)
    answers = [make_method(config).fit(*pair).predict_proba(new, mask) for pair in (parts, copies)]
    assert_array_equal(*answers)
    assert find_leaks(*parts) == find_leaks(*copies)


PEAK = """
import sys, numpy as np
from ramer.data.folders import read_folder
from ramer.evaluation.protocol import cut_dev
def own():
    lines = open("/proc/self/status").read().splitlines()
    (anonymous,) = [line for line in lines if line.startswith("RssAnon")]
    return int(anonymous.split()[1]) // 1024
clips = read_folder(sys.argv[1]).clips
before = own()
train, dev = cut_dev(clips, 0)
print(own() - before, len(train) + len(dev), train.hash())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_cutting_a_dev_part_off_a_large_pool_copies_nothing(tmp_path):
    n, d = 6000, 8192  # 200 MB
    (tmp_path / "mine").mkdir()
    x = np.lib.format.open_memmap(tmp_path / "mine" / "l.npy", "w+", np.float32, (n, d))
    for i in range(0, n, 1000):
        x[i : i + 1000] = 1 + np.arange(i, i + 1000)[:, None]
    x.flush()
    lines = [f"c{i},{'ab'[i % 2]}\n" for i in range(n)]
    (tmp_path / "mine" / "clips.csv").write_text("id,label\n" + "".join(lines))
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path / "mine")],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    megabytes, n_clips, _ = done.stdout.split()
    assert int(megabytes) < 100
    assert n_clips == str(n)


def write_mertools(folder):
    "A label file of eight clips, and frames of seven, one of them in two files."
    rng = np.random.default_rng(0)
    (folder / "clip-FRA").mkdir()
    for i in range(6):
        np.save(folder / "clip-FRA" / f"c{i}.npy", rng.normal(size=(2 + i, 5)))
    (folder / "clip-FRA" / "c6").mkdir()
    for part in "ab":
        np.save(folder / "clip-FRA" / "c6" / f"{part}.npy", rng.normal(size=(2, 5)))
    labels = {f"c{i}": {"emo": ("sad", "happy")[i % 2]} for i in range(8)}
    np.savez(folder / "label.npz", train_corpus=np.array(labels, object))


def test_sequences_above_a_size_are_padded_in_a_file_that_vanishes(tmp_path, monkeypatch):
    write_mertools(tmp_path)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))

    def read():
        folders = {"v": tmp_path / "clip-FRA"}
        return layouts.read_mertools(tmp_path / "label.npz", folders, frames=True)

    small = read()
    monkeypatch.setattr(layouts, "LARGE", 0)
    large = read()
    assert small.clips.hash() == large.clips.hash()
    assert large.clips.lengths["v"].tolist() == [2, 3, 4, 5, 6, 7, 4, 1]
    assert not large.present[7, 0]
    assert isinstance(large.clips.features["v"].base, np.memmap)
    assert not isinstance(small.clips.features["v"].base, np.memmap)
    assert not list((tmp_path / "temporary").iterdir())
    for corpus, name in ((small, "one"), (large, "other")):
        write_folder(corpus, tmp_path / name)
    assert (tmp_path / "one" / "v.npy").read_bytes() == (tmp_path / "other" / "v.npy").read_bytes()
