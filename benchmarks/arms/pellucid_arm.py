"""Pellucid's own loop, as `pellucid train` runs it: uint8 in memory, the engine that the probe chose."""

from __future__ import annotations

import dataclasses
import json
import sys
import time

import numpy as np
import torch

from pellucid import nets
from pellucid.data.batches import Batches
from pellucid.data.preprocess import Preprocess
from pellucid.recipe import Recipe, settle
from pellucid.training.loop import Training, place
from pellucid.training.losses import make_loss
from pellucid.training.machine import computing
from pellucid.training.memory import keeping_freed
from pellucid.training.peak import step_flop
from pellucid.training.probe import choose

net, path, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
with np.load(path) as arrays:
    pixels, labels = arrays["pixels"], arrays["labels"]
side, channels = pixels.shape[1], pixels.shape[3]
preprocess = Preprocess((side, side), "crop", channels, (0.5,) * channels, (0.25,) * channels)
recipe = settle(
    Recipe(net=net), batch_size=batch, optimizer="nesterov", lr=0.01, schedule="constant", weight_decay=0.0, epochs=1000
)
batches = Batches(torch.from_numpy(pixels), torch.from_numpy(labels), preprocess, (), batch, seed=0)
with keeping_freed():
    model = nets.build(net, 10, (channels, side, side), seed=0)
    loss = make_loss(recipe)
    measured = choose(model, batches, recipe, loss, again=True)
    engine = measured.engine
    recipe = dataclasses.replace(recipe, engine=engine)
    with computing(engine):
        training = Training(place(model, engine, torch.device("cpu")), batches, recipe, loss)
        about = {"precision": engine.precision, "layout": engine.layout, "threads": engine.threads}
        flop = step_flop(training, *next(batches.epoch(0))) / batch
        print(json.dumps({**about, "torch": torch.__version__, "flop": flop, "probe": measured.table}), flush=True)
        for _ in sys.stdin:
            begun = time.perf_counter()
            images = sum(training.run_epoch())
            training.sums()
            print(json.dumps({"images_per_second": images / (time.perf_counter() - begun)}), flush=True)
