"""The command line: one file a group of commands, each with a table of its COMMANDS."""
