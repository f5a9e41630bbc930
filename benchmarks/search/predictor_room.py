"""What the tables of the search take from those of the predictor, in the folder beside."""

import sys
from pathlib import Path

_FOLDER = str(Path(__file__).resolve().parents[1] / "predictor")
if _FOLDER not in sys.path:
    sys.path.append(_FOLDER)

from nasbench201_nets import EDGES, OPERATIONS, live_operations, parse_cell  # noqa: E402
from peers import Ours as OurPredictor  # noqa: E402
from scores import Spread, spread  # noqa: E402
from table_mlperf import Board, boards  # noqa: E402
from table_nasbench201 import prior  # noqa: E402
from table_output import Options, Row, markdown, options, show  # noqa: E402
from tables import nasbench201  # noqa: E402

__all__ = [
    "EDGES",
    "OPERATIONS",
    "Board",
    "Options",
    "OurPredictor",
    "Row",
    "Spread",
    "boards",
    "live_operations",
    "markdown",
    "nasbench201",
    "options",
    "parse_cell",
    "prior",
    "show",
    "spread",
]
