"""Handwritten digits (scikit-learn's bundled 1,797 images of 8x8) with a small MLP."""

import torch
from sklearn.datasets import load_digits
from torch import nn

from shardwise import SGD, Task, Tensors, WarmupCosine


def task(hidden: int = 128, learning_rate: float = 0.2) -> Task:
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32) / 16.0
    y = torch.tensor(labels)
    held_out = torch.arange(len(x)) % 5 == 0
    model = nn.Sequential(
        nn.Linear(64, hidden),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, 10),
    )
    return Task(
        model=model,
        train=Tensors(x[~held_out], y[~held_out]),
        evaluation=Tensors(x[held_out], y[held_out]),
        loss=lambda m, batch: nn.functional.cross_entropy(m(batch[0]), batch[1], reduction="none"),
        metrics=lambda m, batch: {"accuracy": (m(batch[0]).argmax(1) == batch[1]).float()},
        optimizer=SGD(learning_rate=learning_rate, momentum=0.9, weight_decay=1e-4),
        schedule=WarmupCosine(warmup_steps=10),
    )
