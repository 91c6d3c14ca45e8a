"""What is printed can be read again: the IR of every filecheck test, in the custom and in the generic syntax."""

from __future__ import annotations

import io
from pathlib import Path

import mlx.core as mx
import pytest
from graphs import traced
from test_semantics import parsed
from xdsl.printer import Printer

from convjit.tracing.trace import Argument

FILES = sorted(f for f in (Path(__file__).parents[1] / "filecheck").glob("*.mlir") if f.stem != "invalid")


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_text_survives_parsing(file):
    for chunk in file.read_text().split("// -----"):
        module = parsed(chunk)
        generic = io.StringIO()
        Printer(stream=generic, print_generic_format=True).print_op(module)
        assert str(parsed(generic.getvalue())) == str(parsed(str(module))) == str(module)


def test_any_argument_name_can_be_read_again():
    names = ["x", "x_1", "x_1_1", "x_2", "1", "a.0.weight", "a.0.weight_1", "größe", "a b", 'quo"te', "conv#2", ""]
    module = traced(
        lambda *arrays: sum(a * a for a in arrays), [mx.zeros(1)] * len(names), [Argument(n, "input") for n in names]
    )
    module.verify()
    assert str(parsed(str(module))) == str(module)
