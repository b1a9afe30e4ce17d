"""The subcommands of `python -m compile`, one group a file.

A module with `register(app)` listed in compile/cli/app.py adds its commands.
"""
