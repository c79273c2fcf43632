"""A trained model as plain files: weights, labels, preprocessing, self-test. Nothing in a bundle can run code."""

from __future__ import annotations

from pellucid.bundle.comparison import compare
from pellucid.bundle.evaluation import evaluate
from pellucid.bundle.folder import load, save, verify
from pellucid.bundle.recogniser import Prediction, Recogniser, infer

__all__ = ["Prediction", "Recogniser", "compare", "evaluate", "infer", "load", "save", "verify"]
