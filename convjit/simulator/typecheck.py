"""Types and address spaces of a kernel as Metal sees them, by a real front end: clang, as C++ for OpenCL.

That dialect has Metal's address spaces, its vectors and its half. What it deduces as the generic space is what Metal
wants to be written: `device`, `constant`, `threadgroup` or `thread`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from convjit.simulator.lint import Finding
from convjit.simulator.text import without_comments

_DECLARATIONS = Path(__file__).resolve().parent / "declarations"
_FLAGS = (
    *("-x", "cl", "-cl-std=CLC++2021", "--target=x86_64", "-cl-no-stdinc", "-nostdinc", "-isystem", str(_DECLARATIONS)),
    *(
        "-fsyntax-only",
        "-ferror-limit=0",
        "-w",
        "-Xclang",
        "-cl-ext=-all,+cl_khr_fp16,+__opencl_c_generic_address_space,+__cl_clang_non_portable_kernel_param_types",
    ),
)
_NAME = "kernel.metal"
_BEFORE = "#include <metal_stdlib>\nusing namespace metal;\n"

_LIBRARY_INCLUDE = re.compile(r"^[ \t]*#[ \t]*include[ \t]*<metal_\w+>[^\n]*", re.MULTILINE)
_TEMPLATE_OF_KERNEL = re.compile(r"template\s*<(?P<parameters>[^>]*)>(?=\s*\[\[kernel\]\])")
_INSTANTIATION = re.compile(r"^template \[\[host_name.*?decltype\(\w+<(?P<arguments>.*?)>\)[^\n]*$", re.MULTILINE)
_VECTOR_CALL = re.compile(r"\bvec<(?P<type>[\w:]+),\s*(?P<width>\w+)>\s*\(")
_BFLOAT_LITERAL = re.compile(r"\b(?P<digits>\d+\.?\d*(?:[eE][+-]?\d+)?)bf\b")

_VARIABLES = {"PARM_DECL", "VAR_DECL", "FIELD_DECL"}
_FUNCTIONS = {"FUNCTION_DECL", "CXX_METHOD", "FUNCTION_TEMPLATE"}
_CASTS = {"CSTYLE_CAST_EXPR", "CXX_STATIC_CAST_EXPR", "CXX_REINTERPRET_CAST_EXPR", "CXX_FUNCTIONAL_CAST_EXPR"}
_SPACES = ("__global", "__constant", "__local", "__private", "__generic")
_AS_IN_METAL = {
    "__global": "device",
    "__constant": "constant",
    "__local": "threadgroup",
    "__private": "thread",
    "__generic": "(no address space)",
    "__bf16": "bfloat",
    "local address space": "threadgroup address space",
    "global address space": "device address space",
    "private address space": "thread address space",
    "requires cl_khr_fp64 and __opencl_c_fp64 support": "is not in Metal",
}


def type_check(text: str) -> list[Finding]:
    """What a Metal compiler would not take in `text`, one kernel as MLX hands it to Metal, in the order of its lines.

    Raises:
        ModuleNotFoundError: if libclang is not installed.
    """
    try:
        from clang import cindex
    except ImportError as error:
        what_to_do = "the type check of Metal kernels needs libclang: pip install convjit[simulator]"
        raise ModuleNotFoundError(what_to_do) from error
    source = _BEFORE + _as_opencl(without_comments(text))
    try:
        unit = cindex.Index.create().parse(_NAME, args=list(_FLAGS), unsaved_files=[(_NAME, source)])
    except cindex.TranslationUnitLoadError:
        return [Finding(1, "clang itself fails on this text")]
    findings = {_finding(d) for d in unit.diagnostics if d.severity >= cindex.Diagnostic.Error}
    own = [d for d in unit.cursor.get_children() if d.location.file and d.location.file.name == _NAME]
    for declaration in own:
        findings.update(_beyond_diagnostics(declaration))
    return sorted(findings, key=lambda f: f.line)


def _as_opencl(text: str) -> str:
    """`text` with what only Metal has rewritten; every line keeps its number."""
    if instantiation := _INSTANTIATION.search(text):
        arguments = instantiation["arguments"].split(",")
        text = _TEMPLATE_OF_KERNEL.sub(lambda m: _bind(m["parameters"].split(","), arguments), text)
        text = text.replace(instantiation[0], "")
    text = _LIBRARY_INCLUDE.sub("", text)
    text = _VECTOR_CALL.sub(r"simulator_vector<\g<type>, \g<width>>(", text)
    text = re.sub(r"\bstatic_cast<((?:[a-z]+)[234])>\s*\(", r"\1(", text)
    text = _BFLOAT_LITERAL.sub(r"bfloat(\g<digits>f)", text)
    return text.replace("[[kernel]]", "__kernel")


def _bind(parameters: list[str], arguments: list[str]) -> str:
    """OpenCL has no template kernels: their arguments become definitions in front of the kernel."""
    definitions: list[str] = []
    for parameter, argument in zip(parameters, arguments, strict=True):
        kind, name = parameter.split()
        is_type = kind in ("typename", "class")
        definitions.append(
            f"using {name} = {argument};" if is_type else f"constant constexpr {kind} {name} = {argument};"
        )
    return " ".join(definitions)


def _finding(diagnostic: Any) -> Finding:
    """At the line of the kernel that `diagnostic` is about, although it may have been found in a header."""
    places = [diagnostic.location, *(note.location for note in diagnostic.children)]
    lines = [_line(p) for p in places if p.file and p.file.name == _NAME]
    reasons = [note.spelling for note in diagnostic.children if "not viable" in note.spelling]
    message = ": ".join([diagnostic.spelling, *reasons[:1]])
    for theirs, ours in _AS_IN_METAL.items():
        message = message.replace(theirs, ours)
    return Finding(next((line for line in lines if line > 0), 1), message)


def _line(location: Any) -> int:
    return location.line - _BEFORE.count("\n")


def _beyond_diagnostics(declaration: Any) -> Iterator[Finding]:
    """What C++ for OpenCL takes and Metal does not: missing address spaces, and conversions to bfloat."""
    nodes = [(declaration, "")]
    while nodes:
        node, parent = nodes.pop()
        kind = node.kind.name
        if what := _wrong(node, kind, parent):
            yield Finding(_line(node.location), what)
        nodes += [(child, kind) for child in node.get_children()]


def _wrong(node: Any, kind: str, parent: str) -> str | None:
    if kind in _VARIABLES and _lacks_space(node.type):
        return f"`{node.spelling}` is a pointer or reference without an address space"
    if kind in _FUNCTIONS and _lacks_space(node.result_type):
        return f"`{node.spelling}` returns a pointer or reference without an address space"
    if kind in _CASTS and "__generic" in node.type.spelling:
        return "a cast to a pointer or reference without an address space"
    if kind == "COMPOUND_ASSIGNMENT_OPERATOR" or (kind == "UNEXPOSED_EXPR" and parent not in _CASTS):
        scalars = [_scalar(node), *(_scalar(child) for child in node.get_children())]
        if scalars[0] == "__bf16" and scalars[-1] in ("float", "half"):
            return "a float or half becomes bfloat only explicitly: write bfloat16_t(...)"
    return None


def _lacks_space(declared: Any) -> bool:
    """Is it a pointer or reference, and the address space of what it leads to is not written?"""
    canonical = declared.get_canonical()
    if "__generic" in canonical.spelling:
        return True
    target = canonical.get_pointee()
    is_dependent = target.kind.name in ("UNEXPOSED", "DEPENDENT") and "auto" not in target.spelling
    return is_dependent and not any(space in target.spelling for space in _SPACES)


def _scalar(node: Any) -> str:
    return node.type.get_canonical().spelling.rpartition(" ")[2]
