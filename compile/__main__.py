"""`python -m compile`."""

from __future__ import annotations

from compile.cli import main

main()
