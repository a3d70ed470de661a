"""What a node answers when the machine has too little for it."""

import http.client
import resource
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any


def test_without_descriptors_the_node_is_busy_and_not_broken(start_node: Any, origin: Any, make_png: Any) -> None:
    """A hundred clients of new images under ulimit -n 128: images and 503, and all is well afterwards."""
    for number in range(100):
        origin.files[f"/{number}.png"] = make_png(8, 8, (number, 0, 0))
        origin.delays_s[f"/{number}.png"] = 0.2
    limited = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (128, 128))
    node = start_node(fronts=1, preexec_fn=limited)

    def ask(number: int) -> int:
        try:
            status: int = node.get(f"/{origin.base}/{number % 100}.png?w={1 + number // 100}").status
        except (OSError, http.client.HTTPException):
            return 0  # not even a descriptor to accept the connection with
        return status

    with ThreadPoolExecutor(100) as clients:
        statuses = set(clients.map(ask, range(400)))

    assert {200, 503} <= statuses <= {0, 200, 503}
    assert 200 == node.get(f"/{origin.base}/red.png?w=7").status
    assert "request_failed" not in node.log
    assert "few_descriptors" in node.log
