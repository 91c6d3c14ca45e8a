"""Look at what the compiler did: IR by stage, kernel sources, and what was fused into what, and why not.

    print(convjit.inspect.explain(fast))
    print(convjit.inspect.ir(fast, "fused"))
    print(convjit.inspect.source(fast, "layers.0.conv1"))

All of them speak of the signature that was compiled last; call the function once before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from convjit.compile import compiled_of
from convjit.passes import STAGES
from convjit.report import PLAIN, Explanation

if TYPE_CHECKING:
    from convjit.compile import Compiled
    from convjit.entry import Entry
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
    """
    from convjit.lower import stage_text

    entry = _compiled_entry(fast)
    assert entry.captured is not None and entry.lowered is not None
    return stage_text(entry.captured, entry.lowered, stage)


def source(fast: Any, layer: str | None = None) -> str:
    """The Metal or C text of one kernel, or of all.

    Args:
        fast: what `convjit.compile` returned.
        layer: the kernel's name as `explain` shows it: a layer such as "layers.0.conv1", "layers.0.conv1.weight.grad",
            "elementwise.17".

    Raises:
        TypeError, ValueError: as for `ir`; ValueError if there is no such layer.
    """
    entry = _compiled_entry(fast)
    assert entry.lowered is not None and entry.backend is not None
    sources = entry.lowered.sources(entry.backend)
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
    entry = _compiled_entry(fast)
    assert entry.lowered is not None
    return list(entry.lowered.kernels())


def explain(fast: Any) -> Explanation:
    """Which convolutions became which kernels, what was fused into each, and what was not and why; the other kernels.

    Raises:
        TypeError: if `fast` is not a compiled function.
        ValueError: if it has not been called yet.
    """
    from convjit.explain import elementwise_rows, rows

    compiled = compiled_of(fast)
    entry = _last_entry(compiled)
    lowered = entry.lowered
    return Explanation(
        compiled._name,  # pyright: ignore[reportPrivateUsage]
        PLAIN if entry.program is None or entry.backend is None else entry.backend.name,
        () if lowered is None else tuple(rows(lowered.module)),
        tuple(entry.reasons),
        tuple(entry.frozen()),
        () if lowered is None else tuple(elementwise_rows(lowered.module, lowered.failed)),
    )


def _last_entry(compiled: Compiled) -> Entry:
    entry = compiled._last  # pyright: ignore[reportPrivateUsage]
    if entry is None:
        raise ValueError(f"{compiled!r} has not compiled anything yet: call it once with real arguments")
    return entry


def _compiled_entry(fast: Any) -> Entry:
    entry = _last_entry(compiled_of(fast))
    if entry.program is None:
        why = "; ".join(entry.reasons) or "its ops were measured to be faster here"
        raise ValueError(f"{fast!r} runs as plain MLX: {why}")
    return entry
