"""Fixtures that start nodes with tiny mains."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.node.harness import DEFAULTS, TinyNode


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[Callable[..., TinyNode]]:
    """Make nodes that are configured but not started."""
    made: list[TinyNode] = []

    def make(**options: Any) -> TinyNode:
        node = TinyNode(tmp_path, DEFAULTS)
        node.configure(**options)
        made.append(node)
        return node

    yield make
    for node in made:
        if hasattr(node, "process"):
            node.clean_up()


@pytest.fixture
def start_node(make_node: Callable[..., TinyNode]) -> Callable[..., TinyNode]:
    """Start a node and wait until it is ready."""

    def start(**options: Any) -> TinyNode:
        node = make_node(**options)
        node.start()
        assert node.line, (node.folder / "stderr.log").read_text()
        return node

    return start
