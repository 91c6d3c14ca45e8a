"""The kernels of the `conv` dialect that are no convolutions."""

from __future__ import annotations

from convjit.ir.elementwise import ElementwiseOp
from convjit.ir.norm import NormOp
from convjit.ir.pool import PoolGradientOp, PoolOp
from convjit.ir.rearrange import RearrangeOp
from convjit.ir.softmax import SoftmaxOp

OtherOp = ElementwiseOp | PoolOp | PoolGradientOp | NormOp | SoftmaxOp | RearrangeOp
"""Any of them."""
