"""Compiling in the test's own process."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import traceback
from pathlib import Path
from typing import Any

from compile.portable import driver
from compile.portable.process import COST, Cost


def in_this_process(_python: str, work: Path, log: Path, *_: Any) -> tuple[int, bool, Cost]:
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    handler.setFormatter(logging.Formatter("%(levelname)s:%(name)s:%(message)s"))
    logger = logging.getLogger("Neuron")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    with contextlib.redirect_stdout(said):
        try:
            code = driver.main(["compile", str(work)])
        except Exception:  # as Python itself does at the end of a process
            said.write(traceback.format_exc())
            code = 1
    logger.removeHandler(handler)
    logger.setLevel(level)
    log.write_text(said.getvalue())
    cost = Cost(1.5, 3 * 2**20)
    (work / COST).write_text(json.dumps(dataclasses.asdict(cost)))
    return code, False, cost
