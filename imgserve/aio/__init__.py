"""Async building blocks: flights, limits, periodic jobs, the mailbox between processes."""
