"""What Keras's arms share: Keras itself, how they answer, and the network of the Keras CIFAR-10 example."""

from __future__ import annotations

import json
import os

# Keras and its back ends print to stdout; the answers need it for themselves.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import keras  # noqa: E402
from keras import layers  # noqa: E402

__all__ = ["answer", "cifar_cnn", "keras", "layers"]


def answer(**values: object) -> None:
    answers.write(json.dumps(values) + "\n")
    answers.flush()


def cifar_cnn(activation: str | None = None) -> keras.Sequential:
    """With `activation` behind its last layer."""
    return keras.Sequential([
        keras.Input((32, 32, 3)),
        layers.Conv2D(32, 3, padding="same", activation="relu"), layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(2), layers.Dropout(0.25),
        layers.Conv2D(64, 3, padding="same", activation="relu"), layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPooling2D(2), layers.Dropout(0.25),
        layers.Flatten(), layers.Dense(512, activation="relu"), layers.Dropout(0.5),
        layers.Dense(10, activation=activation),
    ])  # fmt: skip
