"""Clips in a dictionary: what every store of clips has to agree with, whatever searches it."""

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from ramer.retrieval import approximate
from ramer.retrieval import store as stores
from ramer.retrieval.store import RetrievalStore

WIDTHS = {"a": 3, "v": 2}
NAMES = (
    *("", "ä", "日本", "a b", "nan", "None", "0", "00", "../x", '"', "'", "''", "\n", "\\", "\\'"),
    *("%41", "_", "`", "{}", "[1]", "--", "a\0b", "\u00e9", "e\u0301", "\u202e", "😀", "id"),
)
GROUPS = ("g", "ä g", "", "'", '"\\\n')
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
names = st.one_of(st.sampled_from(NAMES), st.text(characters, max_size=4))


class Clip(NamedTuple):
    "features: {modality: (H,)} of the modalities that it has."

    features: dict
    label: int
    group: str
    time: float


def coarse(generator, n):
    "Features with many ties: small whole numbers, so that equal, parallel and zero rows occur."
    return {m: generator.integers(-1, 2, (n, d)).astype(np.float32) for m, d in WIDTHS.items()}


def cosine(x, y):
    return float(x @ y) / max(np.linalg.norm(x) * np.linalg.norm(y), 1e-12)


class ListedClips:
    "The reference: {id: Clip}, changed like a store, and searched one by one."

    def __init__(self):
        self.clips = {}

    def add(self, ids, features, labels, groups, present, times):
        "Raises ValueError as a store does."
        if len(set(ids)) < len(ids) or set(ids) & set(self.clips):
            raise ValueError("an id is given twice")
        for (m, x), has in zip(features.items(), present.T):
            if x.shape[1] != WIDTHS[m] or not np.isfinite(x[has]).all():
                raise ValueError("features do not fit")
        for i, name in enumerate(ids):
            owned = {m: x[i] for (m, x), has in zip(features.items(), present[i]) if has}
            self.clips[name] = Clip(owned, int(labels[i]), groups[i], float(times[i]))

    def update(self, ids, features=None, labels=None):
        "Raises KeyError as a store does."
        if set(ids) - set(self.clips):
            raise KeyError("an id is not stored")
        for i, name in enumerate(ids):
            clip = self.clips[name]
            if features is not None:
                clip = clip._replace(features={m: x[i] for m, x in features.items()})
            if labels is not None:
                clip = clip._replace(label=int(labels[i]))
            self.clips[name] = clip

    def remove(self, ids=None, groups=None, before=None):
        "Raises KeyError as a store does."
        known = {clip.group for clip in self.clips.values()}
        if set(ids or ()) - set(self.clips) or set(groups or ()) - known:
            raise KeyError("an id or a group is not stored")
        for name, clip in list(self.clips.items()):
            is_asked = ids is None or name in ids
            is_asked &= groups is None or clip.group in groups
            if is_asked and (before is None or clip.time < before):
                del self.clips[name]

    def scores(self, queries, b, also, ids, groups):
        "{id: mean cosine} of the clips that query b may find."
        found = {}
        for name, clip in self.clips.items():
            is_able = {*queries, *also} <= set(clip.features)
            is_barred = ids is not None and ids[b] == name
            is_barred |= groups is not None and groups[b] == clip.group
            if is_able and not is_barred:
                cosines = [cosine(clip.features[m], x[b]) for m, x in queries.items()]
                found[name] = float(np.mean(cosines))
        return found


def assert_best(hits, scores, b, k):
    "Query b finds the k best of {id: score}; of equal ones those whose ids come first."
    ranked = sorted(scores, key=lambda name: (-round(scores[name], 5), name))[:k]
    found = hits.found[b]
    assert hits.ids[b][found].tolist() == ranked
    assert_allclose(hits.scores[b][found], [scores[name] for name in ranked], atol=1e-5)
    assert_padded(hits, b, len(ranked))


def assert_promised(hits, scores, b, k):
    "Query b finds k of {id: score}, the best first, with their own scores."
    found = hits.found[b]
    ids = hits.ids[b][found].tolist()
    assert len(ids) == min(k, len(scores)) == len(set(ids))
    assert set(ids) <= set(scores)
    assert_allclose(hits.scores[b][found], [scores[name] for name in ids], atol=1e-5)
    assert (np.diff(hits.scores[b][found]) < 1e-5).all()
    assert_padded(hits, b, len(ids))


def assert_padded(hits, b, n):
    "The first n columns of query b are filled, and the others hold nothing."
    assert hits.found[b].tolist() == [True] * n + [False] * (hits.ids.shape[1] - n)
    assert (hits.ids[b][n:] == "").all()
    assert (hits.scores[b][n:] == -np.inf).all()
    assert (hits.rows[b][n:] == -1).all()


def as_clips(ids, rows, labels, groups, present, times):
    "{id: Clip} of columns."
    clips = {}
    for i, name in enumerate(ids.tolist()):
        owned = {m: x[i] for (m, x), has in zip(rows.items(), present[i]) if has}
        clips[name] = Clip(owned, int(labels[i]), str(groups[i]), float(times[i]))
    return clips


def contents(store):
    "{id: Clip} of a store."
    if isinstance(store, RetrievalStore):
        columns = store.labels, store.groups, store.present, store.times
        return as_clips(store.ids, store.features, *columns)
    clips = store.described(store.ids)
    return as_clips(*clips)


def unit(x):
    return x / max(np.linalg.norm(x), 1e-12)


def assert_holds(store, listed):
    "The store holds the listed clips, and nothing else."
    held = contents(store)
    assert len(store) == len(store.ids) == len(listed.clips)
    assert held.keys() == listed.clips.keys()
    for name, clip in listed.clips.items():
        one = held[name]
        assert (one.label, one.group) == (clip.label, clip.group)
        assert one.time == clip.time or (np.isnan(one.time) and np.isnan(clip.time))
        assert one.features.keys() == clip.features.keys()
        for m, x in clip.features.items():
            assert_allclose(one.features[m], unit(x), atol=1e-6)


class Step(NamedTuple):
    "A change or a search, and what chance has to decide about it."

    kind: str
    ids: list
    seed: int


KINDS = (*["add"] * 6, "update", "relabel", "remove", "groups", "before", "bad", "search")
steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(KINDS),
        st.lists(names, min_size=1, max_size=8),
        st.integers(0, 2**32 - 1),
    ),
    min_size=4,
    max_size=16,
)


def columns_of(generator, n):
    "Columns of n clips to be added, by name."
    times = generator.integers(-2, 5, n).astype(float)
    times[generator.random(n) < 0.3] = np.nan
    return {
        "features": coarse(generator, n),
        "labels": generator.integers(-1, 4, n),
        "groups": [GROUPS[i] for i in generator.integers(0, len(GROUPS), n)],
        "present": generator.random((n, len(WIDTHS))) < 0.8,
        "times": times,
    }


def known_or_not(generator, listed, ids):
    "Ids that are stored where there are some, or now and then those given."
    known = sorted(listed.clips)
    if not known or generator.random() < 0.1:
        return ids
    return [known[i] for i in generator.integers(0, len(known), len(ids))]


def adding(generator, listed, ids):
    fresh = [name for name in dict.fromkeys(ids) if name not in listed.clips]
    return "add", {"ids": fresh} | columns_of(generator, len(fresh))


def updating(generator, listed, ids):
    ids = known_or_not(generator, listed, ids)
    change = {"ids": ids, "features": coarse(generator, len(ids))}
    if generator.random() < 0.5:
        change["labels"] = generator.integers(-1, 4, len(ids))
    return "update", change


def relabelling(generator, listed, ids):
    ids = known_or_not(generator, listed, ids)
    return "update", {"ids": ids, "labels": generator.integers(-1, 4, len(ids))}


def removing(generator, listed, ids):
    return "remove", {"ids": known_or_not(generator, listed, ids)}


def removing_groups(generator, listed, ids):
    groups = [GROUPS[i] for i in generator.integers(0, len(GROUPS), 2)]
    known = sorted({clip.group for clip in listed.clips.values()})
    if known and generator.random() < 0.8:
        groups = [known[i] for i in generator.integers(0, len(known), 2)]
    change: dict[str, Any] = {"groups": groups}
    if generator.random() < 0.5:
        change["ids"] = known_or_not(generator, listed, ids)
    if generator.random() < 0.5:
        change["before"] = float(generator.integers(-1, 5))
    return "remove", change


def removing_before(generator, listed, ids):
    times = (-np.inf, -1.5, 0.0, 2.0, np.inf, np.nan, 1e300, -1e-300)
    return "remove", {"before": times[generator.integers(len(times))]}


def spoiling(generator, listed, ids):
    "An addition that has to be refused."
    change = {"ids": [f"new{i}" for i in range(3)]} | columns_of(generator, 3)
    change["present"][:] = True
    fault = generator.integers(3)
    if fault == 0:
        change["features"]["v"][generator.integers(3), 0] = np.nan
    elif fault == 1:
        change["ids"][2] = change["ids"][0]
    else:
        known = known_or_not(generator, listed, ids[:1])
        change["ids"] = [known[0], "new1", known[0]]
    return "add", change


CHANGES = {
    "add": adding,
    "update": updating,
    "relabel": relabelling,
    "remove": removing,
    "groups": removing_groups,
    "before": removing_before,
    "bad": spoiling,
}


def refusal(owner, name, change):
    "The kind of error with which a change is refused, or None."
    try:
        getattr(owner, name)(**change)
    except (KeyError, ValueError) as error:
        return type(error)


def change_both(store, listed, step):
    "The same change of a store and of the listed clips, which both make, or both refuse."
    generator = np.random.default_rng(step.seed)
    name, change = CHANGES[step.kind](generator, listed, step.ids)
    assert refusal(store, name, change) == refusal(listed, name, change), (name, change)


def search_both(store, listed, seed, assert_found):
    "Some search of a store finds what it has to."
    generator = np.random.default_rng(seed)
    n = int(generator.integers(0, 4))
    asked = [["a"], ["v"], ["a", "v"], ["v", "a"]][generator.integers(4)]
    rows = coarse(generator, n)
    queries = {m: rows[m] for m in asked}
    also = [(), ("v",), ("a",), ("x",)][generator.integers(4)]
    k = int(generator.integers(1, 9))
    ids = groups = None
    if generator.random() < 0.5:
        ids = known_or_not(generator, listed, ["", "x", "y"][:n])
    if generator.random() < 0.5:
        groups = [(*GROUPS, "x")[i] for i in generator.integers(0, len(GROUPS) + 1, n)]
    hits = store.search(queries, k, also=also, exclude_ids=ids, exclude_groups=groups)
    assert hits.ids.shape == hits.scores.shape == hits.rows.shape == (n, k)
    wanted = set(also) & set(WIDTHS)
    for b in range(n):
        assert_found(hits, listed.scores(queries, b, wanted, ids, groups), b, k)


def follow(store, steps, assert_found):
    "Make changes of an empty store and of listed clips, and compare the two after each."
    listed = ListedClips()
    for step in steps:
        if step.kind != "search":
            change_both(store, listed, step)
        assert len(store) == len(listed.clips)
        if listed.clips:
            search_both(store, listed, step.seed, assert_found)
    assert_holds(store, listed)
    return listed


def index_always(patch, engine):
    "Let an approximate engine index the smallest store, and never give way to an exact search."
    patch.setattr(stores, "SMALLEST", 1)
    patch.setattr(approximate, "RECENT", 3)
    limits = dict.fromkeys(("limit", "limit_of_many"), lambda n: 10**6)
    always = approximate.ENGINES[engine]._replace(**limits)
    patch.setitem(approximate.ENGINES, engine, always)
