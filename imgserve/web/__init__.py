"""HTTP: the fast path, the aiohttp handlers, the pages.

Invariant: the only place that knows HTTP status numbers; knows services, never adapters.
"""
