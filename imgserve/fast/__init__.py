"""Compiled parts and their Python twins. IMGSERVE_PURE=1 picks the twins.

``NAME.py`` chooses between ``_NAME``, compiled from ``ext/NAME.pyx``, and ``_NAME_py``, which is its
specification: same names, same signatures, same answers. Nothing falls back silently: where the
compiled part is missing, the import fails.

Invariant: holds no policy. What may be answered, and for how long, is decided by whoever fills these.
"""

import os
from typing import Final

IS_PURE: Final = os.environ.get("IMGSERVE_PURE") == "1"
