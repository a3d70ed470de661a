"""Rendering: the fronts' end of the queue, the sandbox, and the pipeline of the workers.

Invariant: pyvips is imported only by ``pipeline`` and ``steps``, and those only by a worker.
"""
