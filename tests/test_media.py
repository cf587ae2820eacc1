"""Features that are extracted here are those of the files we were given, and a voice made by a machine gives what it should."""
import ctypes
import wave

import numpy as np
import pytest

from ramer.data import data_root
from ramer.folders import read_folder

pytest.importorskip("av"); pytest.importorskip("opensmile")
from ramer.media import egemaps, extract, minilm, read_sound

# functionals of pitch, level and rhythm, which do not depend on how far up the recorded spectrum goes
BANDLESS = ("F0semitoneFrom27.5Hz_sma3nz_percentile50.0", "spectralFlux_sma3_stddevNorm", "loudnessPeaksPerSec", "equivalentSoundLevel_dBp", "mfcc2V_sma3nz_stddevNorm", "mfcc3V_sma3nz_stddevNorm")


@pytest.fixture(scope="module")
def stored():
    if not (data_root()/"ravdess_goemotions.npz").exists(): pytest.skip("ravdess_goemotions.npz is not here")
    with np.load(data_root()/"ravdess_goemotions.npz", allow_pickle=False) as file: return dict(file)


def test_egemaps_are_the_stored_ones_up_to_the_sampling_rate(stored):
    "The stored ones are of 48 kHz recordings, these files are 16 kHz: formants and slopes move, pitch, level and rhythm do not."
    paths = sorted((data_root()/"wav").glob("*.wav"))
    assert len(paths) == 12
    run, deviation, rows = egemaps(), stored["A"].std(0), {name: i for i, name in enumerate(stored["name"])}
    ours, theirs = np.stack([run(path) for path in paths]), stored["A"][[rows[path.stem] for path in paths]]
    apart = np.abs(ours - theirs) / deviation
    assert apart[:, np.isin(stored["A_names"], BANDLESS)].max() < .1
    alike = [np.corrcoef(a, b)[0, 1] for a, b in zip(ours / deviation, theirs / deviation)]
    assert min(alike) > .9 and np.mean(alike) > .95 and np.median(apart) < .35


def test_sentence_embeddings_are_the_stored_ones(stored, tmp_path):
    pytest.importorskip("all_minilm_l6_v2")
    embed = minilm()
    for row in (0, 500, 1439):
        (tmp_path/"said.txt").write_text(str(stored["T_train_text"][row]), encoding="utf-8")
        np.testing.assert_allclose(embed(tmp_path/"said.txt"), stored["T_train"][row], atol=1e-5)
    (tmp_path/"said.txt").write_text(" \n")
    with pytest.raises(ValueError, match="said.txt holds no words"): embed(tmp_path/"said.txt")


@pytest.fixture(scope="module")
def speak():
    "A function (text, path, pitch, rate) that lets espeak-ng write a WAV."
    loader = pytest.importorskip("espeakng_loader")
    espeak, heard = ctypes.CDLL(loader.get_library_path()), []
    rate = espeak.espeak_Initialize(1, 0, str(loader.get_data_path()).encode(), 0)
    if rate <= 0: pytest.skip("espeak-ng does not start here")

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def listen(samples, n, events):
        if samples and n: heard.append(np.ctypeslib.as_array(samples, (n,)).copy())
        return 0

    espeak.espeak_SetSynthCallback(listen)

    def speak(text, path, pitch=50, speed=170):
        heard.clear()
        espeak.espeak_SetParameter(3, pitch, 0); espeak.espeak_SetParameter(1, speed, 0)
        held = text.encode()
        espeak.espeak_Synth(held, len(held) + 1, 0, 0, 0, 1, None, None); espeak.espeak_Synchronize()
        with wave.open(str(path), "wb") as file:
            file.setnchannels(1); file.setsampwidth(2); file.setframerate(rate); file.writeframes(np.concatenate(heard).tobytes())
    yield speak
    espeak.espeak_Terminate()


def test_a_machines_voice_has_the_pitch_and_speed_that_it_was_given(speak, tmp_path):
    (tmp_path/"media").mkdir()
    for name, given in {"low": {"pitch": 20}, "high": {"pitch": 90}, "slow": {"speed": 100}, "fast": {"speed": 300}}.items(): speak("Kids are talking by the door. Dogs are sitting by the door.", tmp_path/"media"/f"{name}.wav", **given)
    corpus = extract(tmp_path/"media", tmp_path/"features", ["a"])
    import opensmile
    names = opensmile.Smile(feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=opensmile.FeatureLevel.Functionals).feature_names
    value = lambda clip, feature: corpus.clips.features["a"][corpus.clips.ids.tolist().index(clip), names.index(feature)]
    assert value("high", names[0]) > value("low", names[0]) + 3                                       # semitones
    assert value("fast", "VoicedSegmentsPerSec") > value("slow", "VoicedSegmentsPerSec")
    assert corpus.here.all() and read_folder(tmp_path/"features").clips.hash() == corpus.clips.hash()


def test_a_films_sound_and_two_channels_are_read(tmp_path):
    import av
    t = np.arange(16000) / 16000
    two = np.stack([np.sin(2 * np.pi * 200 * t), np.zeros_like(t)]).astype(np.float32) / 2
    with av.open(str(tmp_path/"film.mp4"), "w") as file:
        stream = file.add_stream("aac", rate=16000, layout="stereo")
        frame = av.AudioFrame.from_ndarray(two, format="fltp", layout="stereo"); frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]: file.mux(packet)
    sound, rate = read_sound(tmp_path/"film.mp4")
    assert rate == 16000 and abs(len(sound) - 16000) < 3000
    middle = np.abs(np.fft.rfft(sound[4000:12000]))
    assert middle.argmax() == 100 and .15 < np.abs(sound[4000:12000]).max() < .35                       # 200 Hz, and the mean of a half and nothing
    (tmp_path/"silent.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match="silent.mp4 holds no sound"): read_sound(tmp_path/"silent.mp4")


def test_labels_come_from_a_table_and_words_join_the_voice(speak, tmp_path):
    pytest.importorskip("all_minilm_l6_v2")
    (tmp_path/"media").mkdir()
    for name, text in {"glad": "What a wonderful day!", "sad": "I miss her so much."}.items():
        speak(text, tmp_path/"media"/f"{name}.wav"); (tmp_path/"media"/f"{name}.txt").write_text(text)
    (tmp_path/"media"/"sad.txt").unlink()
    (tmp_path/"media"/"clips.csv").write_text("id,label,group\nsad,sadness,p\nglad,joy,q\n")
    corpus = extract(tmp_path/"media", tmp_path/"features")
    assert corpus.clips.dims == {"a": 88, "l": 384} and corpus.here.tolist() == [[True, False], [True, True]] and corpus.clips.groups.tolist() == ["p", "q"]
    assert [corpus.clips.classes[y] for y in corpus.clips.labels] == ["sadness", "joy"] and not any(p.saw_labels for p in corpus.clips.provenance.values())
