"""Cached files with their trailers, the index of their use, eviction.

Fronts open, publish and remove files; the index, eviction and the sweep of ages are the keeper's alone.
"""
