"""What was measured of one problem, and the file of all records."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from benchmarks import measure
from benchmarks.layers.network import Dtype

Mode = Literal["alone", "user", "chain"]
Isa = Literal["native", "avx2"]

OURS = "convjit"
MLX = "MLX"

QUIET = 0.05
"""CPUs that other processes may keep busy without disturbing what is measured."""

UNFAIR = {"native": (), "avx2": ("onnxruntime",)}
"""Engines that do not count: with AVX2, those that cannot be told to use no more."""


@dataclass(frozen=True, slots=True)
class Record:
    """One problem, measured in one way.

    Attributes:
        problem: its name.
        kind: "experiments" or "problems", the file that it is from.
        convolution: what it is, in words.
        is_shrunk: is it smaller than in the file?
        mode: "alone": one convolution, arrays prepared; "user": as a user calls it; "chain": one of several behind each
            other, with different weights.
        dtype: "f32" or "bf16".
        isa: "native", or "avx2": without AVX-512.
        flops: of one convolution.
        peak: floating-point operations a second that the machine can do, measured in the same run.
        others: CPUs that other processes kept busy meanwhile: figures are good where it is near 0.
        seconds: of one convolution, by engine; that of convjit is "convjit", that of plain MLX "MLX".
        refused: why an engine has no time.
        schedule: of convjit's kernel.
        relative_error, elementwise_error: see `accuracy.Errors`; 0 where it was not measured.
        compile_seconds, text_bytes, packed_bytes, packed_ratio, memory_bytes: see `ours.Made`.
    """

    problem: str
    kind: str
    convolution: str
    is_shrunk: bool
    mode: Mode
    dtype: Dtype
    isa: Isa
    flops: int
    peak: float
    others: float
    seconds: Mapping[str, float]
    refused: Mapping[str, str]
    schedule: str
    relative_error: float
    elementwise_error: float
    compile_seconds: float
    text_bytes: int
    packed_bytes: int
    packed_ratio: float
    memory_bytes: int

    @property
    def setting(self) -> tuple[Mode, Dtype, Isa]:
        return self.mode, self.dtype, self.isa

    @property
    def key(self) -> Hashable:
        return self.problem, self.setting

    @property
    def is_checked(self) -> bool:
        """Was the result compared with float64?"""
        return self.mode == "alone"

    @property
    def peers(self) -> dict[str, float]:
        """Seconds of the engines that convjit is compared with."""
        return {
            name: seconds
            for name, seconds in self.seconds.items()
            if not name.startswith(OURS) and name not in (MLX, *UNFAIR[self.isa])
        }

    @property
    def best_peer(self) -> str | None:
        return min(self.peers, key=self.peers.__getitem__, default=None)

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the best peer convjit is."""
        if OURS not in self.seconds or self.best_peer is None:
            return None
        return self.peers[self.best_peer] / self.seconds[OURS]

    def gflops(self, engine: str) -> float:
        return self.flops / self.seconds[engine] / 1e9


class HasKey(Protocol):
    """Any kind of record, a dataclass; two with the same key are measurements of the same."""

    @property
    def key(self) -> Hashable: ...


R = TypeVar("R", bound=HasKey)


def read(file: Path, kind: type[R]) -> list[R]:
    """The records of a file; none if there is no file."""
    if not file.exists():
        return []
    return [kind(**record) for record in json.loads(file.read_text())["records"]]


def merged(old: Iterable[R], new: Sequence[R]) -> list[R]:
    """`new` in place of the records with the same keys, and `old` for the rest."""
    replaced = {r.key for r in new}
    return [*(r for r in old if r.key not in replaced), *new]


def write(file: Path, records: Sequence[Any]) -> None:
    """One line a record, figures to four digits."""
    file.parent.mkdir(exist_ok=True)
    head = {"when": datetime.now(UTC).isoformat(timespec="seconds"), "machine": measure.machine()}
    lines = ",\n".join(json.dumps(_short(asdict(r))) for r in records)
    file.write_text(f'{json.dumps(head)[:-1]}, "records": [\n{lines}\n]}}\n')


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {k: _short(v) for k, v in value.items()}
    return value
