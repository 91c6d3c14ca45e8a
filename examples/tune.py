"""Measuring which kernel is the fastest on this machine, for one model, for once and for all.

python examples/tune.py
"""

import mlx.core as mx
import mlx.nn as nn

import convjit

model = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, 32, 5, padding=2, groups=32))
x = mx.random.normal((1, 24, 24, 3))

fast = convjit.compile(model)
tuning = convjit.tune(fast, x)  # runs the model once, and each way to run one of its kernels a few dozen times
print("== what was measured")
print(tuning)
print("as values:", [(row.layer, row.ways) for row in tuning.rows])

print("\n== what runs from now on, in later processes too")
print(convjit.inspect.explain(fast))
difference = mx.abs(fast(x) - model(x)).max().item()
print(f"largest difference from plain MLX: {difference:.1e}")

# At the first call, for kernels that are new on this machine; CONVJIT_TUNE=1 does it for a whole program.
again = convjit.compile(model, tune=True)
again(x)
same = convjit.inspect.kernels(again) == convjit.inspect.kernels(fast)
print(f"another function finds what was measured: {same}")
