"""A store finds what a naive search finds, whatever was added, changed, removed or saved."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file, save_file

from ramer.retrieval.store import RetrievalStore, load_store, save_store

QUICK = settings(max_examples=60, deadline=None)
WIDTHS = {"a": 3, "v": 2}
NAMES = ("", "ä", "日本", "a b", "nan", "None", "0", "00", "../x", '"', "\n", "\u00e9", "e\u0301")
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
names = st.one_of(st.sampled_from(NAMES), st.text(characters, max_size=4))
seeds = st.integers(0, 2**32 - 1)


def coarse(generator, n):
    "Features with many ties: small whole numbers, so that equal, parallel and zero rows occur."
    return {m: generator.integers(-1, 2, (n, d)).astype(np.float32) for m, d in WIDTHS.items()}


@dataclass
class Listed:
    "The reference: clips in a dictionary {id: (features, label, group)}, searched one by one."

    clips: dict

    def cosines(self, queries, ids=None, groups=None):
        "(B, N) mean cosine over the queried modalities, -inf where excluded."
        n_queries = len(next(iter(queries.values())))
        out = np.full((n_queries, len(self.clips)), -np.inf)
        for b in range(n_queries):
            for n, (name, (features, _, group)) in enumerate(self.clips.items()):
                is_banned_id = ids is not None and ids[b] == name
                is_banned_group = groups is not None and groups[b] == group
                if not is_banned_id and not is_banned_group:
                    out[b, n] = np.mean([cosine(features[m], q[b]) for m, q in queries.items()])
        return out

    def stored(self, unit_length=True):
        "A store into which these clips are put at once."
        store = RetrievalStore(unit_length)
        if self.clips:
            put(store, self.clips)
        return store


def cosine(x, y):
    return float(x @ y) / max(np.linalg.norm(x) * np.linalg.norm(y), 1e-12)


def put(store, clips):
    rows, labels, groups = zip(*clips.values())
    features = {}
    for m in WIDTHS:
        features[m] = np.stack([row[m] for row in rows])
    store.add(list(clips), features, labels, groups)


def listed(ids, seed, groups=3):
    generator = np.random.default_rng(seed)
    features = coarse(generator, len(ids))
    clips = {}
    for i, name in enumerate(ids):
        row = {m: x[i] for m, x in features.items()}
        label = int(generator.integers(-1, 4))
        clips[name] = (row, label, f"g{generator.integers(groups)}")
    return Listed(clips)


def assert_same_neighbours(hits, cosines, ids, k):
    """The k best of the reference, in any order inside a tie, any choice from the tie that k cuts.

    Every hit has its own cosine, the cosines are the k best, no clip comes twice, and the rest is
    padding.
    """
    best = np.pad(-np.sort(-cosines, axis=1), ((0, 0), (0, k)), constant_values=-np.inf)[:, :k]
    assert_allclose(hits.scores, best, atol=1e-5)
    assert_array_equal(hits.found, best > -np.inf)
    for row, found, scores, own in zip(hits.rows, hits.found, hits.scores, cosines):
        assert len(set(row[found])) == found.sum()
        assert (row[~found] == -1).all()
        assert_allclose(own[row[found]], scores[found], atol=1e-5)
    assert_array_equal(hits.ids, np.where(hits.found, np.array(ids)[hits.rows], ""))


@QUICK
@given(
    n=st.integers(1, 25),
    b=st.integers(1, 6),
    k=st.integers(1, 40),
    seed=seeds,
    unit_length=st.booleans(),
    excluded=st.sets(st.sampled_from(["ids", "groups"])),
    available=st.sets(st.sampled_from(["a", "v"]), min_size=1),
)
def test_search_finds_what_a_look_at_every_clip_finds(
    n, b, k, seed, excluded, available, unit_length
):
    generator = np.random.default_rng(seed + 1)
    reference = listed([f"c{i}" for i in range(n)], seed)
    queries = {m: x for m, x in coarse(generator, b).items() if m in available}
    bans = {
        "ids": [f"c{i}" for i in generator.integers(0, n + 2, b)],  # the last two are not stored
        "groups": [f"g{i}" for i in generator.integers(0, 5, b)],
    }
    bans = {column: bans[column] for column in excluded}
    exclusions = {f"exclude_{column}": values for column, values in bans.items()}
    hits = reference.stored(unit_length).search(queries, k, **exclusions)
    assert_same_neighbours(hits, reference.cosines(queries, **bans), list(reference.clips), k)


def test_the_comparison_notices_a_wrong_neighbour():
    reference = listed([f"c{i}" for i in range(20)], seed=1)
    queries = coarse(np.random.default_rng(2), 3)
    hits = reference.stored().search(queries, 5)
    cosines = reference.cosines(queries)
    ids = list(reference.clips)
    assert_same_neighbours(hits, cosines, ids, 5)
    worst = np.argsort(cosines, axis=1)
    for wrong in (
        hits._replace(rows=worst[:, :5]),
        hits._replace(rows=hits.rows[:, [0, 0, 1, 2, 3]]),
        hits._replace(ids=hits.ids[::-1]),
        hits._replace(scores=hits.scores + 0.01),
    ):
        with pytest.raises(AssertionError):
            assert_same_neighbours(wrong, cosines, ids, 5)


@QUICK
@given(n=st.integers(1, 25), k=st.integers(1, 12), seed=seeds, excluded=st.booleans())
def test_of_equal_clips_those_whose_ids_come_first_are_found(n, k, seed, excluded):
    generator = np.random.default_rng(seed)
    reference = listed([f"c{i}" for i in generator.permutation(n)], seed)
    queries = coarse(generator, 3)
    groups = ["g0", "g1", "none"] if excluded else None
    hits = reference.stored().search(queries, k, exclude_groups=groups)
    for scores, found in zip(hits.scores, hits.ids):
        for tie in np.unique(scores[scores > -np.inf]):
            tied = found[np.abs(scores - tie) < 1e-7]
            assert list(tied) == sorted(tied)
    shuffled = Listed(dict(sorted(reference.clips.items())))
    again = shuffled.stored().search(queries, k, exclude_groups=groups)
    assert_array_equal(hits.ids, again.ids)  # whatever the order in which they were stored


@QUICK
@given(seed=seeds, b=st.integers(2, 6), cut=st.integers(1, 5))
def test_queries_are_answered_one_by_one(seed, b, cut):
    "Neither the other queries nor a larger k change what a query finds, up to ties."
    store = listed([f"c{i}" for i in range(15)], seed).stored()
    queries = coarse(np.random.default_rng(seed + 1), b)
    together = store.search(queries, 10).best(cut)
    alone = []
    for i in range(b):
        query = {m: x[i : i + 1] for m, x in queries.items()}
        alone.append(store.search(query, cut).scores)
    assert_allclose(np.concatenate(alone), together.scores, atol=1e-5)


change = st.sampled_from(["add", "update", "relabel", "remove"])
step = st.tuples(change, st.sampled_from(NAMES[1:4]), seeds)


def change_store(store, change, name, clip):
    "Add, update, relabel or remove one clip (features, label, group)."
    features, label, _ = clip
    if change == "add":
        put(store, {name: clip})
    elif change == "update":
        store.update([name], {m: x[None] for m, x in features.items()}, [label])
    elif change == "relabel":
        store.update([name], labels=[label])
    else:
        store.remove([name])


def change_clips(clips, change, name, clip):
    "The same change in a dictionary {id: clip}; what is updated keeps its group."
    features, label, _ = clip
    old = clips.get(name, clip)
    if change == "remove":
        del clips[name]
    elif change == "relabel":
        clips[name] = (old[0], label, old[2])
    else:
        clips[name] = (features, label, old[2])


def assert_equal_stores(one, other):
    "The same clips, in whatever order."
    at, there = np.argsort(one.ids), np.argsort(other.ids)
    for column in ("ids", "labels", "groups"):
        assert_array_equal(getattr(one, column)[at], getattr(other, column)[there])
    assert one.modalities == other.modalities
    assert one.unit_length == other.unit_length
    for m in one.modalities:
        assert_array_equal(one.features[m][at], other.features[m][there])


@QUICK
@given(steps=st.lists(step, max_size=25), unit_length=st.booleans())
def test_any_history_of_changes_ends_in_the_store_that_holds_the_result(steps, unit_length):
    reference = Listed({})
    queries = coarse(np.random.default_rng(0), 2)
    store = reference.stored(unit_length)
    for change, name, seed in steps:
        clip = listed([name], seed).clips[name]
        if (change == "add") == (name in reference.clips):
            with pytest.raises((KeyError, ValueError)):
                change_store(store, change, name, clip)
        else:
            change_store(store, change, name, clip)
            change_clips(reference.clips, change, name, clip)
        if reference.clips:  # so that an old index would show
            hits = store.search(queries, 4)
            order = [list(reference.clips).index(name) for name in store.ids]
            assert_same_neighbours(hits, reference.cosines(queries)[:, order], store.ids, 4)
    if reference.clips:
        assert_equal_stores(store, reference.stored(unit_length))
    else:
        assert len(store) == 0


@QUICK
@given(
    ids=st.lists(names, min_size=1, max_size=8, unique=True), seed=seeds, unit_length=st.booleans()
)
def test_a_saved_store_comes_back_whole_and_goes_on(ids, seed, unit_length):
    store = listed(ids, seed).stored(unit_length)
    queries = coarse(np.random.default_rng(seed + 1), 3)
    with tempfile.TemporaryDirectory() as home:
        save_store(store, Path(home) / "störe")
        loaded = load_store(Path(home) / "störe")
    assert_equal_stores(loaded, store)
    found = loaded.search(queries, 4, exclude_ids=ids[0])
    expected = store.search(queries, 4, exclude_ids=ids[0])
    for one, other in zip(found, expected):
        assert_array_equal(one, other)
    for each in (loaded, store):
        each.update(ids[:1], coarse(np.random.default_rng(5), 1), [3])
        each.remove(ids[1:2])
    assert_equal_stores(loaded, store)


def test_groups_are_left_out_after_any_change():
    store = RetrievalStore()
    rng = np.random.default_rng(0)
    group_of = {}
    for step in range(200):
        gone = [name for name in group_of if rng.random() < 0.2]
        store.remove(gone)
        for name in gone:
            del group_of[name]
        new = {f"clip{step}-{i}": f"speaker{rng.integers(6)}" for i in range(3)}
        store.add(list(new), coarse(rng, 3), groups=list(new.values()))
        group_of |= new
        assert dict(zip(store.ids.tolist(), store.groups.tolist())) == group_of
        queries = coarse(rng, 4)
        asked = [f"speaker{i}" for i in rng.integers(0, 8, 4)]
        hits = store.search(queries, 5, exclude_groups=asked)
        left = [sum(group != name for group in group_of.values()) for name in asked]
        assert_array_equal(hits.found.sum(1), np.minimum(left, 5))
        for found, name in zip(hits.ids, asked):
            assert name not in [group_of[clip] for clip in found if clip]
    assert set(store.group_numbers.numbers) == set(group_of.values())


@pytest.mark.parametrize("unit_length", [True, False])
def test_a_store_shares_no_memory_with_what_it_was_given(unit_length):
    given = {m: np.ones((2, d), np.float32) for m, d in WIDTHS.items()}
    store = RetrievalStore(unit_length)
    store.add(["x", "y"], given)
    store.update(["x"], {m: -np.ones((1, d), np.float32) for m, d in WIDTHS.items()})
    assert all((x == 1).all() for x in given.values()), "update changed the caller's array"
    for x in given.values():
        x[:] = 7
    for m, x in store.get(["y"]).items():
        assert_allclose(x, 1 / np.sqrt(WIDTHS[m]) if unit_length else 1, rtol=1e-6)


@pytest.mark.parametrize(
    "columns",
    [{"labels": [1]}, {"labels": ["?"] * 3}, {"groups": ["g"]}, {"groups": ["g"] * 4}],
    ids=str,
)
def test_a_refused_addition_leaves_the_store_as_it_was(columns):
    store = listed(["x", "y"], 0).stored()
    reference = listed(["x", "y"], 0).stored()
    with pytest.raises(ValueError):
        store.add(["p", "q", "r"], coarse(np.random.default_rng(1), 3), **columns)
    assert_equal_stores(store, reference)


def test_a_refused_update_leaves_the_store_as_it_was():
    store = listed(["x", "y"], 0).stored()
    reference = listed(["x", "y"], 0).stored()
    features = {m: 5 + np.arange(d)[None] for m, d in WIDTHS.items()}
    with pytest.raises(ValueError):
        store.update(["x"], features, labels=[1, 2])
    assert_equal_stores(store, reference)


def test_an_id_given_twice_is_named():
    rows = coarse(np.random.default_rng(0), 3)
    with pytest.raises(ValueError, match="'y' is given twice"):
        RetrievalStore().add(["x", "y", "y"], rows)


FILES = ("manifest.json", "clips.json", "rows.safetensors")


@pytest.fixture
def saved(tmp_path):
    "A saved store whose modalities have equal widths, so that nothing but care tells them apart."
    store = RetrievalStore(unit_length=False)
    generator = np.random.default_rng(0)
    features = {m: generator.normal(size=(6, 4)) for m in "av"}
    store.add([f"c{i}" for i in range(6)], features, np.arange(6), list("gghhii"))
    save_store(store, tmp_path / "store")
    return tmp_path / "store"


def assert_refused(folder):
    "Loading ends in one error that names the folder; a reader of the message needs nothing else."
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load_store(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_refused(name, share, saved):
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: int(share * len(content))])
    assert_refused(saved)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(name, saved):
    (saved / name).unlink()
    assert_refused(saved)


def test_a_missing_folder_is_refused(tmp_path):
    assert_refused(tmp_path / "nowhere")


def test_files_of_another_store_are_refused(saved):
    rows = load_file(saved / "rows.safetensors")
    turned = {name: x[::-1].copy() for name, x in rows.items()}
    save_file(turned, saved / "rows.safetensors")
    assert_refused(saved)
    renamed = (saved / "clips.json").read_text().replace("c0", "c9")
    (saved / "clips.json").write_text(renamed)
    assert_refused(saved)


MANIFEST = {
    "format": lambda m: {"format": 2},
    "count": lambda m: {"count": 5},
    "a width": lambda m: {"dims": {"a": 4, "v": 5}},
    "a name": lambda m: {"dims": {"a": 4, "l": 4}},
    "names in another order": lambda m: {"dims": {"v": 4, "a": 4}},
    "one name less": lambda m: {"dims": {"a": 4}},
    "one name more": lambda m: {"dims": {"a": 4, "v": 4, "l": 4}},
    "unit_length": lambda m: {"unit_length": True},
    "a hash": lambda m: {"sha256": m["sha256"] | {"clips.json": "0"}},
    "no hash": lambda m: {"sha256": {}},
}


@pytest.mark.parametrize("change", MANIFEST)
def test_a_changed_manifest_is_refused(change, saved):
    manifest = json.loads((saved / "manifest.json").read_text())
    changed = manifest | MANIFEST[change](manifest)
    (saved / "manifest.json").write_text(json.dumps(changed))
    assert_refused(saved)


@pytest.mark.parametrize("key", ["format", "count", "dims", "unit_length", "sha256"])
def test_a_manifest_without_a_key_is_refused(key, saved):
    manifest = json.loads((saved / "manifest.json").read_text())
    del manifest[key]
    (saved / "manifest.json").write_text(json.dumps(manifest))
    assert_refused(saved)
