"""A reproduction bundle: all that is needed to run a kernel that failed again, on another machine, by someone else.

    bundles/down.conv-gemm-3f2a91/
        bundle.json                    kernel, schedule, shapes, seed, environment, and what went wrong with the numbers
        0-cj_gemm_5c11.metal           the text of each dispatch as MLX hands it to Metal
        0-body.metal, 0-header.metal   the same as `mx.fast.metal_kernel` takes it

`python -m convjit repro <folder>` runs it again (`convjit.proof.repro`).
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from convjit import proof
from convjit.backends import Backend
from convjit.backends.metal import MetalBackend
from convjit.emit.metal.dispatch import Dispatch, MetalText
from convjit.geometry import Geometry, Window
from convjit.kernel import (
    AnyKernel,
    Elementwise,
    Epilogue,
    Extra,
    Instruction,
    Kernel,
    Norm,
    Part,
    Pool,
    PoolGradient,
    Rearrange,
    Result,
    Softmax,
)
from convjit.proof import Verdict
from convjit.reporting.dump import safe_name
from convjit.schedule import Schedule
from convjit.storage import cache
from convjit.storage.environment import environment

_FORMAT = 1
_FILE, _SOURCE = "bundle.json", "kernel.c"


class BundleError(ValueError):
    """A folder that holds no bundle that can be read; the message says what is the matter with it."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A kernel that failed somewhere.

    Attributes:
        layer: of the user's program, or "".
        backend: the name of the one it failed on.
        kernel, schedule: what was to be run.
        seed: of its random inputs.
        dispatches: what was launched; empty if the backend is not a Metal one, or the text could not be written.
        source: the text of a CPU's kernel.
        failure: what went wrong, in a sentence.
        environment: where, as `environment.environment` tells.
    """

    layer: str
    backend: str
    kernel: AnyKernel
    schedule: Schedule
    seed: int
    dispatches: tuple[Dispatch, ...]
    source: str
    failure: str
    environment: dict[str, Any]


def write(backend: Backend, layer: str, kernel: AnyKernel, schedule: Schedule, verdict: Verdict) -> Path | None:
    """Write the bundle of a kernel that failed into the cache folder, or, where that cannot be, a temporary one.

    Returns:
        Its folder; None if nothing can be written anywhere.
    """
    stem = schedule.template.rpartition("/")[2].partition(".")[0]
    key = cache.content_key(backend.fingerprint(), repr(kernel), repr(schedule))[:8]
    name = "-".join(filter(None, [safe_name(layer) if layer else "", stem, key]))
    record, files = _record(backend, layer, kernel, schedule, verdict)
    files[_FILE] = _readable(record)
    with contextlib.suppress(OSError):
        return _write_files(cache.folder() / "bundles" / name, files)
    with contextlib.suppress(OSError):
        return _write_files(Path(tempfile.mkdtemp(prefix="convjit-bundle-")) / name, files)
    return None


def _write_files(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def _record(
    backend: Backend, layer: str, kernel: AnyKernel, schedule: Schedule, verdict: Verdict
) -> tuple[dict[str, Any], dict[str, str]]:
    """What `bundle.json` says, and the texts beside it."""
    dispatches, files = _texts(backend, kernel, schedule)
    record = {
        "format": _FORMAT,
        "layer": layer,
        "backend": backend.name,
        "failure": str(verdict),
        "error": verdict.error,
        "checked": verdict.checked,
        "wrong": verdict.wrong,
        "examples": [asdict(e) for e in verdict.examples],
        "seed": proof.SEED,
        "shapes": _shapes(kernel),
        "schedule": {"template": schedule.template, "choices": dict(schedule.choices)},
        "kernel": asdict(kernel),
        "dispatches": dispatches,
        "environment": environment(),
    }
    return record, files


def _shapes(kernel: AnyKernel) -> dict[str, Any]:
    if not isinstance(kernel, Kernel):
        return {"operands": kernel.operand_shapes, "results": kernel.result_shapes}
    geometry = kernel.geometry
    return {"input": geometry.in_shape, "weight": geometry.weight_shape, "output": geometry.out_shape}


def _texts(backend: Backend, kernel: AnyKernel, schedule: Schedule) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """What `bundle.json` says about the dispatches, and their texts; nothing if the text cannot even be written."""
    dispatches: list[dict[str, Any]] = []
    files: dict[str, str] = {}
    with contextlib.suppress(Exception):
        if not isinstance(backend, MetalBackend):
            return [], {_SOURCE: backend.source(kernel, schedule)}
        launches = backend.launches(kernel, schedule)
        for number, (one, launch) in enumerate(zip(backend.dispatches(kernel, schedule), launches, strict=True)):
            files |= {
                f"{number}-{one.text.name}.metal": launch.text,
                f"{number}-body.metal": one.text.body,
                f"{number}-header.metal": one.text.header,
            }
            dispatches.append(
                {
                    "name": one.text.name,
                    "argument_names": [list(one.text.inputs), list(one.text.outputs)],
                    "inputs": one.inputs,
                    "outputs": [{"shape": shape, "dtype": dtype} for shape, dtype in one.outputs],
                    "grid": one.grid,
                    "threadgroup": one.threadgroup,
                    "sizes": one.sizes,
                    "results": one.results,
                }
            )
    return dispatches, files


def _readable(record: dict[str, Any]) -> str:
    """As JSON, with lists of plain values on one line."""
    text = json.dumps(record, indent=2)
    return re.sub(r"\[\s+([^][{}\"]*?)\s+\]", lambda m: "[" + " ".join(m[1].split()) + "]", text) + "\n"


def read(folder: Path) -> Bundle:
    """The bundle in a folder (or the path of its `bundle.json`).

    Raises:
        BundleError: if there is none, or it is damaged or of another format.
    """
    folder = folder.parent if folder.name == _FILE else folder
    try:
        record = json.loads((folder / _FILE).read_text())
        if record["format"] != _FORMAT:
            raise BundleError(f"{folder} is a bundle of format {record['format']}; this convjit reads {_FORMAT}")
        return Bundle(
            record["layer"],
            record["backend"],
            kernel_of(record["kernel"]),
            Schedule(record["schedule"]["template"], tuple(record["schedule"]["choices"].items())),
            record["seed"],
            tuple(_dispatch(folder, number, one) for number, one in enumerate(record["dispatches"])),
            (folder / _SOURCE).read_text() if (folder / _SOURCE).exists() else "",
            record["failure"],
            record["environment"],
        )
    except OSError as e:
        raise BundleError(f"cannot read {e.filename}: {e.strerror}") from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        if isinstance(e, BundleError):
            raise
        raise BundleError(f"{folder / _FILE} is damaged: {type(e).__name__}: {e}") from e


def _dispatch(folder: Path, number: int, record: dict[str, Any]) -> Dispatch:
    header, body = ((folder / f"{number}-{part}.metal").read_text() for part in ("header", "body"))
    names = (tuple(n) for n in record["argument_names"])
    return Dispatch(
        MetalText(record["name"], header, body, *names),
        tuple(record["inputs"]),
        tuple((tuple(o["shape"]), o["dtype"]) for o in record["outputs"]),
        _three(record["grid"]),
        _three(record["threadgroup"]),
        tuple(record.get("sizes", ())),
        tuple(record.get("results", ())),
    )


def _three(numbers: Sequence[int]) -> tuple[int, int, int]:
    x, y, z = numbers
    return x, y, z


def kernel_of(record: dict[str, Any]) -> AnyKernel:
    """The kernel of which `dataclasses.asdict` made this, by way of JSON."""
    if "parts" in record:
        parts = tuple(Part(**_with_tuples(part)) for part in record["parts"])
        shapes = tuple(map(tuple, record["operand_shapes"]))
        return Rearrange(tuple(record["shape"]), record["dtype"], shapes, parts)
    if "eps" in record:
        return _norm(record)
    if record.keys() == {"shape", "dtype"}:
        return Softmax(tuple(record["shape"]), record["dtype"])
    if "geometry" not in record:
        results = tuple(Result(tuple(r["shape"]), r["dtype"], r["is_sum"]) for r in record["results"])
        return Elementwise(tuple(record["shape"]), _extras(record["operands"]), _epilogue(record["body"]), results)
    shapes = _with_tuples(record["geometry"])
    window = Window(**_with_tuples(shapes.pop("window")))
    geometry = Geometry(**shapes, window=window)
    if record.keys() == {"geometry", "dtype"}:
        return PoolGradient(geometry, record["dtype"])
    if "kind" in record:
        return Pool(record["kind"], geometry, record["dtype"], tuple(record["result_shape"]))
    return Kernel(
        geometry,
        record["dtype"],
        _extras(record["extras"]),
        _epilogue(record["epilogue"]),
        tuple(record["result_dtypes"]),
        record["accuracy"],
        record.get("operation", "convolution"),
    )


def _norm(record: dict[str, Any]) -> Norm:
    fields = _with_tuples(record)
    extras, epilogue = _extras(fields.pop("extras")), _epilogue(fields.pop("epilogue"))
    return Norm(**fields, extras=extras, epilogue=epilogue)


def _extras(records: list[dict[str, Any]]) -> tuple[Extra, ...]:
    return tuple(Extra(tuple(e["shape"]), e["dtype"]) for e in records)


def _epilogue(record: dict[str, Any]) -> Epilogue:
    return Epilogue(
        tuple(record["inputs"]),
        tuple(Instruction(i["op"], tuple(i["operands"]), i["type"], i["attribute"]) for i in record["instructions"]),
        tuple(record["results"]),
    )


def _with_tuples(record: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}
