"""`python -m embedded_aws`: the same commands as `inferentia rehearsal`."""

import signal

# Until a command runs there is nothing to clean up: Ctrl-C ends it at once.
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from .rehearsal import app

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    app(prog_name="python -m embedded_aws")
