"""A durable store loses nothing that it acknowledged, finds every damage, and is read meanwhile."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from house import page_blocks
from hypothesis import given, settings
from hypothesis import strategies as st
from test_store_properties import assert_equal_stores, change_clips, change_store, listed

from ramer.retrieval import durable
from ramer.retrieval.durable import CHANGES, DurableStore, generations, keep_store, store_facts
from ramer.retrieval.store import RetrievalStore, load_store

seeds = st.integers(0, 2**32 - 1)
what = st.sampled_from(["add", "add", "update", "relabel", "remove", "compact", "reopen"])
step = st.tuples(what, st.sampled_from(["ä", "日本", "a b", "\n", ""]), seeds)
histories = st.lists(step, max_size=15)


def journal_of(folder):
    return generations(folder)[max(generations(folder))] / CHANGES


@pytest.mark.parametrize("unit_length", [True, False])
@settings(max_examples=30, deadline=None)
@given(steps=histories)
def test_any_history_is_read_back_by_another_program(unit_length, steps):
    assert_read_back(unit_length, steps)


@pytest.mark.slow
@pytest.mark.parametrize("unit_length", [True, False])
@settings(max_examples=200, deadline=None)
@given(steps=histories)
def test_any_of_many_histories_is_read_back_by_another_program(unit_length, steps):
    assert_read_back(unit_length, steps)


def assert_read_back(unit_length, steps):
    "A durable store is a dictionary of clips to its writer, a reader, and whoever opens it later."
    reference = listed([], 0)
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home, "störe")
        keep_store(RetrievalStore(unit_length), folder)
        writer = DurableStore(folder, writes=True)
        reader = DurableStore(folder)
        for change, name, seed in steps:
            clip = listed([name], seed).clips[name]
            if change == "compact":
                writer.compact()
            elif change == "reopen":
                writer.close()
                writer = DurableStore(folder, writes=True)
            elif (change == "add") == (name in reference.clips):
                with pytest.raises((KeyError, ValueError)):
                    change_store(writer, change, name, clip)
            else:
                change_store(writer, change, name, clip)
                change_clips(reference.clips, change, name, clip)
            reader.refresh()
            assert sorted(reader.ids) == sorted(reference.clips)
        writer.close()
        for store in (reader, DurableStore(folder)):
            if reference.clips:
                assert_equal_stores(store, reference.stored(unit_length))
            store.close()
        assert store_facts(folder)["clips"] == len(reference.clips)


@pytest.fixture
def kept(tmp_path):
    "The folder of a durable store with a snapshot and a few changes."
    keep_store(listed(["p", "q", "r"], 0).stored(), tmp_path / "kept")
    with DurableStore(tmp_path / "kept", writes=True) as store:
        for change, name in (("add", "s"), ("update", "p"), ("relabel", "q"), ("remove", "r")):
            change_store(store, change, name, listed([name], 1).clips[name])
    return tmp_path / "kept"


def test_every_flipped_region_is_found(kept):
    files = [path for path in kept.rglob("*") if path.is_file()]
    assert len(files) == 4
    for path in files:
        whole = path.read_bytes()
        every = 1 if path.name == CHANGES else 5
        for at in range(0, len(whole), every):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
            with pytest.raises(ValueError, match="is not the file that was|expected|format"):
                DurableStore(kept)
        path.write_bytes(whole)
    assert len(DurableStore(kept)) == 3


def test_every_cut_is_found(kept):
    path = journal_of(kept)
    whole = path.read_bytes()
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is not the file that was written"):
            DurableStore(kept, writes=True)


def test_a_journal_of_another_snapshot_is_refused(kept, tmp_path):
    keep_store(listed(["x"], 5).stored(), tmp_path / "other")
    shutil.copy(journal_of(kept), journal_of(tmp_path / "other"))
    with pytest.raises(ValueError, match="its mark does not fit the snapshot"):
        DurableStore(tmp_path / "other")


def write_until_killed(folder, told):
    "Add, correct and remove clips; tell of each when it is acknowledged."
    with DurableStore(folder, writes=True) as store:
        os.write(told, b"open\n")
        first = int(max(store.times, default=-1)) + 1
        for i in range(first, first + 10_000):
            rows = {"a": np.full((1, 3), i + 1.0), "v": np.ones((1, 2))}
            store.add([f"clip{i}"], rows, times=i)
            os.write(told, f"add {i}\n".encode())
            if i % 3 == 0:
                store.remove([f"clip{i}"])
                os.write(told, f"remove {i}\n".encode())
            if i % 10 == 9:
                store.compact()


def killed_after(folder, seconds, is_open):
    "What a writer told before it was killed, some time after it began, or after it had opened."
    hear, told = os.pipe()
    writer = os.fork()
    if not writer:
        try:
            write_until_killed(folder, told)
        finally:
            os._exit(1)
    os.close(told)
    opened = os.read(hear, 5) if is_open else b"open\n"
    assert opened == b"open\n"
    time.sleep(seconds)
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    with os.fdopen(hear) as heard:
        return [line for line in heard.read().splitlines() if line != "open"]


@pytest.mark.parametrize("kills", [25, pytest.param(100, marks=pytest.mark.slow)])
def test_kills_lose_nothing_that_was_acknowledged(kills, tmp_path):
    folder = tmp_path / "kept"
    keep_store(RetrievalStore(), folder)
    generator = np.random.default_rng(0)
    stored, acknowledged = set(), 0
    for i in range(kills):
        lines = killed_after(folder, generator.uniform(0.001, 0.03), is_open=i % 4 > 0)
        acknowledged += len(lines)
        for line in lines:
            command, number = line.split()
            change = stored.add if command == "add" else stored.remove
            change(f"clip{number}")
        with DurableStore(folder) as reader:
            assert len(set(reader.ids.tolist()) ^ stored) <= 1  # killed before it told
        with DurableStore(folder, writes=True) as writer:  # takes in what is whole
            found = set(writer.ids.tolist())
        assert len(found ^ stored) <= 1
        stored = found
    assert acknowledged > kills
    with DurableStore(folder, writes=True) as store:
        store.compact()
    assert len(list(folder.iterdir())) == 1  # nothing that a kill left is there


def test_a_full_disk_leaves_the_store_as_it_was(kept, monkeypatch):
    before = journal_of(kept).read_bytes()
    with DurableStore(kept, writes=True) as store:
        real = os.pwrite

        def half(handle, content, start):
            if len(content) > 24:
                real(handle, content[:10], start)
                raise OSError(28, "No space left on device")
            return real(handle, content, start)

        monkeypatch.setattr(os, "pwrite", half)
        with pytest.raises(OSError, match="No space left"):
            store.add(["late"], listed(["late"], 2).stored().get(["late"]))
        monkeypatch.setattr(os, "pwrite", real)
        assert journal_of(kept).read_bytes() == before
        assert "late" not in store.row_of
        store.add(["late"], listed(["late"], 2).stored().get(["late"]))
    assert "late" in DurableStore(kept).row_of


def test_a_change_that_is_stopped_in_the_middle_is_made_or_not(kept, monkeypatch):
    late = listed(["late"], 2).stored().get(["late"])
    with DurableStore(kept, writes=True) as store:
        real = RetrievalStore._append_names

        def stop(self, ids, groups):
            monkeypatch.setattr(RetrievalStore, "_append_names", real)
            raise KeyboardInterrupt

        monkeypatch.setattr(RetrievalStore, "_append_names", stop)
        with pytest.raises(KeyboardInterrupt):
            store.add(["late"], late)
        assert_equal_stores(store, DurableStore(kept))
        assert len(store) == len(store.labels) == 4


def test_a_store_saved_plainly_can_be_kept_and_exported(kept, tmp_path):
    saved = tmp_path / "saved"
    durable.save_store(durable.open_store(kept), saved)
    keep_store(load_store(saved), tmp_path / "again")
    assert_equal_stores(DurableStore(tmp_path / "again"), DurableStore(kept))


READER = """
import sys, time
import numpy as np
from ramer.retrieval.durable import DurableStore
store, until = DurableStore(sys.argv[1]), time.time() + float(sys.argv[2])
searched = 0
while time.time() < until:
    store.refresh()
    hits = store.search({"a": np.ones((1, 3)), "v": np.ones((1, 2))}, 8)
    pairs = [name.partition("-")[0] for name in hits.ids[0] if name.startswith("pair")]
    assert all(pairs.count(name) == 2 for name in pairs), pairs
    searched += 1
print(searched)
"""


def read_beside_a_writer(folder, seconds, processes=4, threads=4):
    "How often each reader searched while clips came and went in pairs."
    keep_store(listed(["p", "q"], 0).stored(), folder)
    command = [sys.executable, "-c", READER, str(folder), str(seconds)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    readers = [subprocess.Popen(command, **pipes) for _ in range(processes)]
    rows = {"a": np.ones((2, 3)), "v": np.ones((2, 2))}
    counts, faults, is_over = [], [], threading.Event()

    def search():
        searched = 0
        while not is_over.is_set():
            hits = writer.search({"a": np.ones((1, 3))}, 8)
            if sum(name.startswith("pair") for name in hits.ids[0]) % 2:
                faults.append(hits.ids)
            searched += 1
        counts.append(searched)

    with DurableStore(folder, writes=True) as writer:
        searching = [threading.Thread(target=search) for _ in range(threads)]
        for thread in searching:
            thread.start()
        written = 0
        while any(reader.poll() is None for reader in readers):
            names = [f"pair{written}-0", f"pair{written}-1"]
            writer.add(names, rows)
            writer.remove(names)
            written += 1
            if written % 50 == 0:
                writer.compact()
        is_over.set()
        for thread in searching:
            thread.join()
    answers = [reader.communicate() for reader in readers]
    assert not any(error for _, error in answers), answers
    assert not faults and written > 10
    return counts + [int(searched) for searched, _ in answers]


def test_readers_see_whole_changes_only(tmp_path):
    searched = read_beside_a_writer(tmp_path / "kept", seconds=1, processes=2, threads=2)
    assert len(searched) == 4 and min(searched) > 3


@pytest.mark.slow
def test_eight_readers_for_a_minute(tmp_path):
    searched = read_beside_a_writer(tmp_path / "kept", seconds=60)
    assert len(searched) == 8 and min(searched) > 100


def test_the_page_of_stores_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    (block,) = page_blocks("docs/stores.md", "python")
    monkeypatch.chdir(tmp_path)
    exec(block, {})
    assert "c3" in capsys.readouterr().out


def test_a_reader_keeps_what_it_has_when_the_folder_is_damaged_or_gone(kept):
    reader = DurableStore(kept)
    with DurableStore(kept, writes=True) as writer:
        writer.compact()
    path = next(kept.rglob("rows.safetensors"))
    path.write_bytes(b"?" + path.read_bytes()[1:])
    with pytest.raises(ValueError, match="is not the file that was saved"):
        reader.refresh()
    assert len(reader) == 3
    shutil.rmtree(kept)
    with pytest.raises(FileNotFoundError, match="holds no durable store"):
        reader.refresh()
    assert reader.search({"a": np.ones((1, 3))}, 3).found.all()
