"""`convjit.compile`: a function or a module -> one that runs its convolutions on generated kernels."""

from __future__ import annotations

import functools
from typing import Any

import mlx.nn as nn

from convjit.compiled import Compiled
from convjit.kernel import Accuracy
from convjit.options import Fallback, Options


def compile(
    function: Any = None,
    *,
    backend: str | None = None,
    fallback: Fallback = "warn",
    pipeline: str | None = None,
    inputs: Any = None,
    outputs: Any = None,
    tune: bool = False,
    accuracy: Accuracy = "fast",
) -> Any:
    """Compile the convolutions of a function or a module, with what surrounds them fused in.

    The result is called like the original and gives the same results; gradients flow as before: under `mx.grad` the
    CPU backend runs programs for it, under any other transformation of MLX the original runs. Each new combination of
    structure, shapes, dtypes, constants, and attributes that it reads, is captured once, as with `mx.compile`. Weights
    may change at any time. Arguments and results are arrays in lists, tuples, dicts and data classes; arguments may be
    modules and any other object with attributes, too.

    Args:
        function: a function, a method, an `nn.Module` instance or an `nn.Module` class. Without it, a
            decorator with these options is returned.
        backend: "cpu", "metal" or "simulator"; by default what MLX's default device calls for.
        fallback: what to do where something cannot be compiled: "warn" once and run plain MLX, raise an "error", or
            stay "quiet".
        pipeline: the passes up to fused kernels, as one spec string; by default `convjit.passes.OPTIMIZE`. It may
            name passes of your own (`convjit.passes.register`); a mistake in it is a `PipelineError` at the first call.
        inputs, outputs: state as in `mx.compile`. Not needed, because all state that a function reads or writes is
            found, and written back, whether it is named here or not: modules, optimizers, `mx.random.state`, and any
            list, dict or object of arrays.
        tune: measure, at the first call of a signature, the ways to run each kernel that is new on this machine, and
            MLX's own op, and keep what is clearly the fastest, for later processes too. See `convjit.tune`.
        accuracy: what may be traded for speed, as relative to the largest result in float32. "precise": sums of
            products as defined. "fast": on a CPU Winograd's algorithms with small tiles, where they pay: errors below
            5e-6, infinities and NaN as defined; on Metal sums as defined, long ones in fewer parts than with "precise".
            "fastest": larger tiles, on Metal, too: 2.4e-6 there, and an infinity or NaN spoils a tile of up to 4x4
            outputs.

    Returns:
        What `function` was: a callable with its name and attributes, or the class itself, whose instances are compiled.
        Attributes that are set on a compiled model are set on the model; a copy or a pickle of it compiles anew. It is
        no `nn.Module`: inside another one its parameters are not found, so compile the outermost, or the class.

    Example:
        >>> fast = convjit.compile(model)
        >>> y = fast(x)
        >>> print(convjit.inspect.explain(fast))

    Raises:
        TypeError: if `function` is not callable; at a call, for an argument that is neither an array, a list, tuple or
            dict of such, an object with attributes, nor hashable.
        ValueError: for an unknown `fallback` or `accuracy`; at a call, for arguments that make no convolution.
        CompileError: at a call with `fallback="error"`, if the function, one of its convolutions or, on a CPU, a linear
            layer has to stay plain MLX.
        PipelineError: at a call, for a mistake in `pipeline`.
    """
    if fallback not in ("warn", "error", "quiet"):
        raise ValueError(f"fallback must be 'warn', 'error' or 'quiet', got {fallback!r}")
    if accuracy not in ("precise", "fast", "fastest"):
        raise ValueError(f"accuracy must be 'precise', 'fast' or 'fastest', got {accuracy!r}")
    if function is None:
        return functools.partial(
            compile,
            backend=backend,
            fallback=fallback,
            pipeline=pipeline,
            inputs=inputs,
            outputs=outputs,
            tune=tune,
            accuracy=accuracy,
        )
    if not callable(function):
        raise TypeError(
            f"convjit.compile takes a function or a module, got an object of type {type(function).__name__}"
        )
    options = Options(backend, fallback, pipeline, tune, accuracy)
    if isinstance(function, type):
        return _compile_class(function, options)
    if isinstance(function, staticmethod):
        return staticmethod(Compiled(function.__func__, options))
    return Compiled(function, options)


def _compile_class(cls: type, options: Options) -> type:
    """Compile the calls of every instance of a Module class; the class itself is returned."""
    if not issubclass(cls, nn.Module):
        raise TypeError(f"convjit.compile takes a subclass of nn.Module, got the class {cls.__name__}")
    plain = cls.__call__
    compiled = Compiled(plain, options)
    cls.__call__ = compiled  # pyright: ignore[reportAttributeAccessIssue]
    return cls
