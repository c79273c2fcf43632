"""The Keras CIFAR-10 example: RMSprop, batch 32, pixels from 0 to 1. A line for the data, then one an epoch."""

from __future__ import annotations

import sys
import time

import numpy as np

from keras_common import answer, cifar_cnn, keras

path, seed, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

answer(about={"backend": keras.backend.backend(), "keras": keras.__version__})
begun = time.perf_counter()
with np.load(path) as arrays:
    x, y = arrays["train_pixels"].astype(np.float32) / 255, arrays["train_labels"]
    test_x, test_y = arrays["test_pixels"].astype(np.float32) / 255, arrays["test_labels"]
keras.utils.set_random_seed(seed)
model = cifar_cnn("softmax")
model.compile(optimizer="rmsprop", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
seconds = time.perf_counter() - begun
for epoch in range(1, epochs + 1):
    begun = time.perf_counter()
    model.fit(x, y, batch_size=32, epochs=1, shuffle=True, verbose=0)
    seconds += time.perf_counter() - begun
    # Looking at the test pictures is no part of training, and is not counted.
    accuracy = float((model.predict(test_x, batch_size=500, verbose=0).argmax(1) == test_y).mean())
    answer(epoch=epoch, seconds=seconds, accuracy=accuracy)
