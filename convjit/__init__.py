"""convjit: a JIT compiler for convolutions in MLX.

    fast = convjit.compile(model)                   # or a function, or as a decorator
    y = fast(x)                                     # same calls, same results
    print(convjit.inspect.explain(fast))            # what was fused into what, and what was not and why

Names:
    compile: a function or an `nn.Module` -> one that runs its convolutions on generated kernels.
    disable, enable: plain MLX for every compiled function, and back.
    tune: measure the ways to run each convolution on this machine, and keep the fastest.
    inspect: IR by stage, kernel sources, explanations.
    nn: convolution layers with everything that MLX's offer, and what they lack.
    passes: the pipeline, and how passes of your own join it (`passes.register`).
    FallbackWarning, CompileError, PipelineError: what stays plain MLX; the same as an error; a mistake in `pipeline=`.
    RecaptureWarning: a function is captured again and again, because something changes in every call.
"""

__version__ = "0.1.0"

from convjit import inspect, nn, passes
from convjit.compile import compile
from convjit.compiled import disable, enable
from convjit.errors import CompileError, FallbackWarning, PipelineError, RecaptureWarning
from convjit.tune import tune

__all__ = [
    "CompileError",
    "FallbackWarning",
    "PipelineError",
    "RecaptureWarning",
    "compile",
    "disable",
    "enable",
    "inspect",
    "nn",
    "passes",
    "tune",
]
