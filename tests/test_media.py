"""Extracted features are those of the stored files, and synthetic speech gives what it should."""

import ctypes
import io
import json
import shutil
import wave

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from ramer.cli import app
from ramer.data.datasets import data_root
from ramer.data.folders import read_folder

pytest.importorskip("av")
pytest.importorskip("opensmile")
from ramer.data import media
from ramer.data.media import egemaps, extract, face_points, minilm, read_frames, read_sound

# functionals of pitch, level and rhythm, which do not depend on the recorded bandwidth
BANDLESS = (
    "F0semitoneFrom27.5Hz_sma3nz_percentile50.0",
    "spectralFlux_sma3_stddevNorm",
    "loudnessPeaksPerSec",
    "equivalentSoundLevel_dBp",
    "mfcc2V_sma3nz_stddevNorm",
    "mfcc3V_sma3nz_stddevNorm",
)


@pytest.fixture(scope="module")
def stored():
    if not (data_root() / "ravdess_goemotions.npz").exists():
        pytest.skip("ravdess_goemotions.npz is not here")
    with np.load(data_root() / "ravdess_goemotions.npz", allow_pickle=False) as file:
        return dict(file)


def test_egemaps_are_the_stored_ones_up_to_the_sampling_rate(stored):
    "Stored: of 48 kHz, here of 16 kHz: formants and slopes move, pitch, level and rhythm do not."
    paths = sorted((data_root() / "wav").glob("*.wav"))
    assert len(paths) == 12
    run, deviation, rows = (
        egemaps(),
        stored["A"].std(0),
        {name: i for i, name in enumerate(stored["name"])},
    )
    ours, theirs = (
        np.stack([run(path) for path in paths]),
        stored["A"][[rows[path.stem] for path in paths]],
    )
    apart = np.abs(ours - theirs) / deviation
    assert apart[:, np.isin(stored["A_names"], BANDLESS)].max() < 0.1
    alike = [np.corrcoef(a, b)[0, 1] for a, b in zip(ours / deviation, theirs / deviation)]
    assert min(alike) > 0.9 and np.mean(alike) > 0.95 and np.median(apart) < 0.35


def test_sentence_embeddings_are_the_stored_ones(stored, tmp_path):
    pytest.importorskip("all_minilm_l6_v2")
    embed = minilm()
    for row in (0, 500, 1439):
        (tmp_path / "said.txt").write_text(str(stored["T_train_text"][row]), encoding="utf-8")
        np.testing.assert_allclose(embed(tmp_path / "said.txt"), stored["T_train"][row], atol=1e-5)
    (tmp_path / "said.txt").write_text(" \n")
    with pytest.raises(ValueError, match="said.txt holds no words"):
        embed(tmp_path / "said.txt")


@pytest.fixture(scope="module")
def speak():
    "A function (text, path, pitch, rate) that lets espeak-ng write a WAV."
    loader = pytest.importorskip("espeakng_loader")
    espeak, heard = ctypes.CDLL(loader.get_library_path()), []
    rate = espeak.espeak_Initialize(1, 0, str(loader.get_data_path()).encode(), 0)
    if rate <= 0:
        pytest.skip("espeak-ng does not start here")

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def listen(samples, n, events):
        if samples and n:
            heard.append(np.ctypeslib.as_array(samples, (n,)).copy())
        return 0

    espeak.espeak_SetSynthCallback(listen)

    def speak(text, path, pitch=50, speed=170):
        heard.clear()
        espeak.espeak_SetParameter(3, pitch, 0)
        espeak.espeak_SetParameter(1, speed, 0)
        held = text.encode()
        espeak.espeak_Synth(held, len(held) + 1, 0, 0, 0, 1, None, None)
        espeak.espeak_Synchronize()
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(np.concatenate(heard).tobytes())

    yield speak
    espeak.espeak_Terminate()


def test_synthetic_speech_has_the_pitch_and_speed_that_it_was_given(speak, tmp_path):
    (tmp_path / "media").mkdir()
    for name, given in {
        "low": {"pitch": 20},
        "high": {"pitch": 90},
        "slow": {"speed": 100},
        "fast": {"speed": 300},
    }.items():
        speak(
            "Kids are talking by the door. Dogs are sitting by the door.",
            tmp_path / "media" / f"{name}.wav",
            **given,
        )
    corpus = extract(tmp_path / "media", tmp_path / "features", ["a"])
    import opensmile

    names = opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02,
        feature_level=opensmile.FeatureLevel.Functionals,
    ).feature_names
    rows = corpus.clips.ids.tolist()

    def value(clip, feature):
        return corpus.clips.features["a"][rows.index(clip), names.index(feature)]

    assert value("high", names[0]) > value("low", names[0]) + 3  # semitones
    assert value("fast", "VoicedSegmentsPerSec") > value("slow", "VoicedSegmentsPerSec")
    assert (
        corpus.present.all()
        and read_folder(tmp_path / "features").clips.hash() == corpus.clips.hash()
    )


def test_a_films_sound_and_two_channels_are_read(tmp_path):
    import av

    t = np.arange(16000) / 16000
    two = np.stack([np.sin(2 * np.pi * 200 * t), np.zeros_like(t)]).astype(np.float32) / 2
    with av.open(str(tmp_path / "film.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=16000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(two, format="fltp", layout="stereo")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            file.mux(packet)
    sound, rate = read_sound(tmp_path / "film.mp4")
    assert rate == 16000 and abs(len(sound) - 16000) < 3000
    middle = np.abs(np.fft.rfft(sound[4000:12000]))
    assert (
        middle.argmax() == 100 and 0.15 < np.abs(sound[4000:12000]).max() < 0.35
    )  # 200 Hz, and the mean of a half and nothing
    (tmp_path / "silent.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match="silent.mp4 holds no sound"):
        read_sound(tmp_path / "silent.mp4")


@pytest.fixture(scope="module")
def portrait():
    "A photograph of a face, (H, W, 3) uint8."
    pytest.importorskip(
        "dlib", reason="the face extractor is not installed (pip install 'ramer[media]')"
    )
    import matplotlib.pyplot as plt
    from matplotlib.cbook import get_sample_data

    return plt.imread(get_sample_data("grace_hopper.jpg"))[::2, ::2]


def write_film(path, pictures, codec="libx264", turn=0):
    import av

    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        if turn:
            stream.set_display_rotation(turn)
        for picture in pictures:
            file.mux(
                stream.encode(
                    av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                )
            )
        file.mux(stream.encode(None))


def test_a_face_is_found_and_a_film_without_one_is_missing(portrait, tmp_path):
    (tmp_path / "media").mkdir()
    write_film(tmp_path / "media" / "still.mp4", [portrait] * 25)
    write_film(
        tmp_path / "media" / "drift.mp4", [np.roll(portrait, (2 * i, i), (0, 1)) for i in range(25)]
    )
    write_film(tmp_path / "media" / "mostly.mp4", [portrait] * 25 + [np.zeros_like(portrait)] * 75)
    write_film(
        tmp_path / "media" / "noise.mp4",
        np.random.default_rng(0).integers(0, 255, (25, *portrait.shape), dtype=np.uint8),
    )
    (tmp_path / "media" / "broken.mp4").write_bytes(b"no film")
    seen = []
    corpus = extract(
        tmp_path / "media",
        tmp_path / "features",
        ["v"],
        lambda paths, name: seen.extend((name, clip) for clip, _ in paths) or paths,
    )
    ids = corpus.clips.ids.tolist()
    assert (
        seen
        == [("v", clip) for clip in ids]
        == [("v", clip) for clip in ("broken", "drift", "mostly", "noise", "still")]
    )
    assert corpus.present[:, 0].tolist() == [
        False,
        True,
        True,
        False,
        True,
    ] and corpus.clips.dims == {"v": 204}
    assert [problem.split(" (")[0] for problem in corpus.problems] == [
        "v: broken.mp4 holds no picture that can be decoded",
        "v: noise.mp4 shows no face in 5 frames; taken as missing",
    ]
    mean, deviation = (
        dict(zip(ids, part)) for part in np.split(corpus.clips.features["v"], 2, axis=1)
    )
    assert (
        np.abs(mean["mostly"] - mean["still"]).mean() < 0.05
    )  # as zeros, frames without a face would take three quarters away
    assert (
        np.abs(mean["drift"] - mean["still"]).mean() < 0.05
        and deviation["still"].mean() < deviation["drift"].mean() < 0.05
    )
    assert (
        corpus.clips.provenance["v"].saw_labels is False
        and read_folder(tmp_path / "features").clips.hash() == corpus.clips.hash()
    )


def test_no_face_at_all_says_how_to_go_on(portrait, tmp_path):
    (tmp_path / "media").mkdir()
    write_film(tmp_path / "media" / "black.mp4", [np.zeros_like(portrait)] * 25)
    with pytest.raises(
        ValueError,
        match="no file of 'v' could be read: v: black.mp4 shows no face in 5 frames.*"
        "name the other modalities",
    ):
        extract(tmp_path / "media", tmp_path / "features", ["v"])
    assert not (tmp_path / "features").exists()


def test_a_modality_without_any_measurement_is_left_out_unless_it_was_named(portrait, tmp_path):
    pytest.importorskip("all_minilm_l6_v2")
    (tmp_path / "media").mkdir()
    write_film(tmp_path / "media" / "black.mp4", [np.zeros_like(portrait)] * 25)
    (tmp_path / "media" / "black.txt").write_text("a black picture")
    corpus = extract(tmp_path / "media", tmp_path / "features")
    assert (
        corpus.clips.modalities == ("l",)
        and "v: of 1 files none could be used; the modality is left out" in corpus.problems
    )


def test_a_sound_file_is_preferred_to_a_films_sound(tmp_path):
    for name in ("one.wav", "one.mp4", "two.mp4"):
        (tmp_path / name).write_bytes(b"")
    found = media.media_files(tmp_path)
    assert {clip: path.name for clip, path in found["a"].items()} == {
        "one": "one.wav",
        "two": "two.mp4",
    } and {path.name for path in found["v"].values()} == {"one.mp4", "two.mp4"}
    (tmp_path / "one.flac").write_bytes(b"")
    with pytest.raises(ValueError, match="are both a of clip 'one'"):
        media.media_files(tmp_path)


@pytest.mark.parametrize(
    "film, codec",
    [
        ("film.mp4", "libx264"),
        ("film.mkv", "libx264"),
        ("film.webm", "libvpx"),
        ("film.avi", "mpeg4"),
    ],
)
def test_five_frames_a_second_of_every_kind_of_film(film, codec, tmp_path):
    grey = np.repeat(np.arange(20, 220, 4, dtype=np.uint8), 64 * 96 * 3).reshape(50, 64, 96, 3)
    write_film(tmp_path / film, grey, codec)
    frames = list(read_frames(tmp_path / film))
    assert len(frames) == 10 and frames[0].shape == (64, 96, 3)
    np.testing.assert_allclose([frame.mean() for frame in frames], np.arange(20, 220, 20), atol=8)


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_a_film_that_was_taken_sideways_is_read_upright(turn, portrait, tmp_path):
    "The film is stored turned, and says by how much it has to be turned back, counterclockwise."
    write_film(tmp_path / "turned.mp4", [np.rot90(portrait, -turn // 90)] * 5, turn=turn)
    frame = next(read_frames(tmp_path / "turned.mp4"))
    assert frame.shape == portrait.shape and np.abs(frame.astype(float) - portrait).mean() < 10
    assert face_points()(frame) is not None


def test_other_landmark_weights_are_refused(portrait, monkeypatch):
    monkeypatch.setattr(media, "FACE_WEIGHTS", "0" * 64)
    with pytest.raises(ImportError, match="expected 0000.*install face-recognition-models 0.3.0"):
        face_points()


def test_labels_come_from_a_table_and_words_join_the_voice(speak, tmp_path):
    pytest.importorskip("all_minilm_l6_v2")
    (tmp_path / "media").mkdir()
    for name, text in {"glad": "What a wonderful day!", "sad": "I miss her so much."}.items():
        speak(text, tmp_path / "media" / f"{name}.wav")
        (tmp_path / "media" / f"{name}.txt").write_text(text)
    (tmp_path / "media" / "sad.txt").unlink()
    (tmp_path / "media" / "clips.csv").write_text("id,label,group\nsad,sadness,p\nglad,joy,q\n")
    corpus = extract(tmp_path / "media", tmp_path / "features")
    assert (
        corpus.clips.dims == {"a": 88, "l": 384}
        and corpus.present.tolist() == [[True, False], [True, True]]
        and corpus.clips.groups.tolist() == ["p", "q"]
    )
    assert [corpus.clips.classes[y] for y in corpus.clips.labels] == ["sadness", "joy"] and not any(
        p.saw_labels for p in corpus.clips.provenance.values()
    )


def test_what_the_table_does_not_name_is_said_and_a_misspelt_column_is_refused(tmp_path):
    pytest.importorskip("all_minilm_l6_v2")
    source = tmp_path / "media"
    source.mkdir()
    for name in ("glad", "sad"):
        (source / f"{name}.txt").write_text(f"I am {name}.", encoding="utf-8-sig")
    (source / "clips.csv").write_text("id,label\nglad,joy\nSad,sadness\n")
    corpus = extract(source, tmp_path / "features")
    assert corpus.present.tolist() == [[True], [False]]
    assert corpus.problems == (
        "l: 1 of 2 files are of no clip in the table, the first sad.txt; left out",
    )
    (tmp_path / "plain.txt").write_text("I am glad.")
    plain = minilm()(tmp_path / "plain.txt")
    np.testing.assert_array_equal(corpus.clips.features["l"][0], plain)  # without the mark
    (source / "clips.csv").write_text("id,Label\nglad,joy\nsad,sadness\n")
    with pytest.raises(ValueError, match="column of .* 'Label' is unknown.*did you mean 'label'"):
        extract(source, tmp_path / "other")


@pytest.fixture(scope="module")
def talking(speak, tmp_path_factory):
    "A folder with recordings, high or low, and transcripts, and a model that the commands made."
    pytest.importorskip("all_minilm_l6_v2")
    home = tmp_path_factory.mktemp("talking")
    (home / "media").mkdir()
    rows = ["id,label,group"]
    for i in range(16):
        pitch, label = ((90, "lively"), (10, "calm"))[i % 2]
        speak(f"This is sentence number {i}.", home / "media" / f"clip{i}.wav", pitch)
        (home / "media" / f"clip{i}.txt").write_text(f"This is sentence number {i}.")
        rows.append(f"clip{i},{label},speaker{i // 2}")
    (home / "media" / "clips.csv").write_text("\n".join(rows))
    run("data", "extract", home / "media", home / "features")
    quick = ("--method", "ramer", "--set", '{"epochs": 12}')
    run("train", home / "features", "--out", home / "model", *quick)
    speak("Something else.", home / "new.wav", 90)
    return home


def run(*arguments):
    "What `ramer` with these arguments says; see `typer.testing`."
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_recordings_are_answered_and_explained(talking):
    answered = run("predict", talking / "model", talking / "new.wav")
    table = pd.read_csv(io.StringIO(answered.stdout), index_col="id")
    assert table.loc["new", ["answer", "available"]].tolist() == ["lively", "a"]
    because = run("explain", talking / "model", talking / "new.wav", "--given", "a", "--most", 3)
    neighbours = pd.read_csv(io.StringIO(because.stdout))
    assert neighbours.id.tolist() == ["new"] * 3 and set(neighbours.label) == {"lively"}


def test_a_folder_of_recordings_with_a_table_is_answered_like_its_features(talking):
    given = (talking / "media", talking / "features")
    answers = [run("predict", talking / "model", folder).stdout.splitlines() for folder in given]
    assert sorted(answers[0]) == sorted(answers[1]) and len(answers[0]) == 17


def test_a_broken_recording_loses_none_of_the_others(talking, tmp_path):
    (tmp_path / "broken.wav").write_bytes(b"no sound")
    answered = run("predict", talking / "model", tmp_path / "broken.wav", talking / "new.wav")
    assert [line.split(",")[0] for line in answered.stdout.splitlines()] == ["id", "new"]
    assert "broken.wav holds no sound" in answered.stderr
    assert "no answer for 1 clips that have nothing, the first 'broken'" in answered.stderr
    alone = run("predict", talking / "model", tmp_path / "broken.wav")
    assert "no file of 'a' could be read: a: broken.wav" in str(alone.exception)


def test_recordings_that_cannot_be_told_apart_are_refused(talking, tmp_path):
    shutil.copy(talking / "new.wav", tmp_path)
    same = run("predict", talking / "model", talking / "new.wav", tmp_path)
    assert "are both a of clip 'new'" in str(same.exception)
    gone = run("predict", talking / "model", tmp_path / "gone.wav")
    assert "gone.wav does not exist; expected recordings or features" in str(gone.exception)


def test_a_model_of_the_first_version_does_not_know_its_extractor(talking, tmp_path):
    shutil.copytree(talking / "model", tmp_path / "former")
    (tmp_path / "former" / "manifest.json").unlink()
    facts = tmp_path / "former" / "model.json"
    former = {name: said for name, said in json.loads(facts.read_text()).items() if name != "about"}
    facts.write_text(json.dumps(former))
    with pytest.warns(UserWarning, match="without checksums"):
        answered = run("predict", tmp_path / "former", talking / "new.wav")
    assert "learned 'a' from features of 'not known'" in str(answered.exception)
