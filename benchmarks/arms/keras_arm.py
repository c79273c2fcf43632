"""Keras 3's `fit` on arrays in memory, everything at its default; KERAS_BACKEND chooses TensorFlow or JAX."""

from __future__ import annotations

import sys
import time

import numpy as np

from keras_common import answer, cifar_cnn, keras, layers

net, path, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
with np.load(path) as arrays:
    x = (arrays["pixels"].astype(np.float32) / 255 - 0.5) / 0.25
    y = arrays["labels"]
keras.utils.set_random_seed(0)


def normalised(x: keras.KerasTensor, width: int, kernel: int, stride: int = 1) -> keras.KerasTensor:
    """A convolution and its normalisation."""
    x = layers.Conv2D(width, kernel, stride, padding="same", use_bias=False)(x)
    return layers.BatchNormalization()(x)


def resnet18() -> keras.Model:
    """As torchvision's, of Keras's layers."""
    inputs = keras.Input((64, 64, 3))
    x = layers.MaxPooling2D(3, 2, padding="same")(layers.ReLU()(normalised(inputs, 64, 7, 2)))
    for width in (64, 128, 256, 512):
        for number in range(2):
            stride = 2 if number == 0 and width > 64 else 1
            y = normalised(layers.ReLU()(normalised(x, width, 3, stride)), width, 3)
            x = layers.ReLU()(layers.Add()([y, normalised(x, width, 1, stride) if stride > 1 else x]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


if net == "cifar-cnn":
    model = cifar_cnn()
elif net == "resnet18":
    model = resnet18()
else:
    model = keras.Sequential([
        keras.Input((32, 32, 1)),
        layers.Conv2D(6, 5, activation="tanh"), layers.AveragePooling2D(2),
        layers.Conv2D(16, 5, activation="tanh"), layers.AveragePooling2D(2),
        layers.Conv2D(120, 5, activation="tanh"), layers.Flatten(),
        layers.Dense(84, activation="tanh"), layers.Dense(10),
    ])  # fmt: skip
model.compile(
    optimizer=keras.optimizers.SGD(0.01, momentum=0.9, nesterov=True),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)

answer(precision="float32", backend=keras.backend.backend(), keras=keras.__version__, parameters=model.count_params())
for _ in sys.stdin:
    begun = time.perf_counter()
    model.fit(x, y, batch_size=batch, epochs=1, shuffle=True, verbose=0)
    answer(images_per_second=len(x) / (time.perf_counter() - begun))
