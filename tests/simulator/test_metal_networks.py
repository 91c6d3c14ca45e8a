"""The emitted Metal text of whole networks, executed on the host against float64."""

import pytest

from benchmarks.metal_text import check_network
from examples.models import SMALL, ready


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("name", SMALL)
def test_every_kernel_of_a_network(name, dtype):
    make, shape = SMALL[name]
    checks = list(check_network(name, ready(make()), shape, dtype))
    assert len(checks) >= 2
    assert [c for c in checks if not c.right] == []
