"""An approximate engine measures what it finds, and again after much has changed.

That it keeps all other promises of a store is tested in test_conformance.
"""

import pickle

import numpy as np
import pytest
import torch
from listed_clips import index_always
from pretended_gpu import GPU, pretended_gpu

from ramer.data.worlds import WORLDS, sample
from ramer.methods.config import OPTIONS, Config
from ramer.methods.registry import load_method, make_method
from ramer.retrieval.store import IN_MEMORY, Exclusion, RetrievalStore

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


def test_a_gpu_finds_what_the_processor_finds():
    generator = np.random.default_rng(0)
    rows = drawn(generator, 600)
    rows["v"][:200] = rows["v"][0]  # equal clips
    present = generator.random((600, 2)) < (1, 0.3)
    store = RetrievalStore(device=str(GPU))
    store.add(
        [f"clip{i:03d}" for i in range(600)], rows, groups=np.arange(600) // 3, present=present
    )
    plain = pickle.loads(pickle.dumps(store))
    plain.device = torch.device("cpu")
    for asked in ("a", "v", "av"):
        queries = {m: x[:40] for m, x in rows.items() if m in asked}
        own = Exclusion(ids=store.ids[:40], groups=store.groups[:40])
        expected = plain.search(queries, 5, own)
        with pretended_gpu() as gpu:
            hits = store.search(queries, 5, own)
        assert gpu.count
        np.testing.assert_array_equal(hits.ids, expected.ids)
        np.testing.assert_allclose(hits.scores, expected.scores, atol=1e-6)
    store.remove(store.ids[:300])
    with pretended_gpu():
        assert not set(store.search({"a": rows["a"][:40]}, 5).ids.ravel()) & set(plain.ids[:300])


def test_a_method_is_searched_by_the_engine_of_its_config(engine, tmp_path):
    train, dev, test = [sample(WORLDS["prototypes"], n, n, prefix=f"{n}-") for n in (150, 60, 40)]
    small = {"width": 8, "hidden": 16, "epochs": 1}
    by_engine = {}
    for name in ("exact", engine):
        config = Config(method="ramer", engine=name, **small)
        by_engine[name] = make_method(config).fit(train, dev)
    exact, fast = by_engine["exact"], by_engine[engine]
    assert {("a",), ("a", "l")} <= {combination.asked for combination in fast.store.reached}
    assert not exact.store.reached
    found = [method.explain(test, "a").ids for method in (exact, fast)]
    assert np.mean(found[0] == found[1]) > 0.9
    fast.save(tmp_path / "saved")
    assert load_method(tmp_path / "saved").store.engine == engine


def test_a_config_names_the_engines_of_a_store():
    assert set(OPTIONS["engine"]) == set(IN_MEMORY)
