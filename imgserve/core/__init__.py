"""Pure rules and records of the server.

Invariant: nothing here does I/O, reads a clock or the environment, logs, or awaits.
"""
