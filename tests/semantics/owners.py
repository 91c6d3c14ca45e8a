"""What holds arrays and numbers that a compiled function reads, and how often it was captured."""

from collections import deque
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from checks import ConvNorm

import convjit

CONV = nn.Conv2d(3, 4, 3)


def captures(fast: Any) -> int:
    return convjit.compiled.compiled_of(fast)._captures


class Trainer:
    """Keeps books beside a model, as people do."""

    def __init__(self):
        self.model = ConvNorm()
        self.optimizer = optim.SGD(0.01, momentum=0.9)
        self.loss_and_gradients = nn.value_and_grad(self.model, self.loss)
        self.step_number, self.best = 0, float("inf")
        self.losses, self.recent, self.by_step = [], deque(maxlen=2), {}
        self.seen = {"images": 0}

    def loss(self, x):
        return (self.model(x) ** 2).mean()

    def step(self, x):
        loss, gradients = self.loss_and_gradients(x)
        self.optimizer.update(self.model, gradients)
        return loss

    def keep_books(self, loss, x):
        self.step_number += 1
        self.best = min(self.best, loss.item())
        self.losses.append(loss)
        self.recent.append(loss)
        self.by_step[self.step_number] = loss
        self.seen["images"] += len(x)
        self.last = loss
        setattr(self, f"new{self.step_number}", loss)


class Net(nn.Module):
    scale = 3.0

    def __init__(self, read=lambda net: net.factor):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.factor, self.unread = 2.0, 1.0
        self.read = read

    def __call__(self, x):
        return self.conv(x) * self.read(self)


class Plain:
    """The same without arrays of its own."""

    scale = 3.0

    def __init__(self, read):
        self.factor, self.unread = 2.0, 1.0
        self.read = read

    @property
    def doubled(self):
        return self.factor * 2

    def __getattr__(self, name):
        if name == "renamed":
            return self.factor
        raise AttributeError(name)


class Holding(Plain):
    """The same with an array."""

    def __init__(self, read):
        super().__init__(read)
        self.weight = mx.ones((4,))


def function_of(kind, read):
    """An object, and a function that reads it."""
    owner = kind(read)

    def function(x):
        weight = owner.weight if kind is Holding else 1.0
        return CONV(x) * owner.read(owner) * weight

    return owner, owner if kind is Net else function


@dataclass(slots=True)
class Slotted:
    loss: Any
