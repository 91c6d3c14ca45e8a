"""`metal_kernel`, which is `mx.fast.metal_kernel` on a machine without Metal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx

from convjit.simulator.capture import capture
from convjit.simulator.execute import KernelError, execute

Scalar = bool | int | float


def metal_kernel(
    name: str,
    input_names: Sequence[str],
    output_names: Sequence[str],
    source: str,
    header: str = "",
    ensure_row_contiguous: bool = True,
    atomic_outputs: bool = False,
    compile_options: dict[str, Any] | None = None,
    *,
    check: bool = False,
) -> Callable[..., list[mx.array]]:
    """A kernel with the arguments and the text of `mx.fast.metal_kernel`, which runs on the host at once.

    Args:
        name, input_names, output_names, source, header, ensure_row_contiguous, atomic_outputs: as MLX takes them.
        compile_options: as MLX takes them; without effect here.
        check: watch every access to memory, and raise on any finding.

    Returns:
        A function that is called as MLX's is.
    """
    options = {} if compile_options is None else {"compile_options": compile_options}
    kernel: Any = mx.fast.metal_kernel(
        name, input_names, output_names, source, header, ensure_row_contiguous, atomic_outputs, **options
    )

    def call(
        *,
        inputs: Sequence[Scalar | mx.array],
        output_shapes: Sequence[Sequence[int]],
        output_dtypes: Sequence[mx.Dtype],
        grid: tuple[int, int, int],
        threadgroup: tuple[int, int, int],
        template: Sequence[tuple[str, bool | int | mx.Dtype]] | None = None,
        init_value: float | None = None,
        verbose: bool = False,
        stream: Any = None,
    ) -> list[mx.array]:
        """Run the kernel; `stream` is without effect.

        Raises:
            CompileError: if the kernel is not valid.
            KernelError: if it does what no kernel may do.
        """
        arrays = [a if isinstance(a, mx.array) else mx.array(a) for a in inputs]

        def launch(*traced: mx.array) -> list[mx.array]:
            return kernel(
                inputs=list(traced),
                output_shapes=output_shapes,
                output_dtypes=output_dtypes,
                grid=grid,
                threadgroup=threadgroup,
                template=template,
            )

        (launched,) = capture(launch, *arrays).launches
        if verbose:
            print(f"Generated source code for `{name}`:\n```\n{launched.text}\n```")
        done = execute(launched, arrays, check=check, init_value=init_value)
        if done.findings:
            raise KernelError(launched.name, launched.text, done.findings)
        return done.outputs

    return call
