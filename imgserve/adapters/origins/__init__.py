"""Where originals come from: HTTP servers and local folders, each behind its guard."""
