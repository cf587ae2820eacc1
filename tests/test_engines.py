"""An approximate engine keeps every promise of a store but that all of the nearest are found."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from test_store_properties import cosine

from ramer.retrieval import approximate
from ramer.retrieval import store as stores
from ramer.retrieval.store import Exclusion, RetrievalStore

WIDTHS = {"a": 8, "v": 4}
HISTORIES = settings(max_examples=200, deadline=None)
change = st.sampled_from(["add", "add", "update", "relabel", "remove"])
step = st.tuples(change, st.integers(0, 2**32 - 1))


@pytest.fixture(scope="module", params=["hnsw", "ivf"])
def engine(request):
    "An engine that indexes the smallest store, and never gives way to an exact search."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stores, "SMALLEST", 1)
        patch.setattr(approximate, "RECENT", 3)
        chosen = approximate.ENGINES[request.param]
        always = chosen._replace(limit=lambda n: 10**6)
        patch.setitem(approximate.ENGINES, request.param, always)
        yield request.param


def drawn(generator, n):
    return {m: generator.normal(size=(n, d)).astype(np.float32) for m, d in WIDTHS.items()}


def change_both(store, clips, change, seed):
    "The same change of a store and of a dictionary {id: ({modality: row}, label, group)}."
    generator = np.random.default_rng(seed)
    known = sorted(clips)
    if change == "add" or not known:
        names = [f"clip{seed}-{i}" for i in range(generator.integers(1, 6))]
        names = [name for name in names if name not in clips]
        rows = drawn(generator, len(names))
        labels = generator.integers(-1, 4, len(names))
        groups = [f"g{i}" for i in generator.integers(0, 4, len(names))]
        store.add(names, rows, labels, groups)
        for i, name in enumerate(names):
            clips[name] = ({m: x[i] for m, x in rows.items()}, labels[i], groups[i])
        return
    name = known[generator.integers(len(known))]
    rows, label, group = clips[name]
    if change == "remove":
        store.remove([name])
        del clips[name]
    elif change == "relabel":
        store.update([name], labels=[2])
        clips[name] = rows, 2, group
    else:
        new = drawn(generator, 1)
        store.update([name], new)
        clips[name] = {m: x[0] for m, x in new.items()}, label, group


def assert_keeps_its_promises(store, clips, queries, k, groups):
    "K hits wherever K clips are left; true scores, the best first; nothing that is left out."
    hits = store.search(queries, k, Exclusion(groups=groups))
    for b, group in enumerate(groups):
        left = [name for name, clip in clips.items() if clip[2] != group]
        found = hits.ids[b][hits.found[b]].tolist()
        assert len(found) == min(k, len(left)) == len(set(found))
        assert set(found) <= set(left)
        true = []
        for name in found:
            cosines = [cosine(clips[name][0][m], x[b]) for m, x in queries.items()]
            true.append(np.mean(cosines))
        assert_allclose(hits.scores[b][: len(found)], true, atol=1e-5)
        assert (np.diff(hits.scores[b][: len(found)]) < 1e-5).all()


@HISTORIES
@given(
    steps=st.lists(step, min_size=1, max_size=15),
    k=st.integers(1, 9),
    searched=st.sampled_from(["a", "v", "av"]),
)
def test_whatever_has_changed_hits_are_those_of_a_dictionary(engine, steps, k, searched):
    store, clips = RetrievalStore(engine=engine), {}
    queries = {m: x for m, x in drawn(np.random.default_rng(0), 3).items() if m in searched}
    for change, seed in steps:
        change_both(store, clips, change, seed)
        if clips:
            assert_keeps_its_promises(store, clips, queries, k, ["g0", "g1", "none"])
    assert sorted(store.ids) == sorted(clips)
    for name, (_, label, group) in clips.items():
        row = store.rows([name])[0]
        assert (store.labels[row], store.groups[row]) == (label, group)


def test_the_histories_search_by_the_index(engine):
    store, clips = RetrievalStore(engine=engine), {}
    for seed in range(8):
        change_both(store, clips, "add", seed)
    store.search({"a": drawn(np.random.default_rng(0), 1)["a"]}, 2)
    assert store.reached and all(reached.effort for reached in store.reached.values())


def test_recall_is_measured_again_when_the_index_is_worn(engine):
    store = RetrievalStore(engine=engine)
    rows = drawn(np.random.default_rng(0), 60)
    names = np.array([f"clip{i}" for i in range(60)])
    store.add(names, rows)
    store.search({"a": rows["a"]}, 3)
    built = store.approximate().by_modality["a"]
    store.remove(names[:40])
    hits = store.search({"a": rows["a"]}, 3)
    assert store.approximate().by_modality["a"] is not built
    assert set(hits.ids.ravel()) <= set(names[40:])


def test_recall_is_measured_again_when_the_store_has_doubled(engine):
    store = RetrievalStore(engine=engine)
    rows = drawn(np.random.default_rng(0), 90)
    for start in range(0, 90, 10):
        names = [f"clip{i}" for i in range(start, start + 10)]
        store.add(names, {m: x[start : start + 10] for m, x in rows.items()})
        store.search({"a": rows["a"]}, 3)
    (indexed,) = store.approximate().by_modality.values()
    assert 10 < indexed.n_built <= len(store)
    store.search({"a": rows["a"]}, 3)
    assert store.approximate().by_modality["a"] is indexed  # nothing has changed since
