"""`python -m embedded_aws`: the same commands as `inferentia rehearsal`."""

from .rehearsal import app

if __name__ == "__main__":
    app(prog_name="python -m embedded_aws")
