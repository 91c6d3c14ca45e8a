"""The simulator against its corpus: each broken kernel is caught by the stage it names, no right one is accused."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from convjit import simulator
from convjit.simulator import Finding

CORPUS = Path(__file__).parent / "corpus"
BROKEN = sorted((CORPUS / "broken").glob("*.metal"))
RIGHT = sorted((CORPUS / "right").glob("*.metal"))
TOLERANCE = {mx.float32: 2e-5, mx.float16: 2e-3, mx.bfloat16: 1e-2}


@dataclass(frozen=True)
class Case:
    """One file of the corpus: see its README."""

    text: str
    fields: dict[str, list[str]]

    def only(self, field: str) -> str:
        (value,) = self.fields[field]
        return value

    def marked_lines(self) -> list[int]:
        return [n for n, line in enumerate(self.text.splitlines(), 1) if line.endswith("// <-")]

    def launch(self) -> simulator.Launch:
        arrays = [_array(spec) for spec in self.fields["output"]]
        (name,) = re.findall(r"^\[\[kernel\]\] void (\w+)\(", self.text, re.MULTILINE)
        return simulator.Launch(
            name=name,
            text=self.text,
            grid=_three(self.only("grid")),
            threadgroup=_three(self.only("threadgroup")),
            inputs=tuple(name for name, _, _ in map(_array, self.fields.get("input", []))),
            outputs=tuple((name, shape, dtype) for name, dtype, shape in arrays),
        )

    def inputs(self) -> dict[str, mx.array]:
        generator = np.random.default_rng(0)
        return {
            name: _values(generator, dtype, shape) for name, dtype, shape in map(_array, self.fields.get("input", []))
        }

    def init(self) -> float | None:
        return float(self.only("init")) if "init" in self.fields else None


def read(path: Path) -> Case:
    text = path.read_text()
    fields: dict[str, list[str]] = {}
    for field, value in re.findall(r"^// (\w+): (.*)$", text.split("\n\n")[0], re.MULTILINE):
        fields.setdefault(field, []).append(value)
    return Case(text, fields)


def _three(sizes: str) -> tuple[int, int, int]:
    x, y, z = map(int, sizes.split())
    return x, y, z


def _array(spec: str) -> tuple[str, mx.Dtype, tuple[int, ...]]:
    name, dtype, *shape = spec.split()
    return name, getattr(mx, dtype), tuple(map(int, shape))


def _values(generator: np.random.Generator, dtype: mx.Dtype, shape: tuple[int, ...]) -> mx.array:
    if mx.issubdtype(dtype, mx.floating):
        return mx.array(generator.standard_normal(shape)).astype(dtype)
    return mx.array(generator.permutation(int(np.prod(shape))).reshape(shape)).astype(dtype)


def static_findings(text: str) -> list[Finding]:
    return [f for f in simulator.lint(text) if not f.house] + simulator.type_check(text)


def findings_of(case: Case) -> list[Finding]:
    match case.only("stage"):
        case "lint":
            return simulator.lint(case.text)
        case "type":
            return simulator.type_check(case.text)
        case "compile":
            with pytest.raises(simulator.CompileError) as caught:
                simulator.execute(case.launch(), list(case.inputs().values()))
            errors = re.findall(r"^kernel\.metal:(\d+): (.*)$", str(caught.value), re.MULTILINE)
            return [Finding(int(line), message) for line, message in errors]
        case "check":
            assert static_findings(case.text) == []
            launch, inputs = case.launch(), list(case.inputs().values())
            return list(simulator.execute(launch, inputs, check=True, init_value=case.init()).findings)
        case stage:
            raise ValueError(f"no stage is named {stage!r}")


@pytest.mark.parametrize("path", BROKEN, ids=lambda p: p.stem)
def test_broken_kernels_are_caught(path: Path) -> None:
    case = read(path)
    findings = findings_of(case)
    lines = case.marked_lines()
    caught = [f for f in findings if case.only("says") in f.message and (f.line in lines or not lines)]
    assert caught, findings


@pytest.mark.parametrize("path", RIGHT, ids=lambda p: p.stem)
def test_right_kernels_are_not_accused(path: Path) -> None:
    case = read(path)
    assert static_findings(case.text) == []
    inputs = case.inputs()
    execution = simulator.execute(case.launch(), list(inputs.values()), check=True, init_value=case.init())
    assert execution.findings == ()
    names = {name: np.array(a.astype(mx.float32), np.float64) for name, a in inputs.items()}
    for got, expression in zip(execution.outputs, case.fields["expects"], strict=True):
        expected = np.asarray(eval(expression, {"np": np, **names}))  # of a file of this repository
        error = np.abs(np.array(got.astype(mx.float32), np.float64) - expected).max()
        assert error <= TOLERANCE.get(got.dtype, 0.0) * max(1.0, np.abs(expected).max()), error


def test_the_corpus_is_large() -> None:
    assert len(BROKEN) >= 140 and len(RIGHT) >= 40
