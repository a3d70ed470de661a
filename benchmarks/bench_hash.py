"""SipHash-2-4-128: compiled against its Python twin, and against BLAKE2 of the standard library."""

from functools import partial
from hashlib import blake2b

from benchmarks import harness
from imgserve.fast import _hashing, _hashing_py

KEY = bytes(range(16))


def keyed_blake2b(data: bytes) -> bytes:
    """The same with the standard library."""
    return blake2b(data, digest_size=16, key=KEY).digest()


def main() -> None:
    """The lengths of an image's canonical location with its tenant, of a plan, and of something large."""
    rows = []
    for size in (40, 120, 4096):
        data = bytes(i % 251 for i in range(size))
        variants = {
            "compiled": harness.calls(partial(_hashing.Hasher(KEY), data)),
            "BLAKE2b keyed": harness.calls(partial(keyed_blake2b, data)),
            "Python twin": harness.calls(partial(_hashing_py.Hasher(KEY), data)),
        }
        rows += harness.compare(f"{size} bytes", variants)
    harness.report("hash", rows, about="keyed 128-bit hash of one message")


if __name__ == "__main__":
    main()
