"""Builds every object once: the only file that knows all parts."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from imgserve import tallies
from imgserve.adapters.accesslog.keyring import KeyRing
from imgserve.adapters.accesslog.recorder import TAG as LOG_TAG
from imgserve.adapters.accesslog.recorder import Recorder
from imgserve.adapters.accesslog.remote import RemoteSubjects, SubjectServer
from imgserve.adapters.accesslog.retention import Retention
from imgserve.adapters.accesslog.subjects import DayFileSubjects
from imgserve.adapters.accesslog.writer import DayFiles
from imgserve.adapters.cache.eviction import Evictor
from imgserve.adapters.cache.journal import TAG as JOURNAL_TAG
from imgserve.adapters.cache.journal import Journal
from imgserve.adapters.cache.store import DiskCache
from imgserve.adapters.invalidation import log as invalidation_log
from imgserve.adapters.invalidation.log import SqliteInvalidationLog
from imgserve.adapters.metrics import prometheus
from imgserve.adapters.origins.http import HttpOrigin
from imgserve.adapters.origins.local import LocalFolder
from imgserve.adapters.origins.router import Origins
from imgserve.adapters.render.pool import WorkerPool
from imgserve.aio import mailbox
from imgserve.aio.clock import JumpWatch, SystemClock
from imgserve.aio.flight import NodeFlights
from imgserve.aio.periodic import Periodic
from imgserve.core.addresses import TrustedProxies
from imgserve.core.errors import Misconfigured
from imgserve.core.tenants import Tenants
from imgserve.disk import files, locks
from imgserve.disk.locks import LockFile
from imgserve.disk.slots import FILE_NAME as SLOTS_NAME
from imgserve.disk.slots import SlotMap
from imgserve.fast.answers import Answers
from imgserve.fast.hashing import KEY_BYTES, Hasher
from imgserve.interfaces import CachedFile
from imgserve.node.board import Role
from imgserve.node.boot import FrontBoot, KeeperBoot
from imgserve.node.front import FrontParts
from imgserve.node.handover import Handover, now_ms
from imgserve.node.keeper import Count, Handler, Job, KeeperParts
from imgserve.services import maintenance
from imgserve.services.images import Images, Seams
from imgserve.services.invalidation import Invalidations, LocalNode
from imgserve.services.privacy import Store, Subjects
from imgserve.settings import Configuration
from imgserve.web import routes
from imgserve.web.callers import Callers
from imgserve.web.health import HealthHandlers
from imgserve.web.images import ImageHandlers
from imgserve.web.images import Settings as ImageSettings
from imgserve.web.invalidation import InvalidationHandlers
from imgserve.web.pages.documents import DocumentHandlers
from imgserve.web.privacy import PrivacyHandlers
from imgserve.web.recording import RequestLog
from imgserve.web.server import Admin, Delivery

_EVENTS_PER_TURN: Final = 200
_KEEPER_PATIENCE_S: Final = 10.0  # a keeper that died is replaced long before
_KEEPER_POLL_S: Final = 0.1


def prepare(configuration: Configuration) -> None:
    """Make the data folder ready, once, before any child is born."""
    data_dir = configuration.server.data_dir
    prometheus.wipe(_metrics_folder(configuration))
    files.check(data_dir)
    files.sweep(str(data_dir / "tenants"))
    _make_hash_key(configuration.hash_key, data_dir)
    now_s = time.time()
    SlotMap.rebuild(data_dir / SLOTS_NAME, invalidation_log.replay(data_dir, now_s), now_s=now_s).close()


class TenantsHolder:
    """The present snapshot of tenants."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants

    def current(self) -> Tenants:
        """The snapshot to use for the request at hand."""
        return self._tenants

    def swap(self, tenants: Tenants) -> None:
        """Serve by these from now on."""
        self._tenants = tenants


@dataclass(frozen=True, slots=True, kw_only=True)
class _Engine:
    """What a front serves images with."""

    slots: SlotMap
    cache: DiskCache
    journal: Journal
    pool: WorkerPool
    http: HttpOrigin
    local: LocalFolder
    flights: NodeFlights[CachedFile]
    log: SqliteInvalidationLog
    images: Images
    invalidations: Invalidations


@contextlib.asynccontextmanager
async def build_front(boot: FrontBoot) -> AsyncIterator[FrontParts]:
    """All objects of a front."""
    configuration = boot.configuration
    prometheus.join(_metrics_folder(configuration), boot.name)
    clock = SystemClock()
    sender = mailbox.Sender(boot.mailbox)
    requests = prometheus.Requests(boot.slot.count)
    keys = KeyRing(configuration.accesslog.keys_dir)
    recorder = Recorder(configuration.accesslog, keys, sender, clock)
    tenants = TenantsHolder(configuration.tenants)
    async with contextlib.AsyncExitStack() as stack:
        engine = await _build_engine(boot, stack, sender, clock, requests)
        answers = Answers(configuration.cache.memory_bytes // configuration.front_count, engine.slots.words)
        stack.callback(answers.close)
        health = HealthHandlers(
            is_ready=lambda: boot.board.is_ready,
            metrics=prometheus.Scrape(_metrics_folder(configuration), _node_view(boot)).text,
        )
        delivery = Delivery(
            _delivery_routes(configuration, engine, tenants, answers, health),
            RequestLog(
                sink=recorder,
                counter=requests,
                journal=engine.journal,
                forwarded_header=configuration.server.forwarded_header,
                trusted=TrustedProxies(configuration.server.trusted_proxies),
            ),
            answers,
            forwarded_header=configuration.server.forwarded_header,
            ring_max=configuration.accesslog.ring_max,
        )
        published = _front_tallies(recorder, keys, engine, sender, delivery)
        jumps = JumpWatch(clock)

        async def tick() -> None:
            if jumps.has_jumped():
                delivery.paths.clear()
            is_full = True
            while is_full:  # a turn that was not full has emptied both rings, whatever came meanwhile
                begun_ms = now_ms()
                moved = delivery.record_replays(_EVENTS_PER_TURN), recorder.flush(_EVENTS_PER_TURN)
                is_full = max(moved) >= _EVENTS_PER_TURN
                if not is_full and recorder.is_empty:
                    boot.slot.handed_over_ms = begun_ms
                await asyncio.sleep(0)  # in small turns: requests go first
            engine.journal.flush()
            requests.publish()
            published.publish()

        async def drain(within_s: float) -> None:
            while delivery.record_replays(_EVENTS_PER_TURN):
                recorder.flush(_EVENTS_PER_TURN)
            await recorder.drain(within_s)
            await tick()

        def reload(newer: Tenants) -> None:
            tenants.swap(newer)
            delivery.paths.clear()

        admin = Admin(routes.admin(health=health))
        yield FrontParts(delivery=delivery, admin=admin, reload=reload, tick=tick, drain=drain)


async def _build_engine(
    boot: FrontBoot,
    stack: contextlib.AsyncExitStack,
    sender: mailbox.Sender,
    clock: SystemClock,
    requests: prometheus.Requests,
) -> _Engine:
    configuration = boot.configuration
    data_dir = configuration.server.data_dir
    slots = SlotMap.open(boot.slot_map)
    stack.callback(slots.close)
    journal = Journal(sender.try_send, clock)
    cache = DiskCache(configuration.cache, slots=slots, clock=clock, removals=journal)
    log = SqliteInvalidationLog(data_dir)
    stack.push_async_callback(log.close)
    http = await stack.enter_async_context(HttpOrigin(configuration.origins))
    local = await stack.enter_async_context(LocalFolder(configuration.origins))
    flights: NodeFlights[CachedFile] = await stack.enter_async_context(
        NodeFlights(LockFile(data_dir / "flights.lock"), share=cache.share, release=_close)
    )
    hasher = Hasher(_hash_key(configuration.hash_key))
    pool = WorkerPool(boot.jobs, configuration.render, on_rendered=requests.rendered)
    images = Images(
        Seams(
            cache=cache,
            journal=journal,
            origin=Origins({"http": http, "https": http, "file": local}),
            renderer=pool,
            slots=slots,
            log=log,
            flights=flights,
            hasher=hasher,
            clock=clock,
        )
    )
    node = LocalNode(name=configuration.server.node, slots=slots, cache=cache)
    invalidations = Invalidations(log=log, node=node, hasher=hasher, clock=clock)
    return _Engine(
        slots=slots,
        cache=cache,
        journal=journal,
        pool=pool,
        http=http,
        local=local,
        flights=flights,
        log=log,
        images=images,
        invalidations=invalidations,
    )


def _delivery_routes(
    configuration: Configuration, engine: _Engine, tenants: TenantsHolder, answers: Answers, health: HealthHandlers
) -> routes.Routes:
    region = configuration.server.region
    callers = Callers(tenants, region)
    return routes.delivery(
        images=ImageHandlers(
            images=engine.images,
            tenants=tenants,
            epoch=lambda: answers.epoch,
            slots=engine.slots,
            clock=SystemClock(),
            settings=ImageSettings(region=region, max_age_days=configuration.cache.max_age_days),
        ),
        invalidation=InvalidationHandlers(invalidations=engine.invalidations, callers=callers),
        privacy=PrivacyHandlers(
            subjects=_subjects(configuration, RemoteSubjects(configuration.server.data_dir)),
            callers=callers,
            region=region,
        ),
        health=health,
        documents=DocumentHandlers(),
    )


async def build_keeper(boot: KeeperBoot) -> KeeperParts:
    """All objects of the keeper."""
    configuration = boot.configuration
    server = configuration.server
    prometheus.join(_metrics_folder(configuration), boot.name)
    clock = SystemClock()
    stack = contextlib.AsyncExitStack()
    day_files = DayFiles(configuration.accesslog, clock)
    stack.callback(day_files.close)
    keys = KeyRing(configuration.accesslog.keys_dir)
    retention = Retention(configuration.accesslog, day_files, keys, clock)
    subject_server = SubjectServer(
        server.data_dir,
        DayFileSubjects(configuration.accesslog, day_files),
        Handover(boot.board, boot.mailbox).settle,
    )
    stack.callback(subject_server.close)
    subject_server.listen()
    tenants = TenantsHolder(configuration.tenants)
    slots = SlotMap.open(boot.slot_map)
    stack.callback(slots.close)
    evictor = await stack.enter_async_context(Evictor(configuration.cache, clock=clock))
    log = SqliteInvalidationLog(server.data_dir)
    stack.push_async_callback(log.close)
    cache = DiskCache(configuration.cache, slots=slots, clock=clock, removals=evictor)
    hasher = Hasher(_hash_key(configuration.hash_key))
    node = LocalNode(name=server.node, slots=slots, cache=cache)
    invalidations = Invalidations(log=log, node=node, hasher=hasher, clock=clock)
    published = prometheus.Tallies()
    stack.callback(published.publish)
    tallies.of_upkeep(published, evictor)
    tallies.of_day_files(published, day_files, retention)
    tallies.of_invalidations(published, invalidations)

    async def write_rows(payload: bytes) -> None:
        day_files.write(payload)

    async def publish() -> None:
        published.publish()

    jobs = maintenance.jobs(
        retention=retention,
        cache=evictor,
        invalidation_log=log,
        invalidations=invalidations,
        clock=clock,
        max_age_days=configuration.cache.max_age_days,
    )
    early_keys = maintenance.early_keys(keys, lambda: _served_here(tenants.current(), server.region), clock)
    periodic = [Periodic(job.name, job.every_s, job.run, clock=clock) for job in (*jobs, early_keys)]
    periodic.append(Periodic("metrics", 1, publish, clock=clock))
    tallies.of_jobs(published, periodic, subject_server)
    handlers = {LOG_TAG: write_rows, JOURNAL_TAG: evictor.apply}
    return _KeeperObjects(handlers, [*periodic, subject_server], tenants, stack)


@contextlib.asynccontextmanager
async def build_subjects(configuration: Configuration) -> AsyncIterator[Subjects]:
    """For commands: asks the keeper of the running node; where none runs, owns the data folder and does its work.

    Raises Held when the folder has an owner whose keeper does not come to listen, Misconfigured when its FORMAT is
    not known.
    """
    data_dir = configuration.server.data_dir
    remote = RemoteSubjects(data_dir)
    give_up_s = time.monotonic() + _KEEPER_PATIENCE_S
    while not remote.is_there():
        try:
            owner = locks.own(data_dir)
        except locks.Held:
            if time.monotonic() > give_up_s:
                raise
            await asyncio.sleep(_KEEPER_POLL_S)
            continue
        with contextlib.closing(owner), contextlib.closing(DayFiles(configuration.accesslog, SystemClock())) as own:
            yield _subjects(configuration, DayFileSubjects(configuration.accesslog, own))
        return
    yield _subjects(configuration, remote)


def _subjects(configuration: Configuration, store: Store) -> Subjects:
    keys = KeyRing(configuration.accesslog.keys_dir)
    return Subjects(
        store=store, keys=keys, receipt_key=keys.receipt_key, node=configuration.server.node, clock=SystemClock()
    )


class _KeeperObjects:
    """Implements ``KeeperParts``."""

    def __init__(
        self,
        handlers: Mapping[bytes, Handler],
        jobs: Sequence[Job],
        tenants: TenantsHolder,
        stack: contextlib.AsyncExitStack,
    ) -> None:
        self.handlers: Final = handlers
        self.jobs: Final = jobs
        self.reload: Final = tenants.swap
        self._stack = stack

    async def close(self) -> None:
        """Close all files."""
        await self._stack.aclose()


def _served_here(tenants: Tenants, region: str) -> list[str]:
    """Names of the tenants that this node may serve: nothing of others is made here, not even a key."""
    return [tenant.name for tenant in tenants if tenant.may_be_served_in(region)]


def _close(file: CachedFile) -> None:
    file.close()


def _node_view(boot: FrontBoot) -> prometheus.NodeView:
    fronts = boot.board.slots(Role.FRONT)
    keeper = boot.board.slot(Role.KEEPER, 0)
    return prometheus.NodeView(
        restarts=boot.board.restarts,
        is_ready=lambda: boot.board.is_ready,
        keeper_packets=lambda: {outcome.name.lower(): keeper.counted(outcome) for outcome in Count},
        latency_cells=lambda: [sum(slot.counted(cell) for slot in fronts) for cell in range(prometheus.LATENCY_CELLS)],
    )


def _front_tallies(
    recorder: Recorder, keys: KeyRing, engine: _Engine, sender: mailbox.Sender, delivery: Delivery
) -> prometheus.Tallies:
    published = prometheus.Tallies()
    paths = delivery.paths
    tallies.of_log_rows(published, recorder, lambda: paths.events.dropped, keys)
    tallies.of_mailbox(published, sender)
    tallies.of_rendering(published, engine.pool)
    tallies.of_flights(published, engine.flights)
    tallies.of_origins(published, engine.http, engine.local)
    tallies.of_cache(published, engine.cache, engine.journal)
    tallies.of_invalidations(published, engine.invalidations)
    tallies.of_invalidation_log(published, engine.log)
    published.gauge("imgserve_memory_answers_bytes", "Hot answers in memory.", lambda: paths.answers.used_bytes)
    published.counter("imgserve_connections_timed_out", "Connections closed as idle.", lambda: paths.timed_out)
    return published


def _metrics_folder(configuration: Configuration) -> Path:
    return configuration.server.data_dir / "metrics"


def _make_hash_key(path: Path, data_dir: Path) -> None:
    """Make the key of all cache names at the first start. It is never changed: with another one the cache is lost, and
    no invalidation finds what lies there. Raises Misconfigured where there is a cache, and no key."""
    if path.exists():  # not read here: what the supervisor knows, the workers it forks know too
        return
    if any((data_dir / "tenants").glob("*/images/*/*/*")):
        raise Misconfigured(
            "privacy.keys_dir",
            str(path),
            f"restore hash.key, or remove the cached images ({data_dir}/tenants/*/images)",
        )
    folder = str(path.parent)
    files.make_folder(folder)
    fd = files.unnamed(folder)
    try:
        files.write_all(fd, memoryview(os.urandom(KEY_BYTES)), 0)
        os.fsync(fd)
        files.publish(fd, folder, path.name)
        files.sync_folder(folder)
    finally:
        os.close(fd)


def _hash_key(path: Path) -> bytes:
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise Misconfigured(
            "privacy.keys_dir", str(path), "the key is damaged: restore it, or remove it with the cache"
        )
    return key
