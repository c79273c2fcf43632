"""Networks: by name, by the notation INPUT -> CONV -> POOL -> FC, their summary, and why one does not fit an image."""

from __future__ import annotations

from pellucid.nets.build import NAMES, build, input_of, parse, row_predictor
from pellucid.nets.initialise import initialise
from pellucid.nets.network import Network
from pellucid.nets.rows import next_row_loss
from pellucid.nets.shapes import ShapeError, check
from pellucid.nets.summary import Summary, summary
from pellucid.nets.variances import Variances, variances

__all__ = [
    "NAMES",
    "Network",
    "ShapeError",
    "Summary",
    "Variances",
    "build",
    "check",
    "initialise",
    "input_of",
    "next_row_loss",
    "parse",
    "row_predictor",
    "summary",
    "variances",
]
