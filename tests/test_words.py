"""Words that are out stand nowhere in code, messages or docs; CONTRIBUTING.md has the glossary."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUT = re.compile(
    r"\b(told|whoever|roads?|for company|taken apart|comes? home|brings? home|brought home)\b"
    r"|\bits time was up\b|\bas many as may\b",
    re.IGNORECASE,
)
LOOKED_AT = (".py", ".md", ".sh", ".yaml", ".yml", ".toml", "")


def test_words_that_are_out() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True)
    files = [ROOT / name for name in listed.stdout.splitlines() if not name.startswith(("requirements", "LICENSE"))]
    found = [
        f"{file.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for file in files
        if file.suffix in LOOKED_AT and file != Path(__file__).resolve() and file.is_file()
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1)
        if OUT.search(line)
    ]
    assert found == []


def test_the_glossary_is_short() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = [line for line in page.split("## Words")[1].split("\n## ")[0].splitlines() if line.startswith("| ")]
    assert 15 <= len(rows) - 1 <= 25
