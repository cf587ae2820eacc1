"The methods that properties are tested on, by kind; those of an optional package if it is there."

from importlib.util import find_spec

from ramer.runs.grids import CLASSICAL as IN_GRIDS
from ramer.runs.grids import FIVE, RECENT

TABM, POOLED = (("tabm",), ("ramer-pooled",)) if find_spec("tabm") else ((), ())
COMPLETE_ONLY = (*FIVE, "ae-lineage")  # they learn from complete clips alone
NETWORKS = (*COMPLETE_ONLY, "transformer", *RECENT, *TABM)
CLASSICAL = (*(name for name in IN_GRIDS if name != "tabm"), "inverse-probability")
CROSSFITTED = ("ramer-crossfit", "ramer-aligned")
RETRIEVING = ("store-mean", "random", "ramer", "ramer-raw", *CROSSFITTED, "ramer-released")
