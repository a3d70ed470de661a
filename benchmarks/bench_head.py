"""The request-head scanner, the memory of answers and the event ring: compiled against their Python twins."""

from functools import partial
from types import ModuleType
from typing import Any

from benchmarks import harness
from imgserve.fast import _answers, _answers_py, _events, _events_py, _head, _head_py

CURL = (
    b"GET /v7/images.example.com/cat.jpg?w=400 HTTP/1.1\r\n"
    b"Host: demo.localhost:8080\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n"
)
BROWSER = (
    b"GET /v7/images.example.com/photos/2024/cat.jpg?w=400&h=300&func=crop&q=80 HTTP/1.1\r\n"
    b"Host: demo.localhost:8080\r\n"
    b"Connection: keep-alive\r\n"
    b'sec-ch-ua: "Chromium";v="130", "Google Chrome";v="130", "Not?A_Brand";v="99"\r\n'
    b"sec-ch-ua-mobile: ?0\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"Chrome/130.0.0.0 Safari/537.36\r\n"
    b'sec-ch-ua-platform: "Linux"\r\n'
    b"Accept: image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8\r\n"
    b"Sec-Fetch-Site: same-site\r\n"
    b"Sec-Fetch-Mode: no-cors\r\n"
    b"Sec-Fetch-Dest: image\r\n"
    b"Referer: https://shop.example.com/products/42\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Accept-Language: en-GB,en;q=0.9,fr;q=0.8\r\n"
    b"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n"
    b"X-Forwarded-For: 203.0.113.7\r\n"
    b"\r\n"
)
FORWARDED = b"x-forwarded-for"


def remembered(module: ModuleType) -> Any:
    """A look-up that hits, among ten thousand answers."""
    memory = module.Answers(1 << 30, memoryview(bytearray(512)).cast("Q"))
    answer = module.Answer(
        before_date=b"x" * 200, after_date=b"x" * 200, body=b"", status=200, expires_s=1e9, stamp=1, image_slot=8,
        tenant_slot=9, template=None,
    )  # fmt: skip
    keys = [b"Gdemo.localhost:8080/v7/images.example.com/cat.jpg?w=%d" % number for number in range(10_000)]
    for key in keys:
        memory.put(key, b"image/webp,*/*", 1, answer, 0)
    assert memory.get(keys[5000], b"image/webp,*/*", 0.0) is answer
    return partial(memory.get, keys[5000], b"image/webp,*/*", 0.0)


def pushed(module: ModuleType) -> Any:
    """A push into a ring that is emptied now and then, as the flush does."""
    ring = module.EventRing(1000)
    template, peer = object(), "192.0.2.1"

    def push() -> None:
        if len(ring) == 1000:
            ring.drain(1000)
        ring.push(1_700_000_000, template, peer, None, 12, 200, 24_000)

    return push


def main() -> None:
    """Each with both twins."""
    twins = {
        f"scan: {len(CURL)} bytes of curl": (
            partial(_head.scan, CURL, FORWARDED),
            partial(_head_py.scan, CURL, FORWARDED),
        ),
        f"scan: {len(BROWSER)} bytes of a browser": (
            partial(_head.scan, BROWSER, FORWARDED),
            partial(_head_py.scan, BROWSER, FORWARDED),
        ),
        "answers: a hit among 10,000": (remembered(_answers), remembered(_answers_py)),
        "events: push, and drain by the thousand": (pushed(_events), pushed(_events_py)),
    }
    rows = []
    for case, (compiled, python) in twins.items():
        rows += harness.compare(case, {"compiled": harness.calls(compiled), "Python twin": harness.calls(python)})
    harness.report("head", rows, about="what the fast path does for one request")


if __name__ == "__main__":
    main()
