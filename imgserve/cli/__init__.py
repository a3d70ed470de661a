"""Command line: one file per command.

Results go to standard output, progress and logs to standard error; exit 0, 1 for a failed task, 2 for wrong use.
"""
