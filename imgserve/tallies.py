"""What the parts of a node count, under the names that Prometheus reads.

A part keeps plain integers; here each gets a name, which ends in the unit, and a line of help. Several processes may
publish the same name: the node's value is their sum.
"""

from collections.abc import Callable, Collection

from imgserve.adapters.accesslog.keyring import KeyRing
from imgserve.adapters.accesslog.recorder import Recorder
from imgserve.adapters.accesslog.remote import SubjectServer
from imgserve.adapters.accesslog.retention import Retention
from imgserve.adapters.accesslog.writer import DayFiles
from imgserve.adapters.cache.eviction import Evictor
from imgserve.adapters.cache.journal import Journal
from imgserve.adapters.cache.store import DiskCache
from imgserve.adapters.invalidation.log import SqliteInvalidationLog
from imgserve.adapters.metrics.prometheus import Tallies
from imgserve.adapters.origins.http import HttpOrigin
from imgserve.adapters.origins.local import LocalFolder
from imgserve.adapters.render.pool import WorkerPool
from imgserve.aio.flight import NodeFlights
from imgserve.aio.mailbox import Sender
from imgserve.aio.periodic import Periodic
from imgserve.interfaces import CachedFile
from imgserve.services.invalidation import Invalidations


def of_log_rows(to: Tallies, recorder: Recorder, dropped_replays: Callable[[], int], keys: KeyRing) -> None:
    """A front's rows of the access log, on their way to the keeper."""
    to.counter("imgserve_log_rows", "Access log rows handed to the keeper.", lambda: recorder.rows_handed_over)
    to.counter(
        "imgserve_log_rows_dropped",
        "Access log rows that could not be kept.",
        lambda: recorder.rows_dropped + dropped_replays(),
    )
    to.counter("imgserve_log_keys_unusable", "Day keys that could not be read.", lambda: keys.keys_unusable)


def of_mailbox(to: Tallies, sender: Sender) -> None:
    """A front's packets for the keeper."""
    to.counter("imgserve_mailbox_packets", "Packets sent to the keeper.", lambda: sender.sent)
    to.counter("imgserve_mailbox_full", "How often the way to the keeper was full.", lambda: sender.dropped)


def of_rendering(to: Tallies, pool: WorkerPool) -> None:
    """A front's jobs for the workers."""
    to.counter("imgserve_render_jobs", "Jobs handed to workers.", lambda: pool.submitted)
    to.counter("imgserve_render_refused", "Jobs refused because the queue was full.", lambda: pool.refused)
    to.counter("imgserve_render_died", "Jobs whose worker died.", lambda: pool.died)
    to.counter("imgserve_render_timed_out", "Jobs that took too long.", lambda: pool.timed_out)
    to.gauge("imgserve_render_in_flight", "Jobs that wait or are being rendered.", lambda: pool.in_flight)


def of_flights(to: Tallies, flights: NodeFlights[CachedFile]) -> None:
    """A front's misses: who makes what once for all."""
    to.counter("imgserve_flights", "Originals and variants whose making was begun.", lambda: flights.led)
    to.counter("imgserve_flights_joined", "Requests that waited for another one's.", lambda: flights.joined)
    to.counter("imgserve_flights_found", "Flights that found it there, made elsewhere.", lambda: flights.found)
    to.counter("imgserve_flights_refused", "Misses refused because too many were under way.", lambda: flights.refused)


def of_origins(to: Tallies, http: HttpOrigin, local: LocalFolder) -> None:
    """A front's fetches of originals."""
    to.counter("imgserve_origin_fetches", "Fetches begun.", lambda: http.fetches + local.fetches)
    to.counter("imgserve_origin_failures", "Fetches that brought no original.", lambda: http.failures + local.failures)
    to.counter("imgserve_origin_fetched_bytes", "Bytes of originals.", lambda: http.fetched_bytes + local.fetched_bytes)
    to.counter(
        "imgserve_origin_queue_refused",
        "Fetches refused because a queue was full.",
        lambda: http.limit.refused + http.per_host.refused + local.limit.refused,
    )
    to.counter("imgserve_origin_guard_refused", "Connections to addresses that are not public.", lambda: http.refused)


def of_cache(to: Tallies, cache: DiskCache, journal: Journal) -> None:
    """A front's cached files."""
    to.counter("imgserve_cache_opened", "Files opened for an answer.", lambda: cache.opened)
    to.counter("imgserve_cache_outlived", "Files that had expired when they were asked for.", lambda: cache.expired)
    to.counter("imgserve_cache_verified", "Files whose checksum was read, once a boot.", lambda: cache.verified)
    to.counter("imgserve_cache_published", "Files published.", lambda: cache.published)
    to.counter(
        "imgserve_cache_superseded", "Files born dead: invalidated while they were made.", lambda: cache.superseded
    )
    to.counter(
        "imgserve_cache_without_room", "Files kept in memory because the disk is full.", lambda: cache.without_room
    )
    to.counter("imgserve_cache_failed_reads", "Files that could not be opened or read.", lambda: cache.failed_reads)
    _torn(to, lambda: cache.torn)
    to.counter("imgserve_cache_notices", "Notices sent to the index.", lambda: journal.sent)
    to.counter(
        "imgserve_cache_notices_dropped", "Notices to the index for which there was no room.", lambda: journal.dropped
    )


def of_invalidations(to: Tallies, invalidations: Invalidations) -> None:
    """Invalidations of a front, and what the keeper finishes."""
    to.counter("imgserve_invalidations", "Invalidations accepted.", lambda: invalidations.accepted)
    to.counter(
        "imgserve_invalidations_unfinished",
        "Steps of invalidations that failed after they were in force; they are done again.",
        lambda: invalidations.unfinished,
    )


def of_invalidation_log(to: Tallies, log: SqliteInvalidationLog) -> None:
    """A front's looks into the log, for files whose stamp is below their slot."""
    to.counter("imgserve_invalidation_lookups", "Looks whether a file was named.", lambda: log.lookups)
    to.counter(
        "imgserve_invalidation_lookups_failed",
        "Looks into a log that could not be read: the file is made anew.",
        lambda: log.lookups_failed,
    )


def of_upkeep(to: Tallies, evictor: Evictor) -> None:
    """The keeper's index of cached files, and what it took away."""
    to.gauge("imgserve_cache_bytes", "Bytes of all cached files.", lambda: evictor.cache_bytes)
    to.gauge("imgserve_cache_files", "Cached files.", lambda: evictor.cache_files)
    to.counter("imgserve_cache_evicted", "Files removed to make room.", lambda: evictor.evicted_files)
    to.counter("imgserve_cache_evicted_bytes", "Bytes removed to make room.", lambda: evictor.evicted_bytes)
    to.counter("imgserve_cache_expired", "Files removed because of their age.", lambda: evictor.expired_files)
    to.counter("imgserve_cache_expired_bytes", "Bytes removed because of their age.", lambda: evictor.expired_bytes)
    to.counter("imgserve_cache_found", "Files that the index did not know.", lambda: evictor.found_files)
    to.counter("imgserve_cache_orphans", "Leftovers of killed processes removed.", lambda: evictor.orphan_files)
    _torn(to, lambda: evictor.torn_files)
    to.counter("imgserve_cache_batches_lost", "Batches of notices not taken over.", lambda: evictor.lost_batches)
    to.counter("imgserve_cache_index_rebuilds", "Times the index was made anew.", lambda: evictor.index_rebuilds)


def of_day_files(to: Tallies, day_files: DayFiles, retention: Retention) -> None:
    """The keeper's files of the access log."""
    to.counter("imgserve_log_rows_written", "Access log rows written.", lambda: day_files.rows_written)
    to.counter(
        "imgserve_log_rows_lost",
        "Access log rows that could not be written.",
        lambda: day_files.rows_failed + day_files.rows_refused + day_files.rows_expired,
    )
    to.counter("imgserve_log_batches_refused", "Batches that could not be read.", lambda: day_files.batches_refused)
    to.counter("imgserve_log_batches_repeated", "Batches that came twice.", lambda: day_files.batches_repeated)
    to.counter("imgserve_log_days_removed", "Day files removed after their term.", lambda: retention.days_removed)
    to.counter("imgserve_log_keys_destroyed", "Day keys destroyed after their term.", lambda: retention.keys_destroyed)
    to.counter(
        "imgserve_log_removals_failed", "Day files and keys that could not be removed.", lambda: retention.failures
    )


def of_jobs(to: Tallies, periodic: Collection[Periodic], subjects: SubjectServer) -> None:
    """What the keeper does beside the packets."""
    to.counter("imgserve_jobs", "Runs of periodic jobs.", lambda: sum(job.runs for job in periodic))
    to.counter("imgserve_jobs_failed", "Runs that failed.", lambda: sum(job.failures for job in periodic))
    to.counter("imgserve_subject_requests_failed", "Requests of subjects cut off.", lambda: subjects.failures)


def _torn(to: Tallies, source: Callable[[], int]) -> None:
    to.counter("imgserve_cache_torn", "Files that were damaged, and removed.", source)
