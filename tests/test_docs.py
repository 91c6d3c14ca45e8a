"""docs/code.md lists the code, which has an order; links of all documents lead somewhere."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "convjit"
DOCUMENTS = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_code_is_listed():
    """Where a package is followed by a colon, its modules are listed as well."""
    text = (ROOT / "docs" / "code.md").read_text()
    opened = [PACKAGE, *(PACKAGE / name for name in re.findall(r"`(\w+)/`:", text))]
    modules = {path.name for folder in opened for path in folder.glob("*.py")} - {"__init__.py"}
    packages = {f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")}
    listed = set(re.findall(r"`([\w./]+)`", text))
    assert not (modules | packages) - listed
    assert not {name for name in listed if name.endswith(".py")} - modules - {"reference.py", "replay.py"}


def test_packages_import_each_other_in_one_direction():
    """Packages, and the modules beside them, as far as they import at their top."""
    known: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE).with_suffix("").parts[0]
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.module.startswith("convjit"):
                inner = node.module.split(".")[1:2]
                known.setdefault(part, set()).update(inner or [name.name for name in node.names])
    TopologicalSorter({part: others - {part} for part, others in known.items()}).prepare()  # raises for a cycle


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links(document: Path):
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    assert all((document.parent / target).exists() for target in targets), targets
