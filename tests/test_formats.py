"""A file on disk ends in a valid Corpus or in one clear error that names it; it is never run."""

import io
import os
import pickle
import zipfile
from pathlib import Path
from functools import partial

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ramer.data.clips import Clips, Provenance
from ramer.data.folders import Corpus, inspect, read_folder, write_folder
from ramer.data.layouts import read_gcnet, read_mertools, read_mmsa
from ramer.data.unpickle import read_object_arrays, unpickle

MANY = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
NAMES = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\\\0"),
    min_size=1,
    max_size=12,
)


def write_mer(folder, labels, features):
    "A MERTools label file and a feature folder. labels: {id: emotion}; features: {id: array}."
    folder.mkdir(parents=True)
    (folder / "x-UTT").mkdir()
    np.savez(
        folder / "label.npz",
        train_corpus=np.array(
            {name: {"emo": emotion, "val": -10} for name, emotion in labels.items()}, dtype=object
        ),
    )
    for name, x in features.items():
        np.save(folder / "x-UTT" / f"{name}.npy", x)
    return folder / "label.npz", {"a": folder / "x-UTT"}


def valid_or_clear(read, *names):
    "What `read` gives, or None if it raised one sentence that holds one of the names."
    try:
        corpus = read()
    except (ValueError, FileNotFoundError) as error:
        assert "\n" not in str(error).strip() and any(str(name) in str(error) for name in names), (
            error
        )
        return None
    assert np.isfinite(
        np.concatenate([x.ravel() for x in corpus.clips.features.values()])
    ).all() and corpus.present.shape == (len(corpus), len(corpus.clips.modalities))
    inspect(corpus)
    return corpus


@MANY
@given(
    names=st.lists(NAMES, min_size=2, max_size=6, unique=True),
    seed=st.integers(0, 99),
    lengths=st.booleans(),
    split=st.sampled_from(["", "train", "test"]),
    data=st.data(),
)
def test_any_corpus_comes_back_from_its_folder_bit_for_bit(
    names, seed, lengths, split, data, tmp_path_factory
):
    rng, n = np.random.default_rng(seed), len(names)
    features = {
        "v": rng.normal(size=(n, 3)).astype(np.float32),
        "a": rng.normal(size=(n, 4, 2)).astype(np.float32),
    }
    present = data.draw(
        arrays(bool, (n, 2), elements=st.booleans()).filter(lambda m: m.any(0).all())
    )
    labels = data.draw(arrays(np.int64, n, elements=st.integers(-1, 1)))
    clips = Clips(
        names,
        features,
        labels,
        ("ünglücklich", "1.0"),
        data.draw(st.lists(NAMES, min_size=n, max_size=n)),
        {"a": rng.integers(1, 5, n) if lengths else np.full(n, 4)},
        {"v": Provenance("x", saw_labels=True)},
    )
    corpus = Corpus(clips.hide(present), [split] * n, rng.integers(-1, 3, n), ("odd",))
    folder = tmp_path_factory.mktemp("folder") / "mine"
    write_folder(corpus, folder)
    again = read_folder(folder)
    assert (
        again.present.tolist() == present.tolist()
        and again.clips.ids.tolist() == list(names)
        and again.clips.groups.tolist() == clips.groups.tolist()
    )
    assert (
        again.clips.labels.tolist() == labels.tolist()
        and again.clips.classes == clips.classes
        and again.fold.tolist() == corpus.fold.tolist()
        and again.clips.provenance == clips.provenance
    )
    for i, m in enumerate(clips.modalities):
        assert (
            again.clips.features[m][present[:, i]].tobytes() == features[m][present[:, i]].tobytes()
        )
    assert (
        again.clips.lengths["a"][present[:, 1]].tolist()
        == clips.lengths["a"][present[:, 1]].tolist()
    )


@MANY
@given(table=st.text(max_size=80))
def test_any_text_as_the_table_of_clips(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    (folder / "clips.csv").write_text(table, encoding="utf-8", newline="")
    np.save(folder / "a.npy", np.ones((2, 3)))
    valid_or_clear(lambda: read_folder(folder), folder)


@MANY
@example(cut=0, flip=4, kind="parquet")  # pyarrow's own message has several lines
@given(
    cut=st.integers(0, 400),
    flip=st.integers(0, 400),
    kind=st.sampled_from(["npy", "npz", "safetensors", "parquet"]),
)
def test_a_damaged_feature_file_is_named(cut, flip, kind, tmp_path_factory):
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    folder, rows = (
        tmp_path_factory.mktemp("folder"),
        {name: np.arange(3, dtype=np.float32) + i for i, name in enumerate("xyz")},
    )
    (folder / "clips.csv").write_text("id,label\nx,p\ny,q\nz,p\n")
    path = folder / f"a.{kind}"
    if kind == "npy":
        np.save(path, np.stack(list(rows.values())))
    elif kind == "npz":
        np.savez(path, **rows)
    elif kind == "safetensors":
        from safetensors.numpy import save_file

        save_file(rows, path)
    else:
        pd.DataFrame(rows).T.rename_axis("id").reset_index().rename(columns=str).to_parquet(path)
    held = bytearray(path.read_bytes())
    if flip < len(held):
        held[flip] ^= 0xFF
    path.write_bytes(held[: max(0, len(held) - cut)])
    valid_or_clear(lambda: read_folder(folder), folder)


def mmsa_part(name, rng):
    "Two clips of one video, as MMSA keeps a split."
    return {
        "id": [f"{name}$_$0", f"{name}$_$1"],
        "text": rng.normal(size=(2, 3, 4)),
        "audio": rng.normal(size=(2, 3, 2)),
        "vision": rng.normal(size=(2, 3, 2)),
        "regression_labels": np.array([-1.0, 1.0]),
    }


def write_gcnet(folder, rng):
    "Two clips in each part of a fold, as GCNet keeps them."
    for name in ("target", "A", "V", "L"):
        (folder / name / "1").mkdir(parents=True)
    for i, part in enumerate(("trn", "val", "tst")):
        names = np.array([[f"Ses0{i}F_x_F000"], [f"Ses0{i}F_x_M001"]], "S")
        np.save(folder / "target" / "1" / f"{part}_int2name.npy", names)
        np.save(folder / "target" / "1" / f"{part}_label.npy", np.eye(4)[:2])
        for modality in "AVL":
            np.save(folder / modality / "1" / f"{part}.npy", rng.normal(size=(2, 3)))


@MANY
@given(
    cut=st.integers(0, 900),
    flip=st.integers(0, 3000),
    kind=st.sampled_from(["mmsa", "mertools", "gcnet"]),
)
def test_a_damaged_layout_is_named(cut, flip, kind, tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("layout"), np.random.default_rng(0)
    if kind == "mmsa":
        path = folder / "set.pkl"
        splits = {"train": "p", "valid": "q", "test": "r"}
        held = {split: mmsa_part(name, rng) for split, name in splits.items()}
        path.write_bytes(pickle.dumps(held))
        read = partial(read_mmsa, path)
    elif kind == "mertools":
        path, where = write_mer(
            folder / "set",
            {"x": "sad", "y": "happy", "z": "sad"},
            {name: np.ones(3) for name in "xyz"},
        )
        read = partial(read_mertools, path, where)
    else:
        write_gcnet(folder, rng)
        files = ("target/1/trn_label.npy", "A/1/val.npy", "target/1/tst_int2name.npy")
        path = folder / files[flip % 3]
        read = partial(read_gcnet, folder, 1)
    held = bytearray(path.read_bytes())
    if flip < len(held):
        held[flip] ^= 0xFF
    path.write_bytes(held[: max(0, len(held) - cut)])
    valid_or_clear(read, folder)


VALUES = st.one_of(
    st.integers(-3, 9), st.floats(allow_nan=False, width=32), st.text(max_size=5), st.none()
)


@MANY
@given(
    labels=st.dictionaries(NAMES, VALUES, min_size=1, max_size=5),
    shapes=st.lists(
        st.sampled_from([(3,), (1, 3), (4, 3), (2,), (0,), (2, 2, 3)]), min_size=5, max_size=5
    ),
    bad=st.sampled_from([None, np.nan, np.inf, 0.0]),
)
def test_any_labels_and_shapes_in_mertools_layout(labels, shapes, bad, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mer") / "set"
    features = {
        name: np.ones(shape) for name, shape in zip(labels, shapes) if name not in (".", "..")
    }
    if bad is not None:
        features = {name: x * bad for name, x in features.items()}
    label, where = write_mer(folder, labels, features)
    corpus = valid_or_clear(
        lambda: read_mertools(label, where), folder, *map(repr, labels), "label"
    )
    if corpus is not None:
        assert (
            len(corpus) == len(labels)
            and not (
                (corpus.clips.labels >= 0) & (np.array(list(map(str, labels.values()))) == "")
            ).any()
        )


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname", "..", "a/b", "a\\b", "nul\0"])
def test_no_id_leads_out_of_the_feature_folder(name, tmp_path):
    np.save(tmp_path / "outside.npy", np.ones(3))
    label, where = write_mer(
        tmp_path / "set", {name: "sad", "inside": "happy"}, {"inside": np.ones(3)}
    )
    with pytest.raises(ValueError, match="cannot be a file name"):
        read_mertools(label, where)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_no_link_leads_out_of_the_feature_folder(kind, tmp_path):
    label, where = write_mer(
        tmp_path / "set", {"link": "sad", "inside": "happy"}, {"inside": np.ones(3)}
    )
    (tmp_path / "out").mkdir()
    np.save(tmp_path / "out" / "link.npy", np.ones(3))
    os.symlink(
        tmp_path / "out" / "link.npy" if kind == "file" else tmp_path / "out",
        where["a"] / ("link.npy" if kind == "file" else "link"),
    )
    with pytest.raises(ValueError, match="is a link that leads out"):
        read_mertools(label, where)


@pytest.mark.parametrize(
    "ids, message", [(["x", "x"], "id 'x' occurs 2 times"), (["x", ""], "no id in row 3")]
)
def test_ids_that_cannot_be(ids, message, tmp_path):
    (tmp_path / "clips.csv").write_text("\n".join(["id,label", *(f"{name},p" for name in ids)]))
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    with pytest.raises(ValueError, match=message):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    "labels, expected",
    [
        (["1", "0", ""], [1, 0, -1]),
        (["1.0", "0.0", ""], [1, 0, -1]),
        (["glad", "calm", ""], [1, 0, -1]),
    ],
)
def test_labels_may_be_whatever_names(labels, expected, tmp_path):
    (tmp_path / "clips.csv").write_text(
        "\n".join(["id,label", *(f"{i},{name}" for i, name in enumerate(labels))])
    )
    np.save(tmp_path / "a.npy", np.arange(9.0).reshape(3, 3) + 1)
    corpus = read_folder(tmp_path)
    assert corpus.clips.labels.tolist() == expected and any(
        "class" in sentence for sentence in inspect(corpus)["problems"]
    )  # a class of one clip is said


class Touch:
    "A payload that leaves a file behind if it runs."

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


class Built(Touch):
    def __reduce__(self):
        return dict, (), None, None, iter([("x", Touch(self.path))])


def payloads(path):
    "{name: bytes of a hostile pickle}."
    call = f"cposix\nsystem\n(S'touch {path}'\ntR.".encode()
    through_instance = f"(S'touch {path}'\niposix\nsystem\n.".encode()
    through_dotted = (
        pickle.PROTO
        + b"\x04"
        + pickle.SHORT_BINUNICODE
        + bytes([len("numpy")])
        + b"numpy"
        + pickle.SHORT_BINUNICODE
        + bytes([len("ndarray.__class__")])
        + b"ndarray.__class__"
        + pickle.STACK_GLOBAL
        + b"."
    )
    extension = pickle.PROTO + b"\x02" + pickle.EXT1 + b"\x01."
    return {
        "reduce": pickle.dumps(Touch(path)),
        "nested": pickle.dumps({"train": [np.array([Touch(path)], object)]}),
        "items": pickle.dumps(Built(path)),
        "call": call,
        "instance": through_instance,
        "dotted name": through_dotted,
        "extension": extension,
        "persistent": b"Pelsewhere\n.",
        "class": pickle.dumps(Path(path)),
        "function": pickle.dumps(os.system),
        "state": b"cbuiltins\nset\n(tR}S'x'\nS'y'\nsb.",
    }


@pytest.mark.parametrize("name", payloads("x"))
def test_a_hostile_pickle_runs_nothing_and_is_named(name, tmp_path):
    trace = tmp_path / "trace"
    payload = payloads(trace)[name]
    with pytest.raises(ValueError, match="evil.pkl"):
        unpickle(io.BytesIO(payload), "evil.pkl")
    (tmp_path / "evil.pkl").write_bytes(payload)
    with pytest.raises(ValueError, match="evil.pkl"):
        read_mmsa(tmp_path / "evil.pkl")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|O", "fortran_order": False, "shape": ()}
    )
    with zipfile.ZipFile(tmp_path / "evil.npz", "w") as archive:
        archive.writestr("train_corpus.npy", header.getvalue() + payload)
    with pytest.raises(ValueError, match="evil.npz"):
        read_object_arrays(tmp_path / "evil.npz")
    assert not trace.exists()


def test_a_zip_that_unpacks_to_gigabytes_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("train_corpus.npy", "w") as file:
            for _ in range(200):
                file.write(bytes(1 << 20))
    with pytest.raises(ValueError, match="would unpack to 209,715,200"):
        read_object_arrays(tmp_path / "bomb.npz")
    (tmp_path / "clips.csv").write_text("id\nx\n")
    os.rename(tmp_path / "bomb.npz", tmp_path / "a.npz")
    with pytest.raises(ValueError, match="would unpack to 209,715,200"):
        read_folder(tmp_path)


@MANY
@given(
    st.recursive(
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(allow_nan=False),
            st.text(),
            st.binary(),
        ),
        lambda inner: st.one_of(
            st.lists(inner), st.dictionaries(st.text(), inner), st.tuples(inner, inner)
        ),
        max_leaves=12,
    ),
    st.integers(0, 5),
)
def test_honest_pickles_are_read_as_they_are(value, protocol):
    assert unpickle(io.BytesIO(pickle.dumps(value, protocol)), "x") == value


@MANY
@given(
    arrays(
        st.sampled_from(["f4", "<f8", ">i2", "?", "U3", "S2", "c8"]),
        st.tuples(st.integers(0, 3), st.integers(1, 3)),
    ),
    st.integers(2, 5),
)
def test_honest_arrays_are_read_as_pickle_reads_them(array, protocol):
    held = pickle.dumps(array, protocol)
    again, expected = unpickle(io.BytesIO(held), "x"), pickle.loads(held, encoding="latin1")
    assert again.dtype == expected.dtype and again.shape == expected.shape == array.shape
    assert (
        again.tolist() == expected.tolist()
        if array.dtype == object
        else again.tobytes() == expected.tobytes()
    )


@MANY
@given(st.binary(max_size=120))
def test_any_bytes_as_a_pickle(held):
    try:
        unpickle(io.BytesIO(held), "some.pkl")
    except ValueError as error:
        assert "some.pkl" in str(error)
