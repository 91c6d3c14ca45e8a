"""docs/code.md lists all packages, and the modules of most; links of all documents lead somewhere."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_code_is_listed():
    """Where a package is followed by a colon, its modules are listed as well."""
    text = (ROOT / "docs" / "code.md").read_text()
    package = ROOT / "convjit"
    opened = [package, *(package / name for name in re.findall(r"`(\w+)/`:", text))]
    modules = {path.name for folder in opened for path in folder.glob("*.py")} - {"__init__.py"}
    packages = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    listed = set(re.findall(r"`([\w./]+)`", text))
    assert not (modules | packages) - listed
    assert not {name for name in listed if name.endswith(".py")} - modules - {"reference.py", "replay.py"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links(document: Path):
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text())
    assert all((document.parent / target).exists() for target in targets), targets
