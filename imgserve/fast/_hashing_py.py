"""SipHash-2-4 with 128 bits of output, in Python: the specification of ``ext/hashing.pyx``.

Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012, and the 128-bit variant of its reference
implementation. Words are little-endian.
"""

from typing import Final

KEY_BYTES: Final = 16
_MASK: Final = 0xFFFF_FFFF_FFFF_FFFF


def siphash128(key: bytes, data: bytes) -> bytes:
    """Keyed 16-byte hash of ``data``. Raises ValueError unless the key has 16 bytes."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a SipHash key has {KEY_BYTES} bytes, not {len(key)}")
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    state = (k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D ^ 0xEE, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573)
    whole = len(data) & ~7
    for at in range(0, whole, 8):
        state = _absorb(state, int.from_bytes(data[at : at + 8], "little"))
    # The last word is what is left over, with the length's low byte on top.
    state = _absorb(state, int.from_bytes(data[whole:], "little") | (len(data) & 0xFF) << 56)
    v0, v1, v2, v3 = state
    state = _rounds((v0, v1, v2 ^ 0xEE, v3), 4)
    low = state[0] ^ state[1] ^ state[2] ^ state[3]
    v0, v1, v2, v3 = state
    state = _rounds((v0, v1 ^ 0xDD, v2, v3), 4)
    high = state[0] ^ state[1] ^ state[2] ^ state[3]
    return low.to_bytes(8, "little") + high.to_bytes(8, "little")


class Hasher:
    """SipHash-2-4-128 under one key: call it with the data."""

    def __init__(self, key: bytes) -> None:
        """Raises ValueError unless the key has 16 bytes."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"a SipHash key has {KEY_BYTES} bytes, not {len(key)}")
        self._key = bytes(key)

    def __call__(self, data: bytes) -> bytes:
        """Keyed 16-byte hash of ``data``."""
        return siphash128(self._key, data)


_State = tuple[int, int, int, int]


def _absorb(state: _State, word: int) -> _State:
    v0, v1, v2, v3 = _rounds((state[0], state[1], state[2], state[3] ^ word), 2)
    return v0 ^ word, v1, v2, v3


def _rounds(state: _State, count: int) -> _State:
    v0, v1, v2, v3 = state
    for _ in range(count):
        v0 = (v0 + v1) & _MASK
        v1 = _turn(v1, 13) ^ v0
        v0 = _turn(v0, 32)
        v2 = (v2 + v3) & _MASK
        v3 = _turn(v3, 16) ^ v2
        v0 = (v0 + v3) & _MASK
        v3 = _turn(v3, 21) ^ v0
        v2 = (v2 + v1) & _MASK
        v1 = _turn(v1, 17) ^ v2
        v2 = _turn(v2, 32)
    return v0, v1, v2, v3


def _turn(word: int, bits: int) -> int:
    return (word << bits | word >> (64 - bits)) & _MASK
