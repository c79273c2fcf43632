"""The loop of a PyTorch tutorial, without its loader: float32 tensors already in memory, everything at its default."""

from __future__ import annotations

import itertools
import json
import sys
import time

import numpy as np
import torch
from torch import nn

from pytorch_common import cifar_cnn


class Block(nn.Module):
    """Two convolutions and their input, as in torchvision's resnet18."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        self.shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        if stride == 1:
            self.shortcut = nn.Sequential()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Their sum, through a ReLU."""
        return torch.relu(self.body(x) + self.shortcut(x))


net, path, batch = sys.argv[1], sys.argv[2], int(sys.argv[3])
with np.load(path) as arrays:
    x = torch.from_numpy((arrays["pixels"].astype(np.float32) / 255 - 0.5) / 0.25).permute(0, 3, 1, 2).contiguous()
    y = torch.from_numpy(arrays["labels"])
torch.manual_seed(0)
if net == "cifar-cnn":
    model = cifar_cnn()
elif net == "resnet18":
    widths, blocks = [64, 64, 128, 256, 512], []
    for below, width in itertools.pairwise(widths):
        blocks += [Block(below, width, width // below), Block(width, width, 1)]
    model = nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1), *blocks,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10),
    )  # fmt: skip
else:
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
        nn.Conv2d(16, 120, 5), nn.Tanh(), nn.Flatten(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10),
    )  # fmt: skip
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, nesterov=True)
loss_function = nn.CrossEntropyLoss()
parameters = sum(p.numel() for p in model.parameters())
print(
    json.dumps(
        {
            "precision": "float32",
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "parameters": parameters,
        }
    ),
    flush=True,
)
for _ in sys.stdin:
    begun = time.perf_counter()
    model.train()
    order = torch.randperm(len(x))
    for start in range(0, len(x), batch):
        index = order[start : start + batch]
        optimizer.zero_grad()
        loss = loss_function(model(x[index]), y[index])
        loss.backward()
        optimizer.step()
    print(json.dumps({"images_per_second": len(x) / (time.perf_counter() - begun)}), flush=True)
