"""The float64 reference of a kernel is shared with the tests of numerics."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "numerics"))
