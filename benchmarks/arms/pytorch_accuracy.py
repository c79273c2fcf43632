"""The Keras example's network and recipe in a PyTorch tutorial's loop, everything else at its default."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch
from torch import nn

from pytorch_common import cifar_cnn

path, seed, epochs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
print(json.dumps({"about": {"torch": torch.__version__, "threads": torch.get_num_threads()}}), flush=True)
begun = time.perf_counter()
with np.load(path) as arrays:
    x = torch.from_numpy(arrays["train_pixels"].astype(np.float32) / 255).permute(0, 3, 1, 2).contiguous()
    y = torch.from_numpy(arrays["train_labels"])
    test_x = torch.from_numpy(arrays["test_pixels"].astype(np.float32) / 255).permute(0, 3, 1, 2).contiguous()
    test_y = torch.from_numpy(arrays["test_labels"])
torch.manual_seed(seed)
model = cifar_cnn()
# As Keras's RMSprop is by default.
optimizer = torch.optim.RMSprop(model.parameters(), lr=0.001, alpha=0.9, eps=1e-7)
loss_function = nn.CrossEntropyLoss()
seconds = time.perf_counter() - begun
for epoch in range(1, epochs + 1):
    begun = time.perf_counter()
    model.train()
    order = torch.randperm(len(x))
    for start in range(0, len(x), 32):
        index = order[start : start + 32]
        optimizer.zero_grad()
        loss = loss_function(model(x[index]), y[index])
        loss.backward()
        optimizer.step()
    seconds += time.perf_counter() - begun
    model.eval()
    with torch.no_grad():
        right = sum(
            int((model(test_x[i : i + 500]).argmax(1) == test_y[i : i + 500]).sum()) for i in range(0, len(test_x), 500)
        )
    print(json.dumps({"epoch": epoch, "seconds": seconds, "accuracy": right / len(test_x)}), flush=True)
