"""Emotion recognition that keeps working when audio, face or text is missing.

The names below are what users need; each is loaded from its module when it is first asked for, so
that `import ramer` costs nothing.
"""

__version__ = "0.1.0"

import difflib
import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .conditions import Condition, all_conditions, by_condition, condition_mask, random_masks
    from .data.clips import Clips, Provenance, Scaler
    from .data.datasets import available_datasets, load_dataset
    from .data.folders import read_folder, write_folder
    from .data.folds import Dataset, grouped_dataset
    from .estimators import GatedRetrievalClassifier, MissingModalityImputer
    from .estimators import PooledRetrievalClassifier, RAMERClassifier
    from .evaluation.audit import Finding, find_leaks
    from .evaluation.metrics import calibration, confusion_matrix, f1, ua, wa, waf
    from .evaluation.protocol import Prediction, Protocol, cut_dev
    from .methods.base import Method
    from .methods.config import Config
    from .methods.registry import METHODS, configure, load_method, make_method
    from .methods.training import computing_on
    from .retrieval.store import Exclusion, Hits, RetrievalStore, load_store, save_store
    from .runs.results import read_runs

_MODULES = {
    "conditions": ("Condition", "all_conditions", "by_condition", "condition_mask", "random_masks"),
    "data.clips": ("Clips", "Provenance", "Scaler"),
    "data.datasets": ("available_datasets", "load_dataset"),
    "data.folders": ("read_folder", "write_folder"),
    "data.folds": ("Dataset", "grouped_dataset"),
    "estimators": (
        *("GatedRetrievalClassifier", "MissingModalityImputer"),
        *("PooledRetrievalClassifier", "RAMERClassifier"),
    ),
    "evaluation.audit": ("Finding", "find_leaks"),
    "evaluation.metrics": ("calibration", "confusion_matrix", "f1", "ua", "wa", "waf"),
    "evaluation.protocol": ("Prediction", "Protocol", "cut_dev"),
    "methods.base": ("Method",),
    "methods.config": ("Config",),
    "methods.registry": ("METHODS", "configure", "load_method", "make_method"),
    "methods.training": ("computing_on",),
    "retrieval.store": ("Exclusion", "Hits", "RetrievalStore", "load_store", "save_store"),
    "runs.results": ("read_runs",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "METHODS", "Clips", "Condition", "Config", "Dataset", "Exclusion", "Finding",
    "GatedRetrievalClassifier", "Hits", "Method", "MissingModalityImputer",
    "PooledRetrievalClassifier", "Prediction",
    "Protocol", "Provenance", "RAMERClassifier", "RetrievalStore", "Scaler", "all_conditions",
    "available_datasets", "by_condition", "calibration", "computing_on", "condition_mask", "configure",
    "confusion_matrix", "cut_dev", "f1", "find_leaks", "grouped_dataset", "load_dataset",
    "load_method", "load_store", "make_method", "random_masks", "read_folder", "read_runs", "save_store",
    "ua", "wa", "waf", "write_folder",
]  # fmt: skip


def __getattr__(name: str) -> object:
    "A public name, loaded from its module. Raises AttributeError with the nearest name."
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    near = difflib.get_close_matches(name, _HOME, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{hint}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
