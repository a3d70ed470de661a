"""The durable invalidation log."""
