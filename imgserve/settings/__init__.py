"""The configuration: a TOML file and the environment, checked and composed into one frozen record.

Invariant: whatever is wrong becomes one line that names the key, its value and the fix; secrets are never shown.
"""

from imgserve.settings.compose import Loaded, load
from imgserve.settings.cores import usable_cores
from imgserve.settings.records import (
    Configuration,
    Listen,
    Operator,
    Privacy,
    Server,
    SubProcessor,
    changed_outside_tenants,
)
from imgserve.settings.snapshot import decode_tenants, encode_tenants

__all__ = [
    "Configuration",
    "Listen",
    "Loaded",
    "Operator",
    "Privacy",
    "Server",
    "SubProcessor",
    "changed_outside_tenants",
    "decode_tenants",
    "encode_tenants",
    "load",
    "usable_cores",
]
