"""Metal text as C++: what has to be rewritten, and the function that calls the kernel."""

from __future__ import annotations

import re
from dataclasses import dataclass

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_BUFFER = re.compile(
    r"(?P<const>const )?(?P<space>device|constant) (?P<type>[\w<>]+)(?P<kind>[*&]) (?P<name>\w+) \[\[buffer\(\d+\)\]\]"
)
_ATTRIBUTE = re.compile(r"uint3? \w+ \[\[(?P<name>\w+)\]\]")
_INSTANTIATION = re.compile(r"^template \[\[host_name.*$", re.MULTILINE)
_META = re.compile(r"_(shape|strides|ndim)$")

_THREADGROUP_VARIABLE = re.compile(r"(?<=[;{}])(?P<space>\s*)threadgroup\s+(?![^;=\[]*[*&(])(?P<rest>[^;]+);")
_ONE_DECLARATOR = re.compile(r"(?P<type>[\w:\s]+?(?:<[^<>]*>)?)\s+(?P<name>\w+)\s*(?P<extents>(?:\[[^\]]*\]\s*)*)")
_WAITS = re.compile(r"\b(?:simd|simdgroup|threadgroup_barrier)(?:_\w+)?\s*[(<]")


@dataclass(frozen=True, slots=True)
class Buffer:
    """One buffer argument of a kernel; `role` is "input", "output", or what of the last input: "shape", ..."""

    name: str
    role: str


@dataclass(frozen=True, slots=True)
class HostText:
    """A kernel as C++.

    Attributes:
        source: a complete translation unit.
        buffers: its arguments, in order.
        threads_wait: does it have barriers or collectives, for which threads wait for each other?
    """

    source: str
    buffers: tuple[Buffer, ...]
    threads_wait: bool


def without_comments(text: str) -> str:
    """`text` with spaces in place of its comments: lines stay where they are."""
    return _COMMENT.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


def host_text(name: str, text: str) -> HostText:
    """The kernel `name` of `text`, which MLX wrote, as C++.

    Raises:
        ValueError: if a threadgroup variable is declared in a way that Metal does not take.
    """
    text = without_comments(text)
    signature = text.split(f"[[kernel]] void {name}(", 1)[1].split(") {\n", 1)[0]
    buffers: list[Buffer] = []
    arguments: list[str] = []
    for parameter in signature.split(",\n"):
        if match := _BUFFER.search(parameter):
            dereference = "*" if match["kind"] == "&" else ""
            arguments.append(f"{dereference}({match['const'] or ''}{match['type']}*)buffers[{len(buffers)}]")
            buffers.append(Buffer(match["name"], _role(match, buffers)))
        elif match := _ATTRIBUTE.search(parameter):
            arguments.append(f"host::position(where->{match['name']})")
    specialisation = re.search(rf"decltype\(({name}<.*>)\)", text)
    text = _INSTANTIATION.sub("", text)  # of a template; the call below does the same
    entry = (
        'extern "C" void simulator_entry(void* const* buffers, const simulator_thread* where) {\n'
        f"  {specialisation[1] if specialisation else name}({', '.join(arguments)});\n}}\n"
    )
    source = (
        "#include <metal_stdlib>\nusing namespace metal;\n"
        f'#line 1 "kernel.metal"\n{_place_threadgroup_variables(text)}\n#line 1 "entry"\n{entry}'
    )
    return HostText(source, tuple(buffers), _WAITS.search(text) is not None)


def _role(match: re.Match[str], before: list[Buffer]) -> str:
    if not match["const"]:
        return "output"
    inputs = {b.name for b in before if b.role == "input"}
    meta = _META.search(match["name"])
    return meta[1] if meta and match["name"].removesuffix(meta[0]) in inputs else "input"


def _place_threadgroup_variables(text: str) -> str:
    """Threadgroup variables as references to storage that a threadgroup's threads share."""
    number = 0

    def place(statement: re.Match[str]) -> str:
        nonlocal number
        declaration = _ONE_DECLARATOR.fullmatch(statement["rest"])
        if declaration is None:
            line = text.count("\n", 0, statement.start("rest")) + 1
            raise ValueError(
                f"kernel.metal:{line}: `threadgroup {statement['rest']};`: "
                "a threadgroup variable is declared alone and without an initialiser"
            )
        name = declaration["name"]
        number += 1
        return (
            f"{statement['space']}typedef {declaration['type']} {name}_storage{declaration['extents']}; "
            f"{name}_storage& {name} = "
            f"*({name}_storage*)simulator_threadgroup_memory({number - 1}, sizeof({name}_storage));"
        )

    return _THREADGROUP_VARIABLE.sub(place, text)
