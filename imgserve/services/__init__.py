"""Use cases: what the server does, without HTTP and without knowing its adapters."""
