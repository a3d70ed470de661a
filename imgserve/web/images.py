"""The image handler: from a raw request target to bytes, and what a shared cache may do with them."""

import asyncio
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Final, Protocol

from aiohttp import web

from imgserve.core import freshness, grammar, negotiation, plan
from imgserve.core.days import DAY_S
from imgserve.core.errors import Misdirected, TimedOut
from imgserve.core.events import Outcome
from imgserve.core.originals import ImageRef
from imgserve.core.tenants import Tenant, Tenants
from imgserve.interfaces import Clock
from imgserve.services.images import Answer, Images
from imgserve.web import recording, replies, targets
from imgserve.web.fast_path import REPLAY, Replay

_WHOLE_MAX_BYTES: Final = 1 << 20  # bodies up to this size are read and written in one piece
_PIECE_BYTES: Final = 1 << 18
_REPLAY_MAX_S: Final = 3_600  # then the slow path looks again, so that nothing lives on in memory alone


class SlotView(Protocol):
    """Where an image's slots lie in the words of the map."""

    def image_slot(self, image: ImageRef) -> int:
        """Index of the image's slot."""

    def tenant_slot(self, tenant: str) -> int:
        """Index of the tenant's slot."""


class TenantsView(Protocol):
    """The present snapshot of tenants; a reload swaps it."""

    def current(self) -> Tenants:
        """The snapshot to use for the request at hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where this node stands, and how long an image and a request may last."""

    region: str
    max_age_days: int
    request_timeout_s: float = 15.0


class ImageHandlers:
    """Answers ``GET`` and ``HEAD`` of images."""

    def __init__(
        self,
        *,
        images: Images,
        tenants: TenantsView,
        epoch: Callable[[], int],
        slots: SlotView,
        clock: Clock,
        settings: Settings,
    ) -> None:
        self._images = images
        self._tenants = tenants
        self._epoch = epoch
        self._slots = slots
        self._clock = clock
        self._region = settings.region
        self._max_age_s = settings.max_age_days * DAY_S
        self._request_timeout_s = settings.request_timeout_s

    async def get(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer with an image, a 304, or raise the failure that says why not."""
        epoch = (
            self._epoch()
        )  # before the tenants are looked at: a reload meanwhile makes the answer unfit to be remembered
        facts = recording.facts_of(request)
        facts.outcome = Outcome.ERROR
        host, target = targets.of(request)
        tenant = self._tenant(host)
        facts.tenant = tenant.name
        asked = grammar.parse(target, tenant)
        facts.image_id = self._images.image_ref(tenant, asked.original).id
        facts.operations = plan.operations_text(asked.plan)
        try:
            async with asyncio.timeout(self._request_timeout_s):
                answer = await self._images.get(asked, tenant, request.headers.get("Accept"))
        except TimeoutError as error:
            raise TimedOut("the whole request took too long") from error
        facts.outcome = answer.outcome
        with closing(answer.file):
            return await self._reply(request, answer, facts, epoch, asked)

    def _tenant(self, host: str) -> Tenant:
        tenant = self._tenants.current().for_host(host)
        if tenant is None:
            raise Misdirected("no tenant has this host")
        if not tenant.may_be_served_in(self._region):
            raise Misdirected(
                "the tenant's regions exclude this node", public="This host is not served in this region."
            )
        return tenant

    async def _reply(
        self,
        request: web.BaseRequest,
        answer: Answer,
        facts: recording.Facts,
        epoch: int,
        asked: grammar.ImageRequest,
    ) -> web.StreamResponse:
        meta = answer.file.meta
        headers = self._headers(answer)
        if asked.is_download:
            headers["Content-Disposition"] = replies.attachment(asked.original.location, meta.content_type)
        condition = request.headers.get("If-None-Match")
        if condition is not None and freshness.etag_matches(condition, meta.etag):
            facts.outcome = Outcome.REVALIDATED
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = meta.content_type
        if request.method == "HEAD":
            headers["Content-Length"] = str(meta.body_bytes)
            return web.Response(headers=headers)
        if meta.body_bytes <= _WHOLE_MAX_BYTES:
            body = os.pread(answer.file.fd, meta.body_bytes, 0)
            request[REPLAY] = self._replay(request, answer, facts, epoch, body)
            return web.Response(body=body, headers=headers)
        return await self._stream(request, answer, headers)

    def _replay(
        self, request: web.BaseRequest, answer: Answer, facts: recording.Facts, epoch: int, body: bytes
    ) -> Replay:
        """How the fast path may send this answer again."""
        life_left_s = self._life_left_s(answer)
        return Replay(
            body=body,
            expires_s=self._clock.monotonic_s() + min(freshness.replayable_s(life_left_s), _REPLAY_MAX_S),
            stamp=answer.file.meta.stamp,
            image_slot=self._slots.image_slot(answer.image),
            tenant_slot=self._slots.tenant_slot(answer.image.tenant),
            accept_class=negotiation.profile(request.headers.get("Accept")) if answer.varies else None,
            epoch=epoch,
            template=recording.Hit(image=answer.image, name=answer.name, method="GET", operations=facts.operations),
            headers={"Cache-Status": freshness.cache_status(Outcome.HIT)},
        )

    def _life_left_s(self, answer: Answer) -> int:
        return answer.file.meta.created_s + self._max_age_s - int(self._clock.now_s())

    def _headers(self, answer: Answer) -> dict[str, str]:
        meta = answer.file.meta
        headers = {
            **replies.IMAGE_HEADERS,
            "Cache-Control": freshness.cache_control(self._life_left_s(answer)),
            "Cache-Status": freshness.cache_status(answer.outcome),
            "ETag": f'"{meta.etag}"',
            "Surrogate-Key": answer.image.id,
            "Server": "imgserve",
        }
        if answer.varies:
            headers["Vary"] = "Accept"
        return headers

    async def _stream(self, request: web.BaseRequest, answer: Answer, headers: dict[str, str]) -> web.StreamResponse:
        """Send a large body piece by piece, no faster than the client reads it."""
        response = web.StreamResponse(headers={**headers, "Content-Length": str(answer.file.meta.body_bytes)})
        await response.prepare(request)
        sent_bytes = 0
        while sent_bytes < answer.file.meta.body_bytes:
            try:
                piece = os.pread(
                    answer.file.fd, min(_PIECE_BYTES, answer.file.meta.body_bytes - sent_bytes), sent_bytes
                )
            except OSError as error:
                raise ConnectionResetError("a cached file cannot be read") from error
            if not piece:
                raise ConnectionResetError("a cached file ended early")
            sent_bytes += len(piece)
            await response.write(piece)
        await response.write_eof()
        return response
