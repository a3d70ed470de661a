"""The parts of a real node. Imported before the first fork: what the mains need is loaded once, and shared."""

from functools import partial
from typing import Final

from imgserve import wiring
from imgserve.adapters.render.pool import make_queue
from imgserve.disk import slots
from imgserve.node import front, keeper, worker
from imgserve.node.boot import Mains, Parts, WorkerBoot
from imgserve.node.control import say_ready
from imgserve.settings import Configuration, load

_JOBS_PER_WORKER: Final = 32
_JOBS_MIN: Final = 64


def real(configuration: Configuration) -> Parts:
    """Fronts, keeper and workers as users run them."""
    return Parts(
        mains=Mains(
            front=partial(front.main, build=wiring.build_front),
            keeper=partial(keeper.main, build=wiring.build_keeper),
            worker=_work,
        ),
        load=load,
        prepare=partial(wiring.prepare, configuration),
        make_jobs=partial(make_queue, max(_JOBS_MIN, _JOBS_PER_WORKER * configuration.worker_count)),
        slot_map=configuration.server.data_dir / slots.FILE_NAME,
    )


def _work(boot: WorkerBoot) -> None:
    worker.main(boot.jobs, boot.configuration.render, partial(say_ready, boot))
