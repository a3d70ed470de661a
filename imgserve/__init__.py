"""imgserve: a self-hosted image delivery server that can prove its privacy promises."""

__version__ = "0.1.0"
