"""The processes of a node: supervisor, front, worker, keeper.

Invariant: only the worker, after its sandbox is up, imports pyvips.
"""
