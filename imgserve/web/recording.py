"""What each request was: kept beside it until its answer has ended, then one event for the log and one count."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Protocol

from aiohttp import web

from imgserve.core.addresses import UNKNOWN, HeaderKind, TrustedProxies, canonical16, visitor
from imgserve.core.events import AccessEvent, LogEntry, Outcome
from imgserve.core.originals import ImageRef
from imgserve.interfaces import AccessLog, CacheJournal
from imgserve.web.fast_path import UNIX_PEER, ResponseEnds, peer_of


@dataclass(slots=True)
class Facts:
    """What a handler learnt about its request. ``tenant`` stays empty where none may have a row."""

    tenant: str = ""
    image_id: str = ""
    operations: str = ""
    outcome: Outcome = Outcome.BYPASS
    peer: str = ""


_FACTS = web.RequestKey("facts", Facts)


def facts_of(request: web.BaseRequest) -> Facts:
    """The request's facts, made at the first call."""
    facts = request.get(_FACTS)
    if facts is None:
        facts = request[_FACTS] = Facts(peer=peer_of(request.transport))
    return facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """What the events of a replayed answer are made from."""

    image: ImageRef
    name: str
    method: str
    operations: str


class RequestCounter(Protocol):
    """Counts requests for the metrics."""

    def observe(self, outcome: Outcome, status: int, duration_us: int, sent_bytes: int) -> None:
        """Count one answered request."""


class RequestLog:
    """Turns answered requests into events and counts, whichever path answered them."""

    def __init__(
        self,
        *,
        sink: AccessLog,
        counter: RequestCounter,
        journal: CacheJournal,
        forwarded_header: HeaderKind,
        trusted: TrustedProxies,
    ) -> None:
        self._sink = sink
        self._counter = counter
        self._journal = journal
        self._forwarded_header = forwarded_header
        self._trusted = trusted

    def answered(self, request: web.BaseRequest, response: web.StreamResponse, duration_s: float) -> None:
        """A response by a handler, or by aiohttp's parser, has ended."""
        facts = facts_of(request)
        duration_us = int(duration_s * 1e6)
        sent_bytes = response.body_length
        self._counter.observe(facts.outcome, response.status, duration_us, sent_bytes)
        if not facts.tenant:
            return
        forwarded = ",".join(request.headers.getall(self._forwarded_header, ()))
        self._sink.record(
            AccessEvent(
                at_s=int(time.time()),
                tenant=facts.tenant,
                visitor=self._visitor(facts.peer, forwarded),
                method=request.method,
                image_id=facts.image_id,
                operations=facts.operations,
                status=response.status,
                sent_bytes=sent_bytes,
                outcome=facts.outcome,
                duration_us=duration_us,
            )
        )

    def replayed(self, events: Iterable[tuple[int, object, object, bytes | None, int, int, int]]) -> None:
        """Answers of the fast path have ended."""
        used = set()
        entries: list[LogEntry] = []
        visitors: dict[tuple[str, bytes | None], bytes] = {}
        hit = Outcome.HIT.value
        for at_s, template, peer, forwarded, duration_us, status, sent_bytes in events:
            assert isinstance(template, Hit)
            assert isinstance(peer, str)
            self._counter.observe(Outcome.HIT, status, duration_us, sent_bytes)
            used.add((template.image, template.name))
            packed = visitors.get((peer, forwarded))
            if packed is None:
                address = self._visitor(peer, (forwarded or b"").decode("latin-1"))
                packed = visitors[peer, forwarded] = canonical16(address)
            image = template.image
            method, image_id, operations = template.method, image.id, template.operations
            whole = (at_s, image.tenant, packed, method, image_id, operations, status, sent_bytes, hit, duration_us)
            entries.append(whole)
        self._sink.extend(entries)
        for image, name in used:
            self._journal.used(image, name)

    def _visitor(self, peer: str, forwarded: str) -> IPv4Address | IPv6Address:
        if peer == UNIX_PEER:
            return visitor(None, self._forwarded_header, forwarded, self._trusted)
        address = ip_address(peer.partition("%")[0]) if peer else UNKNOWN  # and so is trusted by nobody
        return visitor(address, self._forwarded_header, forwarded, self._trusted)


def access_log_class(
    answered: Callable[[web.BaseRequest, web.StreamResponse, float], None],
) -> type[ResponseEnds]:
    """What aiohttp calls when a response has ended: it tells the fast path, then ``answered``."""

    class RequestEnds(ResponseEnds):
        """The end of a request."""

        def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
            super().log(request, response, time)
            answered(request, response, time)

    return RequestEnds
