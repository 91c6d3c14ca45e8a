"""Which line of a kernel is this address in? A table that a checked kernel carries along.

The compiler's assembly says by directives which line each instruction belongs to. Behind each call that reports an
access or an error goes a label; the table names the label and the line. Debuggers' formats are not needed, which
differ between systems.
"""

from __future__ import annotations

import re
import sys

_FILE = re.compile(r'\s*\.file\s+(\d+)\s+(?:"[^"]*"\s+)?"([^"]*)"')
_LINE = re.compile(r"\s*\.loc\s+(\d+)\s+(\d+)")
_REPORT = re.compile(r"\s*(?:callq?|bl)\s+_*(?:tsan_(?!func|init)|ubsan_handle_)")


def with_sites(assembly: str) -> str:
    """`assembly` of a kernel with its table, `simulator_sites`.

    What was inlined from a header belongs to the line of the kernel before it.
    """
    kernel_files: set[str] = set()
    lines: list[str] = []
    table: list[str] = []
    local, prefix = (".L", "") if sys.platform != "darwin" else ("L", "_")
    latest = "0"
    for line in assembly.splitlines():
        lines.append(line)
        if found := _LINE.match(line):
            if found[1] in kernel_files and found[2] != "0":
                latest = found[2]
        elif found := _FILE.match(line):
            if found[2].endswith("kernel.metal"):
                kernel_files.add(found[1])
        elif _REPORT.match(line):
            label = f"{local}simulator_site{len(table)}"
            lines.append(f"{label}:")
            table.append(f"\t.quad {label}, {latest}")
    sites, count = f"{prefix}simulator_sites", f"{prefix}simulator_site_count"
    lines += ["\t.data", f"\t.globl {sites}, {count}", "\t.p2align 3", f"{sites}:", *table]
    lines += [f"{count}:", f"\t.quad {len(table)}", ""]
    return "\n".join(lines)
