"""The outside world, one folder per thing. Invariant: no adapter imports another."""
