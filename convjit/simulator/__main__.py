"""`python -m convjit.simulator kernel.metal`: a kernel is checked, run on this machine, and checked while it runs."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from math import prod
from pathlib import Path

import mlx.core as mx
import numpy as np

from convjit.simulator.capture import Launch
from convjit.simulator.compiler import CompileError
from convjit.simulator.execute import Counters, Execution, execute
from convjit.simulator.lint import Finding, lint
from convjit.simulator.text import Buffer, host_text, kernel_names, only_instance
from convjit.simulator.typecheck import type_check

_DTYPES = {
    "f32": mx.float32,
    "f16": mx.float16,
    "bf16": mx.bfloat16,
    "i8": mx.int8,
    "i16": mx.int16,
    "i32": mx.int32,
    "i64": mx.int64,
    "u8": mx.uint8,
    "u16": mx.uint16,
    "u32": mx.uint32,
    "u64": mx.uint64,
    "bool": mx.bool_,
}
_FLOATS = (mx.float32, mx.float16, mx.bfloat16)

_DESCRIPTION = """\
Check a Metal kernel, run it on this machine, and watch every access to memory while it runs. No Metal is needed: the
text is compiled as C++ against a stand-in for Apple's headers, and runs in a process of its own.

Without --grid, the text is only checked for what a Metal compiler would not take."""
_EPILOG = """\
what an input holds, SHAPE being like 1x8x8x4:
  x=FILE.npy            an array that NumPy saved
  x=random:SHAPE:f32    normal numbers; whole numbers below 100 for whole-number types
  x=zeros:SHAPE:f16     also ones, and arange: 0, 1, 2, ...
  n=7:i32               a number, or several: n=1,2,3:i32
  p=FILE.npy            a struct: its bytes, as an array of uint8
Types: f32 f16 bf16, i8 i16 i32 i64, u8 u16 u32 u64, bool. A buffer that the kernel reads and writes is an --input;
what MLX tells about an input x by x_shape, x_strides and x_ndim is known.

example:
  python -m convjit.simulator add.metal --grid 256 --threadgroup 64 \\
      --input a=random:256:f32 --input b=random:256:f32 --output y=256:f32 --save y=y.npy

exit status: 0 if nothing was found, 1 if something was, 2 if the command cannot be understood."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        text = chosen.file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        parser.error(f"cannot read {chosen.file}: {error}")
    first, *_ = [*kernel_names(text), ""]
    findings = [f for f in lint(text) if not f.house] + _type_findings(only_instance(chosen.kernel or first, text))
    told = "not run: that takes --grid, --threadgroup and, for each buffer, --input or --output"
    if chosen.grid:
        try:
            launch, inputs, held = _launch(text, chosen)
            done = execute(launch, inputs, check=not chosen.no_check, init_value=held)
        except CompileError as error:
            findings.append(Finding(0, f"the host's compiler does not take it:\n{error}"))
            told = "not run"
        except ValueError as error:
            parser.error(str(error))
        else:
            findings += done.findings
            told = "\n".join([*_outputs(launch, done, chosen.save), *_counters(done.counters)])
    for finding in findings:
        print(_quoted(finding, text, chosen.file.name))
    print(told)
    print(f"{chosen.file.name}: {_plural(len(findings), 'finding')}")
    return 1 if findings else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m convjit.simulator",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, metavar="kernel.metal", help="the text, as MLX or a person writes it")
    parser.add_argument("--kernel", metavar="NAME", help="which function, if there are several")
    parser.add_argument("--grid", type=_sizes, metavar="XxYxZ", help="threads an axis, for example 64x56 or 1024")
    parser.add_argument("--threadgroup", type=_sizes, metavar="XxYxZ", help="threads of a threadgroup an axis")
    parser.add_argument("--input", action="append", default=[], type=_named, metavar="NAME=WHAT", help="see below")
    parser.add_argument(
        "--output", action="append", default=[], type=_named, metavar="NAME=SHAPE:TYPE", help="an array to be written"
    )
    parser.add_argument("--init", type=float, metavar="VALUE", help="what outputs hold before (else: NaN, unreadable)")
    parser.add_argument("--seed", type=int, default=0, help="of the random inputs (default: 0)")
    parser.add_argument("--save", action="append", default=[], type=_named, metavar="NAME=FILE.npy", help="an output")
    parser.add_argument("--no-check", action="store_true", help="only run it, several times faster; no counters")
    return parser


def _sizes(text: str) -> tuple[int, int, int]:
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*){0,2}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not like 64, 64x56 or 64x56x1")
    x, y, z = (*map(int, text.split("x")), 1, 1)[:3]
    return x, y, z


def _named(text: str) -> tuple[str, str]:
    name, equals, what = text.partition("=")
    if not (name.isidentifier() and equals and what):
        raise argparse.ArgumentTypeError(f"{text!r} is not like NAME=...")
    return name, what


def _type_findings(text: str) -> list[Finding]:
    try:
        return type_check(text)
    except ModuleNotFoundError as error:
        print(f"types and address spaces were not checked: {error}", file=sys.stderr)
        return []


# ---- What to run.


def _launch(text: str, chosen: argparse.Namespace) -> tuple[Launch, list[mx.array], dict[str, mx.array]]:
    """The launch, its inputs, and what its outputs hold before.

    Raises:
        ValueError: if the command's parts do not fit to the kernel's arguments.
    """
    name = chosen.kernel or _only_kernel(text)
    buffers = {b.name: b for b in host_text(name, text).buffers if b.role in ("input", "output")}
    given = {n: _input(n, what, chosen.seed + i) for i, (n, what) in enumerate(chosen.input)}
    written = {n: _shape_and_dtype(n, what) for n, what in chosen.output}
    for stranger in [n for n in (*given, *written, *dict(chosen.save)) if n not in buffers]:
        raise ValueError(f"{name} has no buffer {stranger!r}; it has {', '.join(buffers)}")
    for buffer in buffers.values():
        _must_be_told(buffer, given, written)
    held = {n: a for n, a in given.items() if buffers[n].role == "output"}
    written |= {n: (a.shape, a.dtype) for n, a in held.items()}
    if chosen.init is not None:
        held = {n: mx.full(shape, mx.array(chosen.init, dtype)) for n, (shape, dtype) in written.items()} | held
    if chosen.threadgroup is None:
        raise ValueError("give --threadgroup, too: the threads of a threadgroup an axis")
    reads = [n for n, b in buffers.items() if b.role == "input"]
    writes = [n for n, b in buffers.items() if b.role == "output"]
    outputs = tuple((n, *written[n]) for n in writes)
    return Launch(name, text, chosen.grid, chosen.threadgroup, tuple(reads), outputs), [given[n] for n in reads], held


def _only_kernel(text: str) -> str:
    names = kernel_names(text)
    if len(names) != 1:
        raise ValueError(f"the text has {_plural(len(names), 'kernel')}: choose by --kernel {' | '.join(names)}")
    return names[0]


def _must_be_told(buffer: Buffer, given: Iterable[str], written: Iterable[str]) -> None:
    if buffer.role == "input" and buffer.name in written:
        raise ValueError(f"{buffer.name!r} is const: the kernel cannot write it; give it as --input")
    if buffer.name in given or buffer.name in written:
        return
    example = f"{buffer.name}=SHAPE:f32" if buffer.role == "output" else f"{buffer.name}=random:SHAPE:f32"
    does = "writes" if buffer.role == "output" else "reads"
    raise ValueError(f"the kernel {does} {buffer.name!r} (line {buffer.line}): give --{buffer.role} {example}")


def _input(name: str, what: str, seed: int) -> mx.array:
    if what.endswith(".npy"):
        try:
            return mx.array(np.load(what))
        except (OSError, ValueError) as error:
            raise ValueError(f"--input {name}: cannot load {what}: {error}") from error
    kind, *rest = what.split(":")
    if kind in ("random", "zeros", "ones", "arange"):
        shape, dtype = _shape_and_dtype(name, ":".join(rest))
        return _filled(kind, shape, dtype, seed)
    try:
        numbers = [float(n) if re.search(r"[.eE]|inf|nan", n) else int(n) for n in kind.split(",")]
    except ValueError:
        raise ValueError(
            f"--input {name}: {what!r} is neither a file nor random, zeros, ones, arange or numbers"
        ) from None
    (dtype_name,) = rest if len(rest) == 1 else ("",)
    return mx.array(numbers if len(numbers) > 1 else numbers[0], _dtype(name, dtype_name))


def _filled(kind: str, shape: tuple[int, ...], dtype: mx.Dtype, seed: int) -> mx.array:
    key = mx.random.key(seed)
    if kind == "random":
        return (
            mx.random.normal(shape, key=key).astype(dtype)
            if dtype in _FLOATS
            else (mx.random.randint(0, 2 if dtype == mx.bool_ else 100, shape, key=key).astype(dtype))
        )
    if kind == "arange":
        return mx.arange(prod(shape)).reshape(shape).astype(dtype)
    return mx.full(shape, mx.array(int(kind == "ones"), dtype))


def _shape_and_dtype(name: str, what: str) -> tuple[tuple[int, ...], mx.Dtype]:
    shape, _, dtype = what.partition(":")
    if not re.fullmatch(r"\d+(x\d+)*", shape):
        raise ValueError(f"{name}: {what!r} is not SHAPE:TYPE, like 1x8x8x4:f32")
    return tuple(map(int, shape.split("x"))), _dtype(name, dtype)


def _dtype(name: str, dtype: str) -> mx.Dtype:
    if dtype not in _DTYPES:
        raise ValueError(f"{name}: {dtype!r} is not a type; types: {', '.join(_DTYPES)}")
    return _DTYPES[dtype]


# ---- What came of it.


def _quoted(finding: Finding, text: str, file: str) -> str:
    lines = ["", *text.splitlines()]
    if not 0 < finding.line < len(lines):
        return f"{file}: {finding.message}"
    return f"{file}:{finding.line}: {finding.message}\n    {lines[finding.line].strip()}"


def _outputs(launch: Launch, done: Execution, save: Sequence[tuple[str, str]]) -> Iterator[str]:
    """A line about each output, which is also saved if that is wished."""
    files = dict(save)
    for (name, shape, dtype), array in zip(launch.outputs, done.outputs, strict=True):
        values = np.array(array.astype(mx.float32) if dtype == mx.bfloat16 else array)
        line = f"{name}: {'x'.join(map(str, shape))} {str(dtype).removeprefix('mlx.core.')}"
        finite = values[np.isfinite(values)]
        if finite.size:
            line += f", {finite.min():.6g} to {finite.max():.6g}, mean {finite.mean(dtype=np.float64):.6g}"
        if strange := values.size - finite.size:
            line += f", {strange:,} of {values.size:,} not finite"
        if file := files.get(name):
            np.save(file, values)
            line += f", saved to {file}"
        yield line


def _counters(counters: Counters | None) -> Iterator[str]:
    for field in fields(Counters) if counters else ():
        yield f"  {field.name.replace('_', ' '):<26}{getattr(counters, field.name):>16,}"


def _plural(count: int, what: str) -> str:
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"


if __name__ == "__main__":
    sys.exit(main())
