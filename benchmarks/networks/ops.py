"""The ops that networks are made of. A network is a function of them, so that every engine runs the same one."""

from __future__ import annotations

from typing import Protocol, TypeVar

T = TypeVar("T")


class Ops(Protocol[T]):
    """Ops on images (N, height, width, C) and vectors (N, C), whatever stands for them.

    Those with a name have weights of that name. Convolutions are square; `padding` is on all sides.
    """

    def conv(
        self,
        name: str,
        x: T,
        channels: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = True,
    ) -> T: ...

    def linear(self, name: str, x: T, channels: int) -> T:
        """A product with a matrix along the channels, and a bias."""
        ...

    def batch_norm(self, name: str, x: T) -> T:
        """With running statistics."""
        ...

    def layer_norm(self, name: str, x: T) -> T:
        """Over the channels of every pixel."""
        ...

    def group_norm(self, name: str, x: T, groups: int) -> T: ...

    def scale(self, name: str, x: T) -> T:
        """A factor for each channel."""
        ...

    def relu(self, x: T) -> T: ...

    def relu6(self, x: T) -> T: ...

    def silu(self, x: T) -> T: ...

    def sigmoid(self, x: T) -> T: ...

    def gelu(self, x: T) -> T:
        """With the error function."""
        ...

    def add(self, x: T, y: T) -> T: ...

    def multiply(self, x: T, gate: T) -> T:
        """`gate` is (N, 1, 1, C)."""
        ...

    def max_pool(self, x: T, kernel: int, stride: int, padding: int) -> T: ...

    def mean(self, x: T) -> T:
        """Over all pixels: (N, C)."""
        ...

    def mean_pixel(self, x: T) -> T:
        """Over all pixels: (N, 1, 1, C)."""
        ...

    def upsample(self, x: T) -> T:
        """Every pixel four times."""
        ...
