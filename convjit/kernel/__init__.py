"""A kernel to be written, as a frozen value: a convolution or a norm and its epilogue, elementwise ops, a pool, a
softmax, a rearrangement.

This is what passes hand to schedules, templates and backends: hashable, printable, and buildable by hand in a
test. No IR, no MLX, no text of any language.
"""

from __future__ import annotations

from convjit.kernel.convolution import Accuracy, Kernel, Operation
from convjit.kernel.elementwise import Elementwise, Result
from convjit.kernel.epilogue import DTYPES, Epilogue, Extra, Instruction, identity_epilogue
from convjit.kernel.norm import Norm
from convjit.kernel.pack import Pack
from convjit.kernel.pool import Pool, PoolGradient, PoolKind
from convjit.kernel.rearrange import Part, Rearrange
from convjit.kernel.softmax import Softmax

OtherKernel = Elementwise | Pool | PoolGradient | Norm | Softmax | Rearrange
"""What is no convolution."""

AnyKernel = Kernel | OtherKernel
"""Whatever a step of a stretch runs."""

__all__ = [
    "DTYPES",
    "Accuracy",
    "AnyKernel",
    "Elementwise",
    "Epilogue",
    "Extra",
    "Instruction",
    "Kernel",
    "Norm",
    "Operation",
    "OtherKernel",
    "Pack",
    "Part",
    "Pool",
    "PoolGradient",
    "PoolKind",
    "Rearrange",
    "Result",
    "Softmax",
    "identity_epilogue",
]
