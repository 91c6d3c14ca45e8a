"""Random programs: one to four convolutions with epilogues, as a module or a function, forward or with gradients."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from definition import BatchNorm, Noise, noisy
from mlx.utils import tree_flatten, tree_unflatten
from random_epilogues import ACTIVATIONS, COMBINATIONS, Epilogue, random_epilogue
from random_layers import Function, Layer, random_layer
from reference import Array, round_to

import convjit
from convjit.gradients.transforms import differentiable_convolutions

DTYPES = {"f32": mx.float32, "f16": mx.float16, "bf16": mx.bfloat16}
EPSILONS = {"f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}
"""Half the distance from 1 to the next number."""

CALLS = ("module", "arguments", "batched")
"""How a program is called; "batched" is `mx.vmap` of the compiled function, over inputs."""
GRADIENTS = (
    *("gradients of the module", "gradients by arguments"),  # compiled with the gradient inside
    *("gradients of the compiled module", "gradients of the compiled function", "tangents of the compiled function"),
)


@dataclass(frozen=True)
class Block:
    """A layer, its layout in the program, and what is behind it."""

    layer: Layer
    channels_first: bool
    epilogue: Epilogue


class BlockModule(nn.Module):
    """A block with parameters.

    Args:
        block: what to compute.
        exact: compute it from the definition, in float64?
    """

    def __init__(self, block: Block, exact: bool):
        super().__init__()
        self._block = block
        layer = block.layer
        self.conv = Function(layer.define) if exact else layer.make()
        self._reads_first = layer.channels_first and not exact
        self.extras = [mx.zeros(shape) for shape in block.epilogue.extra_shapes]
        if block.epilogue.has_norm:
            self.norm = (BatchNorm if exact else nn.BatchNorm)(layer.out_shape[-1])

    def __call__(self, x: mx.array) -> list[mx.array]:
        """From an input in the block's layout to results in the same."""
        first = self._block.channels_first
        y = x
        if first != self._reads_first:
            y = mx.moveaxis(y, 1, -1) if first else mx.moveaxis(y, -1, 1)
        y = self.conv(y)
        if first != self._reads_first:
            y = mx.moveaxis(y, -1, 1) if first else mx.moveaxis(y, 1, -1)
        return self._block.epilogue(y, x, self.extras, self.norm if "norm" in self else None)


class Chain(nn.Module):
    """Blocks one after the other; the results of the last one."""

    def __init__(self, blocks: tuple[Block, ...], exact: bool):
        super().__init__()
        self.blocks = [BlockModule(block, exact) for block in blocks]
        self._first = [block.channels_first for block in blocks]

    def __call__(self, x: mx.array) -> list[mx.array]:
        results, is_first = [x], self._first[0]
        for block, first in zip(self.blocks, self._first, strict=True):
            y = results[0]
            if first != is_first:
                y = mx.moveaxis(y, -1, 1) if first else mx.moveaxis(y, 1, -1)
            results, is_first = block(y), first
        return results


def with_arrays(chain: Chain, arrays: dict[str, mx.array]) -> Chain:
    """The chain with other arrays; `chain` itself stays as it is."""
    twin = copy.copy(chain)
    twin.blocks = [copy.copy(block) for block in chain.blocks]
    for number, block in enumerate(twin.blocks):
        block.conv = copy.copy(block.conv)
        block.extras = list(block.extras)
        if "norm" in block:
            block.norm = copy.copy(block.norm)
            block.norm.update(_below(arrays, f"blocks.{number}.norm."))
        block.conv.update(_below(arrays, f"blocks.{number}.conv."))
        block.extras = [arrays[f"blocks.{number}.extras.{n}"] for n in range(len(block.extras))]
    return twin


def _below(arrays: dict[str, mx.array], prefix: str) -> dict[str, mx.array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


@dataclass(frozen=True)
class Program:
    """A case of the test.

    Attributes:
        blocks: the layers.
        dtype: of all arrays.
        form: how the chain is called, one of `CALLS` or `GRADIENTS`.
        training: of the modules.
        x: the input, in the layout of the first block.
        arrays: the parameters by their path in the module, and BatchNorm's statistics.
        cotangents: for each result.
    """

    blocks: tuple[Block, ...]
    dtype: str
    form: str
    training: bool
    x: Array
    arrays: dict[str, Array]
    cotangents: tuple[Array, ...]

    def __str__(self) -> str:
        lines = [f"{self.form}, {self.dtype}{', training' if self.training else ''}"]
        for block in self.blocks:
            lines.append(f"  {block.layer.words}{', channels first' if block.channels_first else ''}")
            lines.append(f"    {block.epilogue}")
        return "\n".join(lines)

    @property
    def has_gradients(self) -> bool:
        return self.form in GRADIENTS

    @property
    def is_one_kernel(self) -> bool:
        """Are all results those of one kernel, rounded once when they are stored?"""
        steps = {step.name for block in self.blocks for step in block.epilogue.steps}
        return len(self.blocks) == 1 and self.form in CALLS[:2] and steps <= {*ACTIVATIONS, *COMBINATIONS}

    def run(self, *, plain: bool = False) -> list[Array]:
        """The results and, in a form with gradients, those; then what BatchNorm wrote. Compiled unless `plain`."""
        dtype = DTYPES[self.dtype]
        chain = self._chain(exact=False, dtype=dtype)
        if not plain:
            return self._results(chain, lambda f: convjit.compile(f, backend="cpu", fallback="error"), dtype)
        with differentiable_convolutions():  # MLX's have no tangents
            return self._results(chain, lambda f: f, dtype)

    def exact(self, noise: Noise | None = None) -> list[Array]:
        """The same from the definition, in float64, with errors as kernels make them if there is noise."""
        with noisy(noise):
            return self._results(self._chain(exact=True, dtype=mx.float64), lambda f: f, mx.float64)

    def _chain(self, *, exact: bool, dtype: mx.Dtype) -> Chain:
        chain = Chain(self.blocks, exact)
        chain.train(self.training)
        chain.update(tree_unflatten([(n, _array(a, dtype)) for n, a in self.arrays.items()]))
        return chain

    def _results(self, chain: Chain, compiled: Any, dtype: mx.Dtype) -> list[Array]:
        x = _array(self.x, dtype)
        weights = [_array(c, dtype) for c in self.cotangents]
        names = [name for name, _ in tree_flatten(chain.trainable_parameters())]
        everything = dict(tree_flatten(chain.parameters()))

        def loss(results: list[mx.array]) -> mx.array:
            return sum((mx.sum(r * c) for r, c in zip(results, weights, strict=True)), start=mx.zeros((), dtype))

        def by_arrays(x: mx.array, arrays: dict[str, mx.array]) -> list[mx.array]:
            return with_arrays(chain, {**everything, **arrays})(x)

        trained = {name: everything[name] for name in names}
        match self.form:
            case "module":
                results: Any = compiled(chain)(x)
            case "arguments":
                results = compiled(by_arrays)(x, trained)
            case "batched":
                both = mx.stack([x, x * 0.5])
                if dtype == mx.float64:
                    results = [mx.stack(r) for r in zip(*(by_arrays(one, trained) for one in both), strict=True)]
                else:
                    results = mx.vmap(compiled(by_arrays), in_axes=(0, None))(both, trained)
            case "gradients of the module":
                results = compiled(nn.value_and_grad(chain, lambda x: loss(chain(x))))(x)
            case "gradients by arguments":

                def gradients(x: mx.array, arrays: dict[str, mx.array]) -> Any:
                    return mx.value_and_grad(lambda x, a: loss(by_arrays(x, a)), argnums=(0, 1))(x, arrays)

                results = compiled(gradients)(x, trained)
            case "gradients of the compiled module":
                fast = compiled(chain)
                results = nn.value_and_grad(chain, lambda x: loss(fast(x)))(x)
            case "gradients of the compiled function":
                fast = compiled(by_arrays)
                results = mx.value_and_grad(lambda x, a: loss(fast(x, a)), argnums=(0, 1))(x, trained)
            case _:
                fast, arrays = compiled(by_arrays), list(trained.values())
                tangents = [mx.cos(3 * a) for a in (x, *arrays)]
                results = mx.jvp(lambda x, *a: fast(x, dict(zip(names, a, strict=True))), [x, *arrays], tangents)
        statistics = [a for name, a in tree_flatten(chain.parameters()) if name not in names]
        return [_numbers(a) for _, a in tree_flatten([results, statistics])]


def _array(value: Array, dtype: mx.Dtype) -> mx.array:
    return mx.array(value, dtype=mx.float64).astype(dtype)


def _numbers(array: mx.array) -> Array:
    return np.array(array.astype(mx.float64))


def random_program(rng: np.random.Generator) -> Program:
    """One in five a network, one in five with gradients."""
    rank = int(rng.choice([1, 2, 2, 2, 3]))
    has_gradients = bool(rng.random() < 0.2)
    form = str(rng.choice(GRADIENTS) if has_gradients else rng.choice(CALLS, p=(0.46, 0.46, 0.08)))
    length = int(rng.integers(2, 5)) if rng.random() < 0.2 else 1
    dtype = str(rng.choice(["f32", "f32", "f32", "f16", "bf16"]))
    products = 3_000_000 // length if form in CALLS[:2] else 300_000  # the others run MLX's own, which are slow
    blocks: list[Block] = []
    shape: tuple[int, ...] | None = None
    for number in range(length):
        layer = random_layer(rng, shape, rank, products, has_gradients=has_gradients)
        first = bool(rng.random() < 0.3)
        shape = layer.out_shape
        x, y = (_first(s) if first else s for s in (layer.in_shape, shape))
        blocks.append(Block(layer, first, random_epilogue(rng, x, y, first, chained=number < length - 1)))
    program = _with_numbers(rng, tuple(blocks), dtype, form)
    if length == 1 and form in CALLS[:2] and rng.random() < 0.2:
        for special in (np.nan, np.inf, -np.inf, 1e-40, -0.0):
            program.x.reshape(-1)[rng.integers(program.x.size)] = special
    return program


def _with_numbers(rng: np.random.Generator, blocks: tuple[Block, ...], dtype: str, form: str) -> Program:
    def draw(shape: tuple[int, ...], scale: float = 1.0) -> Array:
        return round_to(np.asarray(rng.standard_normal(shape)) * scale, dtype)

    arrays: dict[str, Array] = {}
    for number, block in enumerate(blocks):
        layer, path = block.layer, f"blocks.{number}"
        arrays[f"{path}.conv.weight"] = draw(layer.weight_shape, layer.fan_in**-0.5)
        arrays.update({f"{path}.extras.{n}": draw(s) for n, s in enumerate(block.epilogue.extra_shapes)})
        if block.epilogue.has_norm:
            channels = (layer.out_shape[-1],)
            for name in ("weight", "bias", "running_mean"):
                arrays[f"{path}.norm.{name}"] = draw(channels)
            arrays[f"{path}.norm.running_var"] = round_to(rng.uniform(0.5, 2, channels), dtype)
    x = draw(_first(blocks[0].layer.in_shape) if blocks[0].channels_first else blocks[0].layer.in_shape)
    training = bool(rng.random() < 0.4)
    program = Program(blocks, dtype, form, training, x, arrays, ())
    if not program.has_gradients:
        return program
    y = blocks[-1].layer.out_shape
    y = _first(y) if blocks[-1].channels_first else y
    last = blocks[-1].epilogue
    summed = {n for n, step in enumerate(last.steps, 1) if step.name == "sum"}
    shapes = [(y[0], y[1] if last.channels_first else y[-1]) if n in summed else y for n in last.results]
    cotangents = tuple(map(draw, shapes))
    return Program(blocks, dtype, form, training, x, arrays, cotangents)


def _first(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], shape[-1], *shape[1:-1])
