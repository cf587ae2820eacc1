"""Zero-fill and RAMER that note each training, and fail where they are asked to.

RAMER_NOTES names the file of notes. RAMER_FAULT, such as nan:noted-zero:1, is what goes wrong, and
in the training of which method and fold.
"""

import ctypes
import os
import signal
from dataclasses import replace

import numpy as np

from ramer.methods.fills import ZeroFill
from ramer.methods.rag import Ramer


def raises(method):
    raise RuntimeError("the fault that was asked for")


def memory(method):
    np.ones(2**50)


def nan(method):
    method.config = replace(method.config, learning_rate=1e30)


def killed(method):
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(method):
    ctypes.PyDLL(None).sleep(10**6)  # and no other thread of the process runs meanwhile


FAULTS = {"raises": raises, "memory": memory, "nan": nan, "killed": killed, "hangs": hangs}


class Noted:
    "Notes that a training begins, and whatever is to go wrong with it."

    def fit(self, train, dev):
        name, fold = self.config.method, self.config.fold
        with open(os.environ["RAMER_NOTES"], "a") as notes:
            notes.write(f"{name} {fold}\n")
        fault, _, where = os.environ.get("RAMER_FAULT", "").partition(":")
        if where == f"{name}:{fold}":
            FAULTS[fault](self)
        return super().fit(train, dev)


class NotedZero(Noted, ZeroFill):
    "Zero-fill."


class NotedRamer(Noted, Ramer):
    "RAMER."
