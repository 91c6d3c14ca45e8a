"""What is printed can be read again: the IR of every filecheck test, in the custom and in the generic syntax."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from test_semantics import parsed
from xdsl.printer import Printer

FILES = sorted(f for f in (Path(__file__).parents[1] / "filecheck").glob("*.mlir") if f.stem != "invalid")


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_text_survives_parsing(file):
    for chunk in file.read_text().split("// -----"):
        module = parsed(chunk)
        generic = io.StringIO()
        Printer(stream=generic, print_generic_format=True).print_op(module)
        assert str(parsed(generic.getvalue())) == str(parsed(str(module))) == str(module)
