"""Event loops for the tests of the web floor."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The fast path lives on transports, so its tests run on both kinds; all others run on the fronts' kind."""
    fronts = {"uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop, **fronts} if item.path.name == "test_fast_path.py" else fronts
