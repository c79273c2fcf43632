"""Networks: by name, by the notation INPUT -> CONV -> POOL -> FC, their summary, and why one does not fit an image."""

from __future__ import annotations

from pellucid.nets.build import NAMES, Network, build, input_of, parse
from pellucid.nets.shapes import ShapeError, check
from pellucid.nets.summary import Summary, summary

__all__ = ["NAMES", "Network", "ShapeError", "Summary", "build", "check", "input_of", "parse", "summary"]
