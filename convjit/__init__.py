"""convjit: a JIT compiler for convolutions in MLX."""

from convjit import inspect
from convjit.compile import compile, disable, enable
from convjit.errors import CompileError, FallbackWarning

__all__ = ["CompileError", "FallbackWarning", "compile", "disable", "enable", "inspect"]
