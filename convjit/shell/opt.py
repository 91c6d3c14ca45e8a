"""`convjit-opt`: run passes on IR from the shell, as `mlir-opt` does.

convjit-opt -p raise-conv,fuse-epilogue dump/001-ResNet/00-traced.mlir
"""

from __future__ import annotations

from xdsl.xdsl_opt_main import xDSLOptMain


class ConvjitOptMain(xDSLOptMain):
    """xDSL's driver; dialects and passes of convjit come through its `xdsl.universe` entry point."""

    version_format = "convjit-opt on xdsl {xdsl_version}"


def main() -> None:
    ConvjitOptMain("convjit's passes on IR").run()


if __name__ == "__main__":
    main()
