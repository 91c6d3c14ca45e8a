"""Runs Metal kernels on a machine without Metal.

    kernel = simulator.metal_kernel(...)           # for mx.fast.metal_kernel
    results = simulator.run(function, *arrays)     # or a function of such kernels

takes the exact text that MLX would hand to Metal, compiles it with the host's C++ compiler against a stand-in for
Apple's headers, and runs it in a process of its own: a threadgroup at a time, every thread a fiber. With `check=True`,
every access to memory is watched. Slow, exact, and with clear errors. It is what the tests of Metal kernels run on.

It stands alone: any kernel can be run, not only convjit's; `python -m convjit.simulator --help` does it from the shell.
README.md tells more.
"""

from convjit.simulator.capture import Launch, Trace, capture
from convjit.simulator.compiler import CompileError
from convjit.simulator.execute import Counters, Execution, KernelError, execute, run
from convjit.simulator.kernel import metal_kernel
from convjit.simulator.lint import Finding, lint
from convjit.simulator.typecheck import type_check

__all__ = [
    "CompileError",
    "Counters",
    "Execution",
    "Finding",
    "KernelError",
    "Launch",
    "Trace",
    "capture",
    "execute",
    "lint",
    "metal_kernel",
    "run",
    "type_check",
]
