"""The length of a day."""

from typing import Final

DAY_S: Final = 86_400
"""Of every UTC day, as POSIX counts them: leap seconds have no number."""
