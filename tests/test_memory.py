"""What does not fit in memory stays on disk, and comes out the same."""
import subprocess, sys
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from ramer.conditions import random_masks
from ramer.controls import configure, make_method
from ramer.data import Clips, Rows
from ramer.folders import Corpus, read_folder, write_folder
from ramer.protocol import cut_dev, find_leaks
from ramer.worlds import WORLDS, sample


@pytest.fixture(scope="module")
def whole():
    clips = sample(WORLDS["gaussian"], 200, 0)
    labels = np.where(np.arange(200) % 3, clips.labels, -1)
    return Clips(clips.ids, clips.features | {"v": np.repeat(clips.features["v"][:, None], 3, 1)}, labels, clips.classes, [f"p{i // 5}" for i in range(200)], {"v": 1 + np.arange(200) % 3})


@pytest.mark.parametrize("lacking", [False, True])
@pytest.mark.parametrize("name", ["ramer-turbo", "ramer-e2e", "momke", "knn"])
def test_rows_of_a_mapped_folder_are_no_copies_and_learn_the_same(name, lacking, whole, tmp_path, monkeypatch):
    here = np.random.default_rng(0).random((200, 3)) < (.7 if lacking else 1)
    here[~here.any(1)] = True
    write_folder(Corpus(whole, here), tmp_path/"mine")
    garbage = np.load(tmp_path/"mine"/"l.npy")
    garbage[~here[:, 2]] = 7.
    np.save(tmp_path/"mine"/"l.npy", garbage)                                    # what stands on disk where a clip lacks its text
    monkeypatch.setattr("ramer.data.SMALL", 0)
    mapped, clips = read_folder(tmp_path/"mine").clips, whole.hide(here)
    assert mapped.hash() == clips.hash() and mapped.features["l"][~here[:, 2]].any() == False      # noqa: E712
    parts, copies = cut_dev(mapped, seed=0), cut_dev(clips, seed=0)
    assert all(isinstance(x, Rows) for part in parts for x in part.features.values())
    assert [p.hash() for p in parts] == [c.hash() for c in copies]
    mask, new = random_masks(40, 3, np.random.default_rng(0)), clips[:40].hide(np.ones((40, 3), bool))
    mask = np.where((mask & new.here).any(1, keepdims=True), mask, new.here)
    answers = [make_method(configure("gaussian", name, epochs=1)).fit(*some).predict_proba(new, mask) for some in (parts, copies)]
    assert_array_equal(*answers)
    assert find_leaks(*parts) == find_leaks(*copies)


PEAK = """
import sys, numpy as np
from ramer.folders import read_folder
from ramer.protocol import cut_dev
def own(): return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) // 1024
clips = read_folder(sys.argv[1]).clips
before = own()
train, dev = cut_dev(clips, 0)
print(own() - before, len(train) + len(dev), train.hash())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc")
def test_cutting_a_dev_part_off_a_large_pool_copies_nothing(tmp_path):
    n, d = 6000, 8192                                                            # 200 MB
    (tmp_path/"mine").mkdir()
    x = np.lib.format.open_memmap(tmp_path/"mine"/"l.npy", "w+", np.float32, (n, d))
    for i in range(0, n, 1000): x[i:i + 1000] = 1 + np.arange(i, i + 1000)[:, None]
    x.flush()
    (tmp_path/"mine"/"clips.csv").write_text("id,label\n" + "".join(f"c{i},{'ab'[i % 2]}\n" for i in range(n)))
    said = subprocess.run([sys.executable, "-c", PEAK, str(tmp_path/"mine")], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1]).stdout.split()
    assert int(said[0]) < 100 and said[1] == str(n)


def test_sequences_above_a_size_are_padded_in_a_file_that_vanishes(tmp_path, monkeypatch):
    import ramer.layouts as layouts
    rng = np.random.default_rng(0)
    (tmp_path/"clip-FRA").mkdir()
    for i in range(6): np.save(tmp_path/"clip-FRA"/f"c{i}.npy", rng.normal(size=(2 + i, 5)))
    (tmp_path/"clip-FRA"/"c6").mkdir()                                           # a clip in two files
    for part in "ab": np.save(tmp_path/"clip-FRA"/"c6"/f"{part}.npy", rng.normal(size=(2, 5)))
    np.savez(tmp_path/"label.npz", train_corpus=np.array({f"c{i}": {"emo": ("sad", "happy")[i % 2]} for i in range(8)}, object))
    (tmp_path/"temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path/"temporary"))
    read = lambda: layouts.read_mertools(tmp_path/"label.npz", {"v": tmp_path/"clip-FRA"}, frames=True)
    small = read()
    monkeypatch.setattr(layouts, "LARGE", 0)
    large = read()
    assert small.clips.hash() == large.clips.hash() and large.clips.lengths["v"].tolist() == [2, 3, 4, 5, 6, 7, 4, 1] and not large.here[7, 0]
    assert isinstance(large.clips.features["v"].base, np.memmap) and not isinstance(small.clips.features["v"].base, np.memmap)
    assert not list((tmp_path/"temporary").iterdir())
    for corpus, name in ((small, "one"), (large, "other")): write_folder(corpus, tmp_path/name)
    assert (tmp_path/"one"/"v.npy").read_bytes() == (tmp_path/"other"/"v.npy").read_bytes()
