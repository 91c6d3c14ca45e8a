"""Records what Modular MAX's own Conv2d computes, for tests/nn/test_nn_max.py.

    python -m venv .venv/max && .venv/max/bin/pip install max==26.7.0
    .venv/max/bin/python tests/nn/record_max_cases.py           # or the names of some cases: a process may take minutes

Writes tests/nn/max_cases.npz: for each case its arguments as JSON, the input, the parameters and the output.
`permute=True` needs a GPU there, so it is not recorded.
"""

import json
import sys
from pathlib import Path

import numpy as np
from max.driver import CPU
from max.dtype import DType
from max.experimental.nn import Conv2d
from max.experimental.tensor import Tensor

RECORDS = Path(__file__).parent / "max_cases.npz"

CASES = {
    "plain": {"kernel_size": 3, "in_channels": 4, "out_channels": 6},
    "bias": {"kernel_size": 1, "in_channels": 3, "out_channels": 5, "has_bias": True},
    "padded": {"kernel_size": 3, "in_channels": 2, "out_channels": 3, "padding": 2},
    "rows and columns": {"kernel_size": [2, 3], "in_channels": 2, "out_channels": 3, "padding": [1, 2]},
    "top, bottom, left, right": {"kernel_size": 3, "in_channels": 2, "out_channels": 3, "padding": [0, 1, 2, 3]},
    "strided": {"kernel_size": 3, "in_channels": 2, "out_channels": 4, "stride": [2, 3], "padding": [1, 0, 0, 2]},
    "dilated": {"kernel_size": [3, 2], "in_channels": 2, "out_channels": 4, "dilation": [2, 3]},
    "grouped": {"kernel_size": 3, "in_channels": 4, "out_channels": 6, "num_groups": 2},
}


def record(arguments: dict, seed: int) -> dict[str, np.ndarray]:
    """What one layer computes of random numbers."""
    random = np.random.default_rng(seed)
    kwargs = {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
    layer = Conv2d(dtype=DType.float32, device=CPU(), **kwargs)
    arrays = {"x": random.standard_normal((2, 7, 8, layer.in_channels), np.float32)}
    for name in ("weight", "bias") if layer.has_bias else ("weight",):
        shape = [int(extent) for extent in getattr(layer, name).shape]
        arrays[name] = random.standard_normal(shape, np.float32)
        setattr(layer, name, Tensor.from_dlpack(arrays[name]))
    y = layer(Tensor.from_dlpack(arrays["x"]))
    return arrays | {"y": np.from_dlpack(y), "arguments": np.array(json.dumps(arguments))}


def main() -> None:
    for name in sys.argv[1:] or CASES:
        recorded = dict(np.load(RECORDS)) if RECORDS.exists() else {}
        case = record(CASES[name], seed=list(CASES).index(name))
        recorded |= {f"{name}/{key}": array for key, array in case.items()}
        np.savez_compressed(RECORDS, **recorded)
        print(name, case["y"].shape, flush=True)


if __name__ == "__main__":
    main()
