"""Runs every tests/filecheck/*.mlir in this process, compares texts with tests/golden, and shares tests/numerics."""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent / "numerics"))
os.environ.setdefault("CONVJIT_TUNE", "0")  # what was measured on this machine must not change what tests see

RUN = re.compile(r"^// RUN: convjit-opt (?P<args>.*?) \| filecheck %s(?: --check-prefix (?P<prefix>\w+))?$", re.M)


class MlirFile(pytest.File):
    def collect(self):
        runs = list(RUN.finditer(self.path.read_text()))
        if not runs:
            raise ValueError(f"{self.path} has no line like `// RUN: convjit-opt -p pass %s | filecheck %s`")
        for number, run in enumerate(runs):
            yield MlirTest.from_parent(self, name=f"run{number}", args=run["args"], prefix=run["prefix"] or "CHECK")


class MlirTest(pytest.Item):
    def __init__(self, *, args: str, prefix: str, **kwargs):
        super().__init__(**kwargs)
        self.args, self.prefix = args, prefix

    def runtest(self):
        from filecheck.finput import FInput
        from filecheck.matcher import Matcher
        from filecheck.options import Options
        from filecheck.parser import Parser

        from convjit.shell.opt import ConvjitOptMain

        output = io.StringIO()
        with redirect_stdout(output):
            arguments = [str(self.path) if a == "%s" else a for a in shlex.split(self.args)]
            ConvjitOptMain("convjit-opt", args=arguments).run()
        options = Options(match_filename=str(self.path), check_prefixes=[self.prefix])
        said = io.StringIO()
        with redirect_stdout(said):
            status = Matcher(options, FInput("<output>", output.getvalue()), Parser.from_opts(options)).run()
        assert status == 0, f"{said.getvalue()}\n{self.prefix} does not match:\n{output.getvalue()}"

    def repr_failure(self, excinfo, style=None):
        return f"{excinfo.typename}: {excinfo.value}"

    def reportinfo(self):
        return self.path, 0, f"{self.path.name}: {self.args}"


def pytest_collect_file(parent, file_path: Path):
    if file_path.suffix == ".mlir" and file_path.parent.name == "filecheck":
        return MlirFile.from_parent(parent, path=file_path)
    return None


def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true", help="write what is printed now into tests/golden")


@pytest.fixture
def golden(request):
    """A function that compares a text with the file of this name in tests/golden; `--update-golden` rewrites it."""

    def check(name: str, text: str) -> None:
        path = Path(__file__).parent / "golden" / name
        if request.config.getoption("--update-golden"):
            path.write_text(text)
        assert path.exists(), f"no {path}: run pytest --update-golden"
        assert text == path.read_text()

    return check
