from __future__ import annotations

import numpy as np

from pellucid import nets
from pellucid.bundle.recogniser import infer
from pellucid.data.preprocess import Preprocess
from pellucid.training.inference import infer_together


def test_one_process_asks_about_all_pictures() -> None:
    """What several do is in test_processes.py."""
    model = nets.build("lenet5", 3, (1, 32, 32), seed=0)
    preprocess = Preprocess((32, 32), "crop", 1, (0.5,), (0.25,))
    pixels = np.random.default_rng(0).integers(0, 256, (131, 32, 32, 1), dtype=np.uint8)
    found = infer_together(model, preprocess, pixels, 3)
    assert np.array_equal(found, infer(model, preprocess, pixels))
