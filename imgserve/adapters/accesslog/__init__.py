"""The access log: day keys, pseudonyms, one SQLite file per tenant and UTC day.

Invariant: only the keeper opens day files; no raw address reaches this package's files.
"""
