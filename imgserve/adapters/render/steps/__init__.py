"""The steps of the pipeline, one file each. Every step takes the work and gives it back one step further.

Invariant: only here and in ``pipeline`` is pyvips imported, and no path is ever handed to it.
"""
