"""The whole way at MER2024's true size, simulated: written in MERTools' layout, read, converted, audited, three stages, four databases.

Writes results/bench/mer2024.csv: seconds and peak memory of each step, mer2024-accuracy.csv: WA on both test sets, and mer2024-alone.csv: F1 of a regression on one modality. About 8 GB of disk for a while, below the folder given by --work.
Everything is simulated: a world with MER2024's widths, class counts and sizes; MER-NOISE is noise on voice and face. How much each modality tells follows a published table of
single modalities (notebook 03_worlds). Seconds are of one machine and mean something as shares of each other only.
"""
import argparse, resource, shutil, time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ramer.conditions import all_conditions
from ramer.controls import configure, make_method
from ramer.data import Dataset
from ramer.experiment import fit_shared
from ramer.folders import read_folder, write_folder, write_text
from ramer.layouts import read_mertools
from ramer.metrics import METRICS, confusion_matrix
from ramer.protocol import Protocol, make_judge
from ramer.worlds import EMOTIONS, MER2024_COUNTS, WORLDS, sample

WORLD = replace(WORLDS["mer2024-shaped"], name="mer2024", dims={"a": 1024, "v": 768, "l": 5120}, note="simulated: MER2024's class counts, sizes and widths, each modality as hard as published")
SPLITS = {"train": 5030, "test1": 1169, "test2": 1170, "unlabelled": 115_595}          # train, MER-SEMI, MER-NOISE, and what nobody labelled
FOLDERS = {"a": "chinese-hubert-large-UTT", "v": "clip-vit-large-patch14-UTT", "l": "Baichuan-13B-Base-UTT"}
NOISE = {"a": 1., "v": 1.}                              # deviation of what MER-NOISE adds to voice and face
METHODS = ("zero", "ramer", "ramer-medium", "ramer-large", "ramer-turbo")


def first_of_each(labels, wanted):
    "(N,) bool: the first clips of each class, as many as are wanted."
    return pd.Series(labels).groupby(labels).cumcount().to_numpy() < wanted[labels]


def blocks_of(number, split, n, block=2048):
    "The clips of one split, block by block; the train split has MER2024's class counts, in proportion to n."
    wanted, start = np.array(MER2024_COUNTS) * n // sum(MER2024_COUNTS), 0
    while (wanted.sum() if split == "train" else n - start) > 0:
        clips = sample(WORLD, block if split == "train" else min(block, n - start), seed=number * 1_000_000 + start, prefix=f"{split}-{start:06d}-")
        if split == "train":
            clips = clips[first_of_each(clips.labels, wanted)]
            wanted = wanted - np.bincount(clips.labels, minlength=len(wanted))
        start += block
        yield clips


def generate(work, splits):
    "The label file and a folder of .npy files for each modality. The unlabelled have one and the same placeholder, as in the released label file."
    labels, rng = {f"{split}_corpus": {} for split in splits}, np.random.default_rng(7)
    for folder in FOLDERS.values(): (work/"features"/folder).mkdir(parents=True)
    for number, (split, n) in enumerate(splits.items()):
        for clips in blocks_of(number, split, n):
            labels[f"{split}_corpus"] |= {name: {"emo": "neutral" if split == "unlabelled" else EMOTIONS[y]} for name, y in zip(clips.ids, clips.labels)}
            for m, folder in FOLDERS.items():
                x = clips.features[m]
                if split == "test2" and m in NOISE: x = (x + NOISE[m] * rng.normal(size=x.shape)).astype(np.float32)
                for name, row in zip(clips.ids, x): np.save(work/"features"/folder/f"{name}.npy", row)
    np.savez(work/"label-6way.npz", **{key: np.array(held, object) for key, held in labels.items()})


def alone(m, splits):
    "Weighted F1 of a logistic regression on one modality, as notebook 03_worlds measures it in the smaller world."
    world = replace(WORLD, dims={m: WORLD.dims[m]}, signal={m: WORLD.signal[m]})
    train, test = sample(world, splits["train"], 1), sample(world, splits["test1"], 2)
    judged = make_judge(test)(make_method(configure("mer2024", "logistic", penalty=100.)).fit(train, None).predict_proba, m)
    return float(METRICS["WAF"](confusion_matrix(labels=judged.labels, predicted=judged.predicted, classes=len(test.classes))))


def parts_of(corpus):
    "(learnable clips, {test set: clips}) of the corpus."
    clips = corpus.clips
    return clips[np.isin(corpus.split, ["train", "unlabelled"])], {name: clips[corpus.split == name] for name in ("test1", "test2")}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/mer2024"), help="a folder that is made and removed again")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1]/"results"/"bench")
    parser.add_argument("--share", type=float, default=1., help="this share of the clips, for a trial")
    parser.add_argument("--epochs", type=int, default=100)
    options = parser.parse_args()
    splits, rows, scores, start = {name: int(n * options.share) for name, n in SPLITS.items()}, [], [], time.perf_counter()

    def done(step, clips):
        nonlocal start
        rows.append({"step": step, "clips": clips, "seconds": round(time.perf_counter() - start, 1), "peak memory so far, GB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)})
        print(rows[-1], flush=True)
        start = time.perf_counter()

    write_text(options.out/"mer2024-alone.csv", pd.DataFrame([{"modality": m, "F1": alone(m, splits), "note": WORLD.note} for m in WORLD.dims]).to_csv(index=False, float_format="%.4f"))
    done("one modality at a time, a regression", splits["train"])
    options.work.mkdir(parents=True)
    generate(options.work, splits); done("written in MERTools' layout", sum(splits.values()))
    (options.work/"scratch").mkdir()
    corpus = read_mertools(options.work/"label-6way.npz", {m: options.work/"features"/name for m, name in FOLDERS.items()}, scratch=options.work/"scratch"); done("read and checked", len(corpus))
    assert any("placeholder" in sentence for sentence in corpus.problems) and corpus.here.all()
    write_folder(replace(corpus, problems=(*corpus.problems, WORLD.note)), options.work/"converted"); done("converted", len(corpus))
    shutil.rmtree(options.work/"features"); shutil.rmtree(options.work/"scratch"); del corpus
    corpus = read_folder(options.work/"converted"); done("those files removed, and mapped again", len(corpus))
    learnable, tests = parts_of(corpus); done("cut into parts", len(learnable))
    protocol = Protocol(Dataset("mer2024", 1, lambda fold: (learnable, tests["test1"]), "SEMI", WORLD.note, synthetic=True)); done("audited and hashed", len(learnable))
    stage1s = {}
    for method in METHODS:
        fitted = fit_shared(configure("mer2024", method, epochs=options.epochs), protocol.train, protocol.dev, stage1s)
        done(f"{method}: stages {'1 to' if method == METHODS[0] else '2 and'} 3", len(getattr(fitted, "store", protocol.train.labelled())))
        for name, test in tests.items():
            for condition in all_conditions(test.modalities):
                judged = make_judge(test)(fitted.predict_proba, condition)
                scores.append({"test": {"test1": "SEMI", "test2": "NOISE"}[name], "method": method, "condition": condition, "WA": (judged.predicted == judged.labels).mean()})
        done(f"{method}: judged twice under every condition", sum(map(len, tests.values())))
        del fitted                                     # before the next one makes a store of its own
    table = pd.DataFrame(scores).pivot(index=["test", "method"], columns="condition", values="WA").reset_index().assign(note=WORLD.note)
    write_text(options.out/"mer2024.csv", pd.DataFrame(rows).to_csv(index=False))
    write_text(options.out/"mer2024-accuracy.csv", table.to_csv(index=False, float_format="%.4f"))
    shutil.rmtree(options.work)
    print(table.round(3).to_string())


if __name__ == "__main__": main()
