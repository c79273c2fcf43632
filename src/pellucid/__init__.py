"""Pellucid: train image recognisers fast on your own pictures, and see every number they compute."""

from __future__ import annotations

__version__ = "0.1.0"
