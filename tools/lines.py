"""`make lines`: code lines of each room, without blank lines, comments and docstrings; the tests apart."""

from __future__ import annotations

import ast
import subprocess
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
APART = ("tests", "benchmarks", "examples")
NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def code_lines(path: Path) -> int:
    """Lines of a Python file on which code stands. A statement over several lines counts each of them."""
    with path.open("rb") as file:
        tokens = [token for token in tokenize.tokenize(file.readline) if token.type not in NO_CODE]
    lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    return len(lines - _docstrings(ast.parse(path.read_bytes())))


def _docstrings(tree: ast.AST) -> set[int]:
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            first = node.body[0]
            found |= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return found


def main() -> None:
    """Print a line a room, and the sum of the product's."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S607
    rooms: Counter[str] = Counter()
    for name in listed.stdout.splitlines():
        rooms[name.partition("/")[0]] += code_lines(ROOT / name)
    for room, count in sorted(rooms.items(), key=lambda row: (row[0] in APART, -row[1])):
        print(f"{count:7}  {room}")
    print(f"{sum(count for room, count in rooms.items() if room not in APART):7}  product (without {', '.join(APART)})")


if __name__ == "__main__":
    main()
