"""What Prometheus reads when the node's value files are not all there."""

from pathlib import Path

import pytest

from imgserve.adapters.metrics import prometheus


@pytest.mark.parametrize("is_there", [False, True])
def test_without_value_files_shared_memory_still_speaks(tmp_path: Path, *, is_there: bool) -> None:
    """A data folder that was removed is no failure of the scrape: the alarms that say so must go on."""
    if is_there:
        (tmp_path / "metrics").mkdir()
    view = prometheus.NodeView(
        restarts=lambda: {"front": 3},
        is_ready=lambda: False,
        latency_cells=lambda: [0] * prometheus.LATENCY_CELLS,
        keeper_packets=dict,
    )
    lines = prometheus.Scrape(tmp_path / "metrics", view).text().decode().splitlines()

    assert {"imgserve_ready 0.0", 'imgserve_restarts_total{role="front"} 3.0'} <= set(lines)


def test_value_files_that_vanish_meanwhile_are_left_out(tmp_path: Path) -> None:
    """As when the folder is removed under a scrape: a name that leads nowhere stands for that."""
    (tmp_path / "counter_front0.db").symlink_to(tmp_path / "nowhere")
    view = prometheus.NodeView(
        restarts=dict,
        is_ready=lambda: True,
        latency_cells=lambda: [0] * prometheus.LATENCY_CELLS,
        keeper_packets=dict,
    )

    assert b"imgserve_ready 1.0" in prometheus.Scrape(tmp_path, view).text()
