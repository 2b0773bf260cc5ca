"""Fashion-MNIST (60,000 images of 28x28, 10 kinds of clothes) with a small CNN."""

import gzip
import math

import torch
from torch import Tensor, nn

from shardwise import AdamW, Task, Tensors, WarmupCosine
from shardwise.examples.datasets import fashion_mnist_directory


def read_idx(name: str) -> Tensor:
    """One of the data set's files: http://yann.lecun.com/exdb/mnist describes the format."""
    data = gzip.decompress((fashion_mnist_directory() / name).read_bytes())
    dimensions = data[3]
    shape = [int.from_bytes(data[4 * i + 4 : 4 * i + 8], "big") for i in range(dimensions)]
    start = 4 + 4 * dimensions
    return torch.frombuffer(
        bytearray(data[start : start + math.prod(shape)]), dtype=torch.uint8
    ).view(shape)


def images(part: str) -> Tensors:
    x = read_idx(f"{part}-images-idx3-ubyte.gz").float().unsqueeze(1)
    return Tensors((x / 255.0 - 0.286) / 0.353, read_idx(f"{part}-labels-idx1-ubyte.gz").long())


def task(width: int = 16, learning_rate: float = 0.004) -> Task:
    model = nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * 7 * 7, 10),
    )
    return Task(
        model=model,
        train=images("train"),
        evaluation=images("t10k"),
        loss=lambda m, batch: nn.functional.cross_entropy(m(batch[0]), batch[1], reduction="none"),
        metrics=lambda m, batch: {"accuracy": (m(batch[0]).argmax(1) == batch[1]).float()},
        optimizer=AdamW(learning_rate=learning_rate),
        schedule=WarmupCosine(warmup_steps=50),
    )
