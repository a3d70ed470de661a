"""Remembered images over HTTP: the fast path in front of aiohttp against aiohttp alone.

Each variant is a server process of its own on one core, with the same handler, which has the bytes at hand; the load
comes from wrk on another core, with a browser's headers, over 32 connections. CPU time is the server's.
``python -m benchmarks.bench_fast_path serve VARIANT`` is such a server.
"""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import uvloop
from aiohttp import web

from benchmarks import harness
from imgserve.fast.answers import Answers
from imgserve.fast.events import EventRing
from imgserve.web import fast_path

SIZES = (1_500, 24_000, 151_000)
ROUND_S = 1
CONNECTIONS = 32
HEADERS = (
    "Host: demo.localhost:8080",
    'sec-ch-ua: "Chromium";v="130", "Google Chrome";v="130", "Not?A_Brand";v="99"',
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
    "Accept: image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
    "Referer: https://shop.example.com/products/42",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Accept-Language: en-GB,en;q=0.9,fr;q=0.8",
    "Cookie: session=0123456789abcdef0123456789abcdef; theme=dark",
    "X-Forwarded-For: 203.0.113.7",
)


async def serve(variant: str) -> None:
    """Serve bodies of the asked size until killed; the port on standard output."""
    bodies = {f"/{size}": bytes(size) for size in SIZES}
    answers = Answers(64_000_000, memoryview(bytearray(512)).cast("Q"))

    async def image(request: web.BaseRequest) -> web.StreamResponse:
        body = bodies[request.path]
        request[fast_path.REPLAY] = fast_path.Replay(
            body=body,
            expires_s=time.monotonic() + 3600,
            stamp=1,
            image_slot=8,
            tenant_slot=9,
            accept_class="avif",
            epoch=answers.epoch,
            template=None,
        )
        headers = {
            "Content-Type": "image/avif",
            "Cache-Control": "public, max-age=3600, s-maxage=86400",
            "Cache-Status": "imgserve; hit",
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "X-Content-Type-Options": "nosniff",
            "Access-Control-Allow-Origin": "*",
            "Cross-Origin-Resource-Policy": "cross-origin",
            "ETag": '"4hkzkb5nqysmq5nqysmq5nqysm"',
            "Surrogate-Key": "4hkzkb5nqysmq5nq",
            "Vary": "Accept",
        }
        return web.Response(body=body, headers=headers)

    server = fast_path.server(image)
    events = EventRing(65_536)
    paths = fast_path.FastPaths(server, answers, events, fast_path.Settings(forwarded_header=b"x-forwarded-for"))
    factory: Callable[[], asyncio.Protocol] = paths if variant == "fast path" else server
    listening = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
    print(listening.sockets[0].getsockname()[1], flush=True)
    while True:
        await asyncio.sleep(0.1)
        events.drain(events.capacity)


class Served:
    """A server process, and how to load it."""

    def __init__(self, variant: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.bench_fast_path", "serve", variant],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def cpu_s(self) -> float:
        """User and system time of the server so far."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def load(self, size: int) -> harness.Sample:
        """A round of load by wrk."""
        arguments = [part for header in HEADERS for part in ("-H", header)]
        before_s, began_s = self.cpu_s(), time.perf_counter()
        done = subprocess.run(
            ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{ROUND_S}s", *arguments, f"http://127.0.0.1:{self.port}/{size}"],
            capture_output=True,
            text=True,
            check=True,
        )
        wall_s, cpu_s = time.perf_counter() - began_s, self.cpu_s() - before_s
        found = re.search(r"(\d+) requests in", done.stdout)
        if found is None or re.search(r"Socket errors|Non-2xx", done.stdout):
            raise RuntimeError(f"the load failed: {done.stdout}")
        return harness.Sample(operations=int(found[1]), wall_s=wall_s, cpu_s=cpu_s)

    def stop(self) -> None:
        """End the server."""
        self.process.kill()
        self.process.wait()


def main() -> None:
    """Five rounds of each size, in turns."""
    if shutil.which("wrk") is None:
        sys.exit("bench_fast_path needs wrk: apt-get install wrk")
    usable = sorted(os.sched_getaffinity(0))
    # Children inherit the core: the servers one, and wrk, with this process, the other.
    os.sched_setaffinity(0, {usable[0]})
    served = {variant: Served(variant) for variant in ("fast path", "aiohttp alone")}
    os.sched_setaffinity(0, {usable[-1]})
    try:
        rows = []
        for size in SIZES:
            variants = {variant: partial(server.load, size) for variant, server in served.items()}
            rows += harness.compare(f"{size:,} bytes", variants, rounds=5)
    finally:
        for server in served.values():
            server.stop()
    harness.report("fast_path", rows, about="remembered images over HTTP, one core for the server, one for wrk")


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        uvloop.run(serve(sys.argv[2]))
    else:
        main()
