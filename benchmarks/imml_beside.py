"""The package `imml` beside our methods, on the same clips and masks.

Prints a row per method: WA under each condition, or the error with which it stopped. `imml` is no
dependency of ours; install `imml[deep]==0.6.0` and this package into an environment of their own:
`python benchmarks/imml_beside.py --dataset ravdess --fold 0 --epochs 30`.

Both sides see the same train clips for as many epochs, in batches of 128, with the same chance for
every condition. Ours take the epoch that dev chose; those of `imml` their last one, at its own
learning rates. Its M3Care and MUSE answer a whole test part at once, and an answer depends on the
other clips in it.
"""

import argparse
from functools import partial

import numpy as np
import pandas as pd
import torch

from ramer.conditions import code_masks
from ramer.data.clips import Scaler
from ramer.data.datasets import load_dataset
from ramer.evaluation.protocol import Protocol
from ramer.methods.encoders import vectors
from ramer.methods.registry import configure, make_method

OURS = ("m3care",)
BATCH = 128


def accuracies(protocol, predict_proba):
    "WA under each condition that the protocol judges."
    found = {}
    for condition in protocol.conditions:
        judged = protocol.judge(predict_proba, condition)
        found[condition] = (judged.predicted == judged.labels).mean()
    return found


def our_row(name, dataset, protocol, fold, epochs):
    "A method of ours, trained for so many epochs: its WA under each condition."
    config = configure(dataset, name, fold=fold, epochs=epochs, patience=epochs)
    return accuracies(protocol, make_method(config).fit(protocol.train, protocol.dev).predict_proba)


def inputs(x, mask):
    "What `imml` takes: a list of (B, D), zero where the mask (B, M) is False."
    return [v * column for v, column in zip(x.values(), torch.from_numpy(mask).split(1, 1))]


def m3care(dims, classes):
    "(imml's M3Care, a batch for its training step, its logits)."
    from imml.classify import M3Care

    kinds = ["tabular"] * len(dims)
    network = M3Care(modalities=kinds, input_dim=dims, output_dim=classes, vocab=["unused"])

    def batch(x, mask, y):
        return inputs(x, mask), y, torch.from_numpy(mask)

    def probabilities(x, mask):
        logits, _ = network.model(inputs(x, mask), torch.from_numpy(mask))
        return torch.softmax(logits, 1)

    return network, batch, probabilities


def muse(dims, classes):
    "(imml's MUSE, a batch for its training step, its logits)."
    from imml.classify import MUSE

    network = MUSE(modalities=["tabular"] * len(dims), input_dim=dims, output_dim=classes)

    def batch(x, mask, y):
        known = torch.ones(len(y), dtype=torch.bool)
        return inputs(x, mask), y, torch.from_numpy(~mask), known

    def probabilities(x, mask):
        return network.model.predict(inputs(x, mask), torch.from_numpy(~mask))

    return network, batch, probabilities


def ragpt(dims, classes):
    "imml's RAGPT: it reads images and texts through ViLT, so it cannot be made for features."
    from imml.classify import RAGPT

    RAGPT()  # loads dandelin/vilt-b32-mlm
    raise ValueError("RAGPT takes an image and a text of every clip; these clips are vectors")


THEIRS = {"M3Care": m3care, "MUSE": muse, "RAGPT": ragpt}


def train(network, batch, x, labels, epochs):
    "Train by the package's own step and optimiser, under conditions drawn anew for every clip."
    generator = np.random.default_rng(0)
    codes = np.arange(1, 2 ** len(x))
    optimiser = network.configure_optimizers()
    network.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(labels)).split(BATCH):
            mask = code_masks(generator.choice(codes, len(rows)), len(x))
            shown = {m: v[rows] for m, v in x.items()}
            optimiser.zero_grad()
            network.training_step(batch(shown, mask, labels[rows])).backward()
            optimiser.step()


def their_row(make, protocol, epochs):
    "A method of `imml`: its WA under each condition."
    torch.manual_seed(0)
    scaler = Scaler.fit(protocol.train)
    dims = list(protocol.train.dims.values())
    network, batch, probabilities = make(dims, len(protocol.classes))
    x, labels = vectors(scaler(protocol.train)), torch.from_numpy(protocol.train.labels)
    train(network, batch, x, labels, epochs)
    network.eval()

    @torch.no_grad()
    def predict_proba(clips, mask):
        found = probabilities(vectors(scaler(clips)), mask).double()
        return (found / found.sum(1, keepdim=True)).numpy()

    return accuracies(protocol, predict_proba)


def row_or_error(name, make_row):
    "A row, or what stopped it."
    try:
        return {"method": name, **make_row(), "error": ""}
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().splitlines() or [""]
        return {"method": name, "error": f"{type(error).__name__}: {reason[0]}"}


def main():
    "Print the table."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="ravdess")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=30)
    given = parser.parse_args()
    protocol = Protocol(load_dataset(given.dataset), given.fold, 0)
    rows = []
    for name in OURS:
        make = partial(our_row, name, given.dataset, protocol, given.fold, given.epochs)
        rows.append(row_or_error(f"{name} (ours)", make))
    for name, make in THEIRS.items():
        rows.append(
            row_or_error(f"{name} (imml)", partial(their_row, make, protocol, given.epochs))
        )
    print(pd.DataFrame(rows).set_index("method").round(3).to_string())


if __name__ == "__main__":
    main()
