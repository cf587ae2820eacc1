"""Every store of clips, in memory or outside of it, does what a dictionary of clips does."""

import logging
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from listed_clips import (
    WIDTHS,
    ListedClips,
    Step,
    assert_best,
    assert_holds,
    assert_promised,
    coarse,
    columns_of,
    follow,
    index_always,
    search_both,
    steps,
)
from numpy.testing import assert_array_equal

from ramer.retrieval import approximate, outside
from ramer.retrieval import store as stores
from ramer.retrieval.lance import LanceStore
from ramer.retrieval.milvus import MilvusStore
from ramer.retrieval.store import RetrievalStore

QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
SOME = settings(max_examples=50, deadline=None, suppress_health_check=QUIET)
FEW = settings(max_examples=10, deadline=None, suppress_health_check=QUIET)
MANY = settings(max_examples=200, deadline=None, suppress_health_check=QUIET)


def cleared(store):
    "The same store without its clips."
    if len(store):
        store.remove(store.ids)
    return store


class Memory:
    "Makes stores in memory."

    def __init__(self, engine):
        self.engine = engine

    @property
    def assert_found(self):
        return assert_best if self.engine == "exact" else assert_promised

    def new(self):
        return RetrievalStore(engine=self.engine)

    def close(self):
        pass


class Lance:
    "Makes stores in folders."

    def __init__(self, home):
        self.home = home
        self.n = 0

    def new(self):
        self.n += 1
        return self.open()

    def open(self):
        return LanceStore(self.home / f"störe {self.n}")

    def close(self):
        pass


class Milvus:
    "Makes one store in a file, which each test finds empty."

    def __init__(self, home):
        self.home = home
        self.store = None

    def new(self):
        self.store = cleared(self.open())
        return self.store

    def open(self):
        if self.store is not None and self.store._opened is not None:
            return self.store
        self.store = MilvusStore(str(self.home / "clips.db"))
        return self.store

    def close(self):
        if self.store is not None:
            self.store.close()


PACKAGES = {"lance": ("lancedb",), "milvus": ("pymilvus", "milvus_lite")}
MAKERS = {"lance": Lance, "milvus": Milvus}


def made(engine):
    "What makes stores of an engine, while it is needed. Skips where a package is missing."
    for package in PACKAGES.get(engine, ()):
        pytest.importorskip(package)
    with tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        if engine in approximate.ENGINES:
            index_always(patch, engine)
        maker = MAKERS[engine](Path(home)) if engine in MAKERS else Memory(engine)
        yield maker
        maker.close()


@pytest.fixture(scope="module", params=["exact", "hnsw", "ivf"])
def held(request):
    "What makes stores in memory."
    yield from made(request.param)


@pytest.fixture(scope="module", params=["lance", "milvus"])
def kept(request):
    "What makes stores outside of memory."
    yield from made(request.param)


@pytest.fixture
def small(monkeypatch):
    "A few clips are more than are looked for, or read, at once."
    monkeypatch.setattr(outside, "READ_BYTES", 1000)
    monkeypatch.setattr(outside, "FIRST", 2)
    monkeypatch.setattr(outside, "QUERIES", 2)


@SOME
@given(steps=steps)
def test_whatever_has_changed_a_store_in_memory_is_a_dictionary(held, steps):
    follow(held.new(), steps, held.assert_found)


@pytest.mark.slow
@MANY
@given(steps=steps)
def test_any_of_many_histories_in_memory_ends_in_a_dictionary(held, steps):
    follow(held.new(), steps, held.assert_found)


@FEW
@given(steps=steps)
def test_whatever_has_changed_a_store_outside_is_a_dictionary(kept, small, steps):
    follow(kept.new(), steps, assert_best)


@pytest.mark.slow
@MANY
@given(steps=steps)
def test_any_of_many_histories_outside_ends_in_a_dictionary(kept, small, steps):
    follow(kept.new(), steps, assert_best)


def filled(store, n=12, seed=0):
    "The store with n clips, and the listed clips that it holds."
    listed = ListedClips()
    columns = columns_of(np.random.default_rng(seed), n)
    for each in (store, listed):
        each.add([f"clip{i}" for i in range(n)], **columns)
    return store, listed


def test_the_comparison_notices_a_wrong_neighbour(held):
    store, listed = filled(held.new())
    queries = {"a": coarse(np.random.default_rng(1), 1)["a"]}
    hits = store.search(queries, 3)
    scores = listed.scores(queries, 0, (), None, None)
    held.assert_found(hits, scores, 0, 3)
    for wrong in (
        hits._replace(ids=hits.ids[:, [0, 0, 1]]),
        hits._replace(ids=np.array([["x", "y", "z"]])),
        hits._replace(scores=hits.scores + 0.01),
    ):
        with pytest.raises(AssertionError):
            held.assert_found(wrong, scores, 0, 3)


def test_a_store_that_is_opened_again_is_the_same(kept):
    store, listed = filled(kept.new())
    store.update(["clip3"], labels=[9])
    listed.update(["clip3"], labels=[9])
    store.compact()
    store.close()
    again = kept.open()
    assert again.dims == WIDTHS
    assert_holds(again, listed)
    for seed in range(5):
        search_both(again, listed, seed, assert_best)
    again.remove(["clip3"])
    assert len(again) == len(listed.clips) - 1


def test_a_closed_store_says_so(kept):
    store, _ = filled(kept.new())
    store.close()
    for use in (
        lambda: len(store),
        lambda: store.search({"a": np.ones((1, 3))}, 1),
        lambda: store.add(["x"], {m: np.ones((1, d)) for m, d in WIDTHS.items()}),
    ):
        with pytest.raises(ValueError, match="the store is closed; open it again"):
            use()
    kept.new()


def test_get_keeps_the_order_and_says_what_is_unknown(kept):
    store, listed = filled(kept.new())
    names = ["clip5", "clip0", "clip5"]
    rows = store.get(names)
    for m, width in WIDTHS.items():
        assert rows[m].shape == (3, width) and rows[m].dtype == np.float32
        assert_array_equal(rows[m][0], rows[m][2])
        if m not in listed.clips["clip5"].features:
            assert not rows[m][0].any()
    assert store.get([])["a"].shape == (0, 3)
    with pytest.raises(KeyError, match="id 'x' is not in the store of 12 clips"):
        store.get(["x"])


def rows(n, **other):
    return {m: np.ones((n, other.get(m, d))) for m, d in WIDTHS.items()}


BAD = {
    "an id twice": lambda s: s.add(["x", "x"], rows(2)),
    "a stored id": lambda s: s.add(["x", "clip1"], rows(2)),
    "a width": lambda s: s.add(["x"], rows(1, v=5)),
    "a modality": lambda s: s.add(["x"], {"l": np.ones((1, 2))}),
    "a modality less": lambda s: s.add(["x"], {"a": np.ones((1, 3))}),
    "nothing": lambda s: s.add(["x"], {}),
    "NaN": lambda s: s.add(["x"], rows(1) | {"v": [[np.nan, 1]]}),
    "infinity": lambda s: s.add(["x"], rows(1) | {"v": [[np.inf, 1]]}),
    "a time": lambda s: s.add(["x"], rows(1), times=[np.inf]),
    "labels": lambda s: s.add(["x"], rows(1), labels=[1, 2]),
    "label names": lambda s: s.add(["x"], rows(1), labels=["?"]),
    "groups": lambda s: s.add(["x"], rows(1), groups=["g", "h"]),
    "present": lambda s: s.add(["x"], rows(1), present=[[1, 1]]),
    "a surrogate": lambda s: s.add(["\ud800"], rows(1)),
    "an unknown id": lambda s: s.update(["clip1", "x"], labels=[1, 2]),
    "labels of an update": lambda s: s.update(["clip1"], rows(1), labels=[1, 2]),
    "a width of an update": lambda s: s.update(["clip1"], rows(1, a=4)),
    "NaN of an update": lambda s: s.update(["clip1"], rows(1) | {"v": [[np.nan, 1]]}),
    "nothing to remove": lambda s: s.remove(),
    "an unknown id to remove": lambda s: s.remove(["clip1", "x"]),
    "an unknown group": lambda s: s.remove(groups=["g", "x"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_refused_change_leaves_the_store_as_it_was(kept, name):
    store, listed = filled(kept.new())
    with pytest.raises((ValueError, KeyError)) as caught:
        BAD[name](store)
    assert len(str(caught.value)) > 20
    assert_holds(store, listed)


SEARCHES = {
    "NaN": ({"a": [[np.nan, 0, 0]]}, "queries of 'a' hold NaN"),
    "a width": ({"a": np.ones((1, 4))}, "expected (B, 3) as stored"),
    "a modality": ({"l": np.ones((1, 3))}, "expected some of a, v"),
    "nothing": ({}, "no modality"),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_bad_search_is_refused(kept, name):
    store, _ = filled(kept.new())
    queries, message = SEARCHES[name]
    with pytest.raises(ValueError) as caught:
        store.search(queries, 2)
    assert message in str(caught.value)


def test_an_empty_store_says_so(kept):
    store = kept.new()
    assert len(store) == 0 and store.ids.tolist() == []
    store.remove(before=5)
    with pytest.raises(ValueError, match="the store is empty"):
        store.search({"a": np.ones((1, 3))}, 1)
    with pytest.raises(KeyError, match="'x' is not in the store of 0 clips"):
        store.remove(["x"])


def test_an_emptied_store_takes_other_modalities(kept):
    store, _ = filled(kept.new())
    store.remove(store.ids)
    store.add(["x", "y"], {"l": np.eye(2, 4)})
    assert store.modalities == ("l",) and store.dims == {"l": 4}
    assert store.search({"l": np.eye(1, 4)}, 1).ids.tolist() == [["x"]]
    store.remove(["x", "y"])
    store.add(["z"], rows(1))
    assert store.dims == WIDTHS


def test_modalities_may_come_in_another_order(kept):
    store, _ = filled(kept.new())
    other = {"v": np.ones((1, 2)), "a": np.ones((1, 3))}
    store.add(["x"], other, present=[[True, False]])
    clip = store.described(["x"])
    assert clip.present.tolist() == [[False, True]] and store.modalities == ("a", "v")


def test_many_equal_clips_are_found_by_id(kept):
    "More than an engine is asked for at once, so that all clips have to be read."
    store = kept.new()
    n = 300
    order = np.random.default_rng(0).permutation(n)
    store.add([f"c{i:03}" for i in order], rows(n), groups=[f"g{i % 2}" for i in order])
    hits = store.search({"a": np.ones((2, 3))}, 3, exclude_groups=["g0", "none"])
    assert hits.ids.tolist() == [["c001", "c003", "c005"], ["c000", "c001", "c002"]]
    hits = store.search({"a": np.zeros((1, 3)), "v": np.zeros((1, 2))}, 2, exclude_ids="c000")
    assert hits.ids.tolist() == [["c001", "c002"]]


def test_an_excluded_group_is_left_out_by_the_engine(kept, monkeypatch):
    "Were it left out only of what the engine gives, none would be left, and all clips be read."
    store = kept.new()
    generator = np.random.default_rng(0)
    near = {m: 1 + generator.normal(size=(300, d)) / 100 for m, d in WIDTHS.items()}
    far = {m: generator.normal(size=(20, d)) for m, d in WIDTHS.items()}
    store.add([f"near{i}" for i in range(300)], near, groups="g")
    store.add([f"far{i}" for i in range(20)], far)
    monkeypatch.setattr(store, "_streamed", lambda asked: pytest.fail("all clips are read"))
    hits = store.search({"a": np.ones((1, 3))}, 5, exclude_groups="g")
    assert hits.found.all() and all(name.startswith("far") for name in hits.ids[0])


def test_removing_none_of_something_removes_nothing(kept):
    store, listed = filled(kept.new())
    store.remove([])
    store.remove(groups=[])
    store.remove(["clip1"], groups=[])
    store.update([], labels=[])
    store.add([], {m: np.empty((0, d)) for m, d in WIDTHS.items()})
    assert_holds(store, listed)


def test_a_text_is_one_id(kept):
    store, listed = filled(kept.new())
    assert_array_equal(store.get("clip5")["a"], store.get(["clip5"])["a"])
    store.add("xy", {m: np.ones((1, d)) for m, d in WIDTHS.items()})
    store.update("xy", labels=[1])
    for name in ("x", "y"):
        store.add(name, {m: np.ones((1, d)) for m, d in WIDTHS.items()})
    store.remove("xy")
    assert set(store.ids) == {*listed.clips, "x", "y"}
    with pytest.raises(KeyError, match="id 'xy' is not in the store"):
        store.get("xy")


def drawn(generator, n, width=16):
    "Features in which some clips are near others."
    hidden = generator.normal(size=(n, 4))
    features = {}
    for m in WIDTHS:
        mixed = hidden @ generator.normal(size=(4, width))
        features[m] = (mixed + generator.normal(size=(n, width)) / 2).astype(np.float32)
    return features


@pytest.fixture(scope="module", params=["lance", pytest.param("milvus", marks=pytest.mark.slow)])
def indexable(request):
    "What makes stores with indexes, which takes milvus-lite long."
    yield from made(request.param)


@pytest.fixture
def indexed(indexable, monkeypatch):
    "A store that is large enough to be indexed, and the same in memory."
    monkeypatch.setattr(outside, "SAMPLE", 100)
    generator = np.random.default_rng(0)
    features = drawn(generator, 1500)
    ids = np.array([f"clip{i}" for i in range(1500)])
    groups = [f"g{i % 3}" for i in range(1500)]
    present = generator.random((1500, 2)) < 0.9
    store, same = indexable.new(), RetrievalStore()
    for each in (store, same):
        each.add(ids, features, groups=groups, present=present)
    yield store, same, {m: x[:40] for m, x in features.items()}
    cleared(store)


def share_found(store, same, queries, k, **excluded):
    "The share of the k nearest clips that a store finds; none is left out, or wrong."
    hits = store.search(queries, k, **excluded)
    best = same.search(queries, k, **excluded)
    assert hits.found.all()
    for found, scores in zip(hits.ids, hits.scores):
        assert len(set(found)) == k
        assert set(found) <= set(same.ids)
        assert (np.diff(scores) < 1e-5).all()
    return np.mean(hits.scores >= best.scores[:, -1:] - 1e-5)


@pytest.mark.parametrize("kind", ["hnsw", "pq", "ivf"])
def test_an_index_finds_the_share_that_is_asked_for(indexed, kind):
    store, same, queries = indexed
    if kind not in store.kinds:
        pytest.skip(f"{type(store).__name__} has no index {kind!r}")
    reached = store.index(kind)
    assert len(reached) == 3  # a, v and both
    assert any(each.effort for each in reached.values())
    assert all(each.recall >= 0.99 for each in reached.values() if each.effort)
    groups = [f"g{i % 4}" for i in range(40)]
    for asked in ("a", "v", "av"):
        some = {m: queries[m] for m in asked}
        assert share_found(store, same, some, 5) >= 0.95
        one = {m: x[7:8] for m, x in some.items()}  # finds the same, whatever else is asked
        assert store.search(one, 5).ids.tolist() == store.search(some, 5).ids[[7]].tolist()
        assert share_found(store, same, some, 5, exclude_groups=groups) >= 0.95
    for each in (store, same):
        each.remove(groups=["g1"])
        each.update(["clip0"], {m: x[:1] + 1 for m, x in queries.items()})
        each.add(["new"], {m: x[:1] for m, x in queries.items()})
    assert share_found(store, same, queries, 5) >= 0.95
    assert store.search(queries, 1).ids[0, 0] == "new"


def test_where_an_index_finds_too_few_the_search_is_exact(indexed, monkeypatch):
    store, same, queries = indexed
    store.index("hnsw")
    assert all(each.effort for each in store.reached.values())
    some = {"a": queries["a"][:8]}
    store.search(some, 30)  # so that its recall is measured
    assert all(each.effort for each in store.reached.values())
    found = type(store)._near

    def near(modality, asked, *rest):
        few = found(store, modality, asked, *rest)
        few.keys[1:] = [each[:2] for each in few.keys[1:]]
        return few

    monkeypatch.setattr(store, "_near", near)
    monkeypatch.setattr(outside, "QUERIES", 3)
    assert_array_equal(store.search(some, 30).ids, same.search(some, 30).ids)


def test_what_other_queries_find_does_not_raise_the_recall(indexed, monkeypatch):
    store, _, queries = indexed
    store.index("hnsw")
    monkeypatch.setattr(outside, "FIRST", 2)
    units = {m: stores.unit(x) for m, x in queries.items()}
    asked = outside.Asked(units, 4, ())
    together, _ = store._look(asked, effort=1)
    for row in range(10):
        alone, _ = store._look(asked.of(slice(row, row + 1)), effort=1)
        assert alone.ids.tolist() == together.ids[[row]].tolist()


def test_below_the_target_the_search_is_exact_and_says_so(indexed, monkeypatch, caplog):
    store, same, queries = indexed
    monkeypatch.setattr(store, "efforts", (1, 10**6))
    monkeypatch.setattr(outside, "recall_of", lambda found, exact: 0.5)
    with caplog.at_level(logging.WARNING, logger="ramer"):
        reached = store.index("hnsw")
    assert all(each.effort == 0 for each in reached.values())
    message = "the index finds 0.500 of the 8 nearest clips by a+v, 0.990 are asked for; "
    assert f"{message}the search is exact" in caplog.messages
    for asked in ("a", "av"):
        some = {m: queries[m] for m in asked}
        assert_array_equal(store.search(some, 7).ids, same.search(some, 7).ids)


def test_few_clips_are_not_indexed(kept, caplog):
    store, listed = filled(kept.new())
    with caplog.at_level(logging.INFO, logger="ramer"):
        assert store.index("hnsw") == {}
    assert "a store of 12 clips is searched exactly, without an index" in caplog.messages
    search_both(store, listed, 0, assert_best)


def test_an_unknown_index_is_named_with_the_nearest(kept):
    with pytest.raises(ValueError, match="did you mean 'hnsw'"):
        kept.new().index("hnws")


def test_a_history_goes_on_in_a_store_that_is_opened_again(kept):
    store = kept.new()
    listed = follow(
        store, [Step("add", ["", "ä", "'"], 1), Step("add", ['"', "\n"], 2)], assert_best
    )
    store.close()
    assert_holds(kept.open(), listed)


@pytest.mark.parametrize("recall", [0, 1.5])
def test_a_target_of_recall_lies_between_zero_and_one(recall, tmp_path):
    for make in (LanceStore, MilvusStore):
        with pytest.raises(ValueError, match="the target of recall"):
            make(str(tmp_path / "x.db"), recall=recall)


@pytest.mark.parametrize("extra", ["lance", "milvus"])
def test_a_missing_package_is_named_with_its_extra(extra, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, PACKAGES[extra][0], None)
    make = {"lance": LanceStore, "milvus": MilvusStore}[extra]
    with pytest.raises(ImportError) as caught:
        make(str(tmp_path / "x.db"))
    assert f"pip install 'ramer[{extra}]'" in str(caught.value)


def test_folders_that_hold_no_lance_store_are_refused(tmp_path):
    lancedb = pytest.importorskip("lancedb")
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        LanceStore(tmp_path / "nowhere" / "store")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="file is a file"):
        LanceStore(tmp_path / "file")
    with pytest.raises(ValueError, match="holds 'file' and no LanceStore"):
        LanceStore(tmp_path)
    other = tmp_path / "other"
    lancedb.connect(str(other)).create_table("clips", [{"x": 1}])
    with pytest.raises(ValueError, match="no LanceStore of this format wrote"):
        LanceStore(other)
    for path in other.rglob("*.manifest"):
        path.write_bytes(b"x")
    with pytest.raises(ValueError, match="other cannot be read as a LanceStore"):
        LanceStore(other)


def test_addresses_that_hold_no_milvus_store_are_refused(tmp_path):
    pymilvus = pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        MilvusStore(str(tmp_path / "nowhere" / "x.db"))
    with pytest.raises(ValueError, match="neither a server's nor a file"):
        MilvusStore(str(tmp_path / "x"))
    with pytest.raises(ValueError, match="'my clips' is no name for Milvus"):
        MilvusStore(str(tmp_path / "x.db"), "my clips")
    client = pymilvus.MilvusClient(str(tmp_path / "x.db"))
    client.create_collection("other", dimension=2)
    with pytest.raises(ValueError, match="collection 'other' .* holds something else than clips"):
        MilvusStore(str(tmp_path / "x.db"), "other")
    store = MilvusStore(str(tmp_path / "x.db"))
    with pytest.raises(ValueError, match="bytes once encoded, expected at most 65534"):
        store.add(["ä" * 20_000], rows(1))
    store.close()


def test_no_server_is_said_in_one_sentence():
    pytest.importorskip("pymilvus")
    with pytest.raises(ConnectionError, match="no Milvus answers at http://127.0.0.1:1;"):
        MilvusStore("http://127.0.0.1:1")


def test_a_modality_that_cannot_name_a_column_is_refused(kept):
    with pytest.raises(ValueError, match="modality 'a b' cannot name a column"):
        kept.new().add(["x"], {"a b": np.ones((1, 2))})
