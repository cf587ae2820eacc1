"""Fetched sets are what was published, also from a server that cuts off, changes or loses parts."""

import hashlib
import http.server
import re
import threading
import time
import wave
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

for needed in ("pooch", "av", "opensmile"):
    pytest.importorskip(needed)
from ramer.cli import main
from ramer.data.datasets import REAL, data_root
from ramer.data.sources import (
    BY_HAND,
    SOURCES,
    build_crema_d,
    build_mosi,
    build_ravdess,
    build_ravdess_frames,
    build_stressid,
    build_twitter,
    fetch,
)

NAMES = [f"03-01-{emotion:02d}-01-01-01-01" for emotion in range(1, 9)]
FINE = "neutral joy sadness anger fear disgust surprise".split()


def as_vectors(texts):
    return (
        np.stack(
            [np.random.default_rng(list(text.encode())).normal(size=8) for text in texts]
        ).astype(np.float32)
        / 8
    )


def write_set(voice, face, comments):
    "A RAVDESS of one actor: eight tones, their action units, and comments."
    for folder in (voice / "Actor_01", face, comments):
        folder.mkdir(parents=True)
    for i, name in enumerate(NAMES):
        with wave.open(str(voice / "Actor_01" / f"{name}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16000)
            file.writeframes(
                (9000 * np.sin(np.arange(8000) * (0.05 + 0.01 * i))).astype("<i2").tobytes()
            )
    pd.DataFrame(np.eye(8, 35), columns=[f"AU{i:02d}_r" for i in range(35)]).assign(
        name=[f"01{name[2:]}" for name in NAMES]
    ).to_csv(face / "df_average_AUs_total.csv", sep=";", index=False)
    (comments / "labels.txt").write_text("\n".join(FINE))
    for split in ("train", "dev", "test"):
        (comments / f"{split}.tsv").write_text(
            "".join(
                f"{split} {emotion} {i}\t{FINE.index(emotion)}\t{split}{i}\n"
                for emotion in FINE
                for i in range(2)
            )
        )


class Server(http.server.SimpleHTTPRequestHandler):
    "Serves a folder; spoils parts: cut, short (cut, without its length), changed, lost or slow."

    def __init__(self, *given, asked, spoil, **more):
        self.asked, self.spoil = asked, spoil
        super().__init__(*given, **more)

    def log_message(self, *words):
        pass

    def do_GET(self):
        self.asked.append(self.path[1:])
        spoil = self.spoil.get(self.path[1:])
        if spoil == "lost":
            return self.send_error(404)
        if spoil == "slow":
            time.sleep(0.3)
        held = Path(self.directory, self.path[1:]).read_bytes()
        self.send_response(200)
        if spoil != "short":
            self.send_header("Content-Length", str(len(held)))
        self.end_headers()
        self.wfile.write(
            {"cut": held[:-9], "short": held[:-9], "changed": held[:-9] + b"unfitting"}.get(
                spoil, held
            )
        )


@pytest.fixture
def published(tmp_path, monkeypatch):
    "(address, parts asked for, parts to spoil, all parts) of a server with small sets."
    places = list(SOURCES["ravdess"].parts)
    write_set(*(tmp_path / "served" / place for place in places))
    found = {
        place: {
            path.relative_to(tmp_path / "served" / place).as_posix(): hashlib.sha256(
                path.read_bytes()
            ).hexdigest()
            for path in sorted((tmp_path / "served" / place).rglob("*.*"))
        }
        for place in places
    }
    for name, kept in {"ravdess-goemotions": places, "ravdess-frames": places[:1]}.items():
        build = (
            partial(build_ravdess, encode=as_vectors)
            if name == "ravdess-goemotions"
            else build_ravdess_frames
        )
        monkeypatch.setitem(
            SOURCES,
            name,
            replace(SOURCES[name], parts={place: found[place] for place in kept}, build=build),
        )
    asked, spoil = [], {}
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0),
        partial(Server, directory=str(tmp_path / "served"), asked=asked, spoil=spoil),
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield (
        f"http://127.0.0.1:{server.server_port}/",
        asked,
        spoil,
        [place + part for place in places for part in found[place]],
    )
    server.shutdown()
    server.server_close()


def run(capsys, *arguments):
    "(exit code, stdout, stderr) of `ramer data fetch`."
    code = 0
    try:
        main(["data", "fetch", *arguments])
    except SystemExit as ended:
        code = ended.code
    return code, *capsys.readouterr()


def test_the_command_says_the_licence_and_both_sets_are_read_back(
    published, tmp_path, capsys, monkeypatch
):
    base, asked, _, parts = published
    code, out, err = run(
        capsys, "ravdess-frames", "--folder", str(tmp_path / "data"), "--base", base
    )
    assert (
        not code
        and out.strip() == str(tmp_path / "data" / "ravdess_frames.npz")
        and "CC BY-NC-SA" in err
        and "590 MB" in err
    )
    assert sorted(asked) == sorted(
        parts
    )  # the set beside it came, too, and what both need came once
    monkeypatch.setenv("RAMER_DATA", str(tmp_path / "data"))
    with np.load(tmp_path / "data" / "ravdess_goemotions.npz", allow_pickle=False) as file:
        assert (
            file["name"].tolist() == NAMES
            and (file["V"] == np.eye(8, 35)).all()
            and file["y"].tolist() == [0, 0, 1, 2, 3, 4, 5, 6]
        )
    assert not run(
        capsys,
        "ravdess-frames",
        "--folder",
        str(tmp_path / "data"),
        "--base",
        "http://127.0.0.1:9/",
    )[0]  # it is there: nobody is asked


def test_without_a_name_every_set_is_listed_with_its_licence(capsys):
    code, out, _ = run(capsys)
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert not code and list(lines) == [*SOURCES, *BY_HAND] and set(SOURCES) == set(REAL)
    for name in SOURCES:
        assert re.search(r"[\d,]+ files, \d+ MB, for \w+\.npz.*; licence: \w", lines[name])
    for name in BY_HAND:
        assert "by hand" in lines[name] and "doi.org" in lines[name]


def test_a_set_that_is_given_out_by_hand_writes_nothing_and_says_how(tmp_path, capsys):
    code, out, err = run(capsys, "swell-kw", "--folder", str(tmp_path))
    assert code == 2 and not out and err.count("log in at DANS") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "spoil, place, kind",
    [
        ("cut", 0, "could not be had"),
        ("short", -1, "its checksum differs"),
        ("changed", 0, "its checksum differs"),
        ("lost", -1, "could not be had"),
    ],
)
def test_a_part_that_is_not_as_published_is_named_and_only_what_lacks_is_fetched_again(
    spoil, place, kind, published, tmp_path, capsys
):
    base, asked, spoiled, parts = published
    bad, arguments = (
        parts[place],
        ("ravdess-goemotions", "--folder", str(tmp_path / "data"), "--base", base),
    )
    spoiled[bad] = spoil
    code, _, err = run(capsys, *arguments)
    kept = [part for part in parts if (tmp_path / "data" / ".parts" / part).exists()]
    assert (
        code == 2
        and bad in err
        and kind in err
        and bad not in kept
        and not (tmp_path / "data" / "ravdess_goemotions.npz").exists()
    )
    assert not [
        path
        for path in (tmp_path / "data").rglob("*")
        if path.is_file() and path.relative_to(tmp_path / "data" / ".parts").as_posix() not in parts
    ]
    spoiled.clear()
    asked.clear()
    assert not run(capsys, *arguments)[0] and sorted(asked) == sorted(set(parts) - set(kept))


def test_a_part_that_changed_on_disk_is_fetched_again(published, tmp_path):
    base, asked, _, parts = published
    path = fetch("ravdess-goemotions", tmp_path / "data", base)
    before = path.read_bytes()
    path.unlink()
    asked.clear()
    (tmp_path / "data" / ".parts" / parts[3]).write_bytes(b"RIFF")
    assert fetch(
        "ravdess-goemotions", tmp_path / "data", base
    ).read_bytes() == before and asked == [parts[3]]


def test_an_interrupted_fetch_begins_nothing_more_and_goes_on_where_it_was(published, tmp_path):
    base, asked, spoiled, parts = published
    spoiled.update(dict.fromkeys(parts, "slow"))

    def interrupted(items, doing):
        yield items[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("ravdess-goemotions", tmp_path / "data", base, interrupted)
    kept = [part for part in parts if (tmp_path / "data" / ".parts" / part).exists()]
    assert parts[0] in kept and sorted(kept) == sorted(asked) and len(kept) < len(parts)
    asked.clear()
    spoiled.clear()
    assert fetch("ravdess-goemotions", tmp_path / "data", base).exists() and sorted(
        asked
    ) == sorted(set(parts) - set(kept))


def test_without_a_network_nothing_is_written_and_the_way_on_is_said(published, tmp_path, capsys):
    code, _, err = run(
        capsys,
        "ravdess-goemotions",
        "--folder",
        str(tmp_path / "data"),
        "--base",
        "http://127.0.0.1:9/",
    )
    assert (
        code == 2
        and "could not be had from http://127.0.0.1:9/" in err
        and "the same command goes on from there" in err
        and "CC BY-NC-SA" in err
    )
    assert not [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


def test_frames_of_the_twelve_recordings_have_the_stored_lengths():
    if not (data_root() / "wav").exists() or not (data_root() / "ravdess_frames.npz").exists():
        pytest.skip("the recordings are not here")
    built = build_ravdess_frames(data_root() / "wav")
    with np.load(data_root() / "ravdess_frames.npz", allow_pickle=False) as stored:
        rows = np.flatnonzero(np.isin(stored["name"], built["name"]))
        assert (
            stored["name"][rows].tolist() == built["name"].tolist()
            and stored["A_names"].tolist() == built["A_names"].tolist()
        )
        assert np.abs(stored["A_length"][rows] - built["A_length"]).max() == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, build",
    [
        ("mosi", build_mosi),
        ("ravdess-goemotions", build_ravdess),
        ("ravdess-frames", build_ravdess_frames),
        ("crema-d", build_crema_d),
        ("stressid", build_stressid),
        ("twitter-absa-2015", build_twitter),
    ],
)
def test_the_published_parts_give_the_stored_arrays(name, build):
    "Where `ramer data fetch` has left its parts."
    pytest.importorskip("all_minilm_l6_v2")
    places = [data_root() / ".parts" / place for place in SOURCES[name].parts]
    if (
        not all(place.exists() for place in places)
        or not (data_root() / SOURCES[name].file).exists()
    ):
        pytest.skip(f"the published parts of {name} are not here")
    built = build(*places)
    with np.load(data_root() / SOURCES[name].file, allow_pickle=False) as stored:
        for key, array in built.items():
            if key in ("T_minilm384", "T_train", "T_eval"):
                np.testing.assert_allclose(array, stored[key], atol=1e-5)
            elif key in ("L", "C"):  # of the tweets, in half precision
                np.testing.assert_allclose(array, stored[key], atol=1e-3)
            else:
                np.testing.assert_array_equal(array, stored[key], err_msg=key)
