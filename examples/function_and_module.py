"""What can be compiled: functions, methods, modules and classes; what is compiled anew; what falls back.

python examples/function_and_module.py
"""

import warnings

import mlx.core as mx
import mlx.nn as nn

import convjit


@convjit.compile
def block(x, w, b, stride=1):
    return nn.relu(mx.conv2d(x, w, stride=stride, padding=1) + b)


@convjit.compile(fallback="error")  # options in parentheses; this one refuses what cannot be compiled
def strict(x, w):
    return mx.conv2d(x, w)


@convjit.compile  # a class: every instance runs compiled
class Stem(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def __call__(self, x):
        return nn.silu(self.conv(x))


x, w, b = mx.random.normal((1, 8, 8, 3)), mx.random.normal((4, 3, 3, 3)), mx.zeros(4)

print("== each new shape, dtype or constant is compiled once, and then found again")
for y in (block(x, w, b), block(x, w, b), block(x, w, b, stride=2), block(mx.concatenate([x, x]), w, b)):
    print(y.shape)

print("== new weights need nothing: an instance compiles like any function")
stem = convjit.compile(Stem())
print(stem(x).sum().item())
stem.conv.weight = stem.conv.weight * 2
print(stem(x).sum().item())

print("== gradients")
print(mx.grad(lambda w: block(x, w, b).sum())(w).shape)

print("== a function that reads numbers while it runs cannot be traced: it runs as plain MLX, and says so once")


@convjit.compile
def normalised(x, w):
    y = mx.conv2d(x, w)
    return y / y.max().item()


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    normalised(x, w)
    normalised(x, w)
print(*(w.message for w in caught))
print(convjit.inspect.explain(normalised))

print('== with fallback="error" that is an exception')
try:
    convjit.compile(lambda x, w: mx.conv2d(x, w).sum().item(), fallback="error")(x, w)
except convjit.CompileError as error:
    print("CompileError:", error)
print(strict(x, w).shape)
