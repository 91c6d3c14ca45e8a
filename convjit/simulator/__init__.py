"""Runs Metal kernels on a machine without Metal.

    results = simulator.run(function, *arrays)

calls `function`, whose kernels come from `mx.fast.metal_kernel`, takes the exact text that MLX would hand to Metal,
compiles it with the host's C++ compiler against a stand-in for Apple's headers, and runs it: a threadgroup at a time,
every thread a fiber. Slow, exact, and with clear errors. It is what the tests of Metal kernels run on.

It stands alone: any function of `mx.fast.metal_kernel` kernels can be run, not only convjit's.
"""

from convjit.simulator.capture import Launch, Trace, capture
from convjit.simulator.compiler import CompileError
from convjit.simulator.execute import KernelError, execute, run
from convjit.simulator.lint import lint
from convjit.simulator.typecheck import type_check

__all__ = ["CompileError", "KernelError", "Launch", "Trace", "capture", "execute", "lint", "run", "type_check"]
