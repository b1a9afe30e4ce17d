"""The subcommands of `python -m compile`, one group a file.

A module listed in compile/cli/app.py has a table of its COMMANDS.
"""
