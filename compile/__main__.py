"""`python -m compile`."""

from __future__ import annotations

import signal
from typing import NoReturn

from compile.cli.app import main
from compile.errors import SIGTERM_CODE


def _stop(*_: object) -> NoReturn:
    # SIGTERM unwinds like an error, so that half-done work is removed and no worker stays behind.
    raise SystemExit(SIGTERM_CODE)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _stop)
    main()
