"""Look at what the compiler did: IR by stage, kernel sources, and what was fused into what, and why not.

    print(convjit.inspect.explain(fast))
    print(convjit.inspect.ir(fast, "fused"))
    print(convjit.inspect.source(fast, "layers.0.conv1"))

All of them speak of the signature that was compiled last; call the function once before. If it was differentiated,
there is a program forward and one backward, and the names of the latter's kernels begin with "backward".
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from convjit.compiled import compiled_of
from convjit.passes import STAGES
from convjit.reporting.report import PLAIN, Explanation

if TYPE_CHECKING:
    from convjit.compiled import Compiled
    from convjit.execution.entry import Entry
    from convjit.kernel import Kernel
    from convjit.schedule import Schedule


def ir(fast: Any, stage: str = STAGES[-1]) -> str:
    """The IR of the last compiled signature, as text.

    Args:
        fast: what `convjit.compile` returned.
        stage: one of `STAGES`, or the name of a pass: the IR behind it.

    Raises:
        TypeError: if `fast` is not a compiled function.
        ValueError: if it has not been called, was not compiled, or there is no such stage.

    Example:
        >>> print(convjit.inspect.ir(fast, "fused"))
    """
    from convjit.lower import stage_text

    parts = _compiled_parts(fast).values()
    return "\n".join(stage_text(p.captured, p.lowered, stage) for p in parts if p.captured and p.lowered)


def source(fast: Any, layer: str | None = None) -> str:
    """The Metal or C text of one kernel, or of all.

    Args:
        fast: what `convjit.compile` returned.
        layer: the kernel's name as `explain` shows it: a layer such as "layers.0.conv1", "layers.0.conv1.weight.grad",
            "elementwise.17".

    Raises:
        TypeError, ValueError: as for `ir`; ValueError if there is no such layer.
    """
    sources = {
        prefix + name: text
        for prefix, part in _compiled_parts(fast).items()
        if part.lowered and part.backend
        for name, text in part.lowered.sources(part.backend).items()
    }
    if layer is None:
        return "\n".join(dict.fromkeys(sources.values()))
    if layer not in sources:
        raise ValueError(f"no kernel for layer {layer!r}; there are {', '.join(map(repr, sources))}")
    return sources[layer]


def kernels(fast: Any) -> list[tuple[str, Kernel, Schedule]]:
    """Layer, kernel and schedule of every convolution on a kernel of convjit's, in program order.

    Raises:
        TypeError, ValueError: as for `ir`.
    """
    return [
        (prefix + layer, kernel, schedule)
        for prefix, part in _compiled_parts(fast).items()
        if part.lowered
        for layer, kernel, schedule in part.lowered.kernels()
    ]


def explain(fast: Any) -> Explanation:
    """Which convolutions became which kernels, what was fused into each, and what was not and why; the other kernels.

    Raises:
        TypeError: if `fast` is not a compiled function.
        ValueError: if it has not been called yet.
    """
    from convjit.explain import other_rows, rows

    compiled = compiled_of(fast)
    entry = _last_entry(compiled)
    parts = [(prefix, part.lowered) for prefix, part in entry.parts().items() if part.lowered]
    return Explanation(
        compiled._name,  # pyright: ignore[reportPrivateUsage]
        PLAIN if entry.program is None or entry.backend is None else entry.backend.name,
        tuple(replace(row, layer=prefix + row.layer) for prefix, part in parts for row in rows(part.module)),
        tuple(entry.reasons),
        tuple(dict.fromkeys(frozen for part in entry.parts().values() for frozen in part.frozen())),
        tuple(
            replace(row, name=prefix + row.name)
            for prefix, part in parts
            for row in other_rows(part.module, part.failed)
        ),
    )


def _last_entry(compiled: Compiled) -> Entry:
    entry = compiled._last  # pyright: ignore[reportPrivateUsage]
    if entry is None:
        raise ValueError(f"{compiled!r} has not compiled anything yet: call it once with real arguments")
    return entry


def _compiled_parts(fast: Any) -> dict[str, Entry]:
    entry = _last_entry(compiled_of(fast))
    if entry.program is None:
        why = "; ".join(entry.reasons) or "its ops were measured to be faster here"
        raise ValueError(f"{fast!r} runs as plain MLX: {why}")
    return entry.parts()
