"""The command `inferentia`: a table of verbs, each of which loads its room when it runs."""
