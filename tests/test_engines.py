"""An approximate engine measures what it finds, and again after much has changed.

That it keeps all other promises of a store is tested in test_conformance.
"""

import numpy as np
import pytest
from listed_clips import index_always

from ramer.retrieval.store import RetrievalStore

WIDTHS = {"a": 8, "v": 4}


@pytest.fixture(scope="module", params=["hnsw", "ivf"])
def engine(request):
    "An engine that indexes the smallest store, and never gives way to an exact search."
    with pytest.MonkeyPatch.context() as patch:
        index_always(patch, request.param)
        yield request.param


def drawn(generator, n):
    return {m: generator.normal(size=(n, d)).astype(np.float32) for m, d in WIDTHS.items()}


def test_a_small_store_is_searched_by_the_index(engine):
    store, rows = RetrievalStore(engine=engine), drawn(np.random.default_rng(0), 30)
    store.add([f"clip{i}" for i in range(30)], rows)
    store.search({"a": rows["a"][:1]}, 2)
    assert store.reached and all(reached.effort for reached in store.reached.values())


def test_recall_is_measured_again_when_the_index_is_worn(engine):
    store = RetrievalStore(engine=engine)
    rows = drawn(np.random.default_rng(0), 60)
    names = np.array([f"clip{i}" for i in range(60)])
    store.add(names, rows)
    store.search({"a": rows["a"]}, 3)
    built = store.approximate().by_modalities[("a",)]
    store.remove(names[:40])
    hits = store.search({"a": rows["a"]}, 3)
    assert store.approximate().by_modalities[("a",)] is not built
    assert set(hits.ids.ravel()) <= set(names[40:])


def test_recall_is_measured_again_when_the_store_has_doubled(engine):
    store = RetrievalStore(engine=engine)
    rows = drawn(np.random.default_rng(0), 90)
    for start in range(0, 90, 10):
        names = [f"clip{i}" for i in range(start, start + 10)]
        store.add(names, {m: x[start : start + 10] for m, x in rows.items()})
        store.search({"a": rows["a"]}, 3)
    (indexed,) = store.approximate().by_modalities.values()
    assert 10 < indexed.n_built <= len(store)
    store.search({"a": rows["a"]}, 3)
    assert store.approximate().by_modalities[("a",)] is indexed  # nothing has changed since
