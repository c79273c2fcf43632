"""One of the processes of an arm of scaling.py: the loop of `pellucid train`, alone or with others."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch

from pellucid import nets
from pellucid.data.batches import Batches, Shard
from pellucid.data.preprocess import Preprocess
from pellucid.recipe import Engine, Recipe, settle
from pellucid.training import processes
from pellucid.training.loop import Training, place
from pellucid.training.losses import make_loss
from pellucid.training.machine import computing

net, path, batch, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
with np.load(path) as arrays:
    pixels, labels = arrays["pixels"], arrays["labels"]
side, channels = pixels.shape[1], pixels.shape[3]
preprocess = Preprocess((side, side), "crop", channels, (0.5,) * channels, (0.25,) * channels)
engine = Engine(precision="float32", layout="nhwc", threads=threads, device="cpu")
recipe = settle(
    Recipe(net=net, engine=engine),
    batch_size=batch,
    optimizer="nesterov",
    lr=0.01,
    schedule="constant",
    weight_decay=0.0,
    epochs=1000,
)
with computing(engine), processes.together():
    shard = Shard(processes.rank(), processes.size())
    batches = Batches(torch.from_numpy(pixels), torch.from_numpy(labels), preprocess, (), batch, seed=0, shard=shard)
    model = nets.build(net, 10, (channels, side, side), seed=0)
    training = Training(place(model, engine, torch.device("cpu")), batches, recipe, make_loss(recipe))
    print(json.dumps({"processes": processes.size(), "threads": threads}), flush=True)
    for _ in sys.stdin:
        # Nobody begins before all are awake.
        processes.any_of(False)
        begun = time.perf_counter()
        images = sum(training.run_epoch())
        loss, _ = training.sums()
        speed = images / (time.perf_counter() - begun)
        print(json.dumps({"images_per_second": speed, "loss": loss}), flush=True)
