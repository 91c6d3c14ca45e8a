"""What the compiler did with a block: who was fused into what, the IR by stage, and the kernel's text.

python examples/inspect_ir.py
"""

import mlx.core as mx
import mlx.nn as nn

import convjit

model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm(8), nn.SiLU())
model.eval()
x = mx.random.normal((1, 16, 16, 3))

fast = convjit.compile(model)
fast(x)  # compiled at the first call; `inspect` speaks of what was compiled last

print("== explain: one row a convolution")
explanation = convjit.inspect.explain(fast)
print(explanation)
print("as values:", [(row.layer, row.fused) for row in explanation.rows])

# BatchNorm and SiLU are many primitives in what MLX traces, and none behind the passes.
for stage in ("traced", "fused", "scheduled"):
    print(f"\n== ir: {stage}")
    print(convjit.inspect.ir(fast, stage))

print("\n== ir behind one pass, and its name in the pipeline: fold-scale")
print(convjit.inspect.ir(fast, "fold-scale"))

# The same block for a Mac's GPU. The simulator runs this text on any machine.
metal = convjit.compile(model, backend="simulator")
difference = mx.abs(metal(x) - model(x)).max().item()
print("\n== source: the Metal text")
print(convjit.inspect.source(metal, explanation.rows[0].layer))
print(f"run by the simulator, largest difference from plain MLX: {difference:.1e}")
