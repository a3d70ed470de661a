"""Invalidations: accepted durably, in force on the node before the answer, finished even after a crash.

The order is what makes it exact: durable rows, slots raised, files unlinked, rows completed. From the raise on no
process of the node takes an old file or a remembered answer for good; unlinking only frees the room.
"""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol
from uuid import uuid4

from imgserve.core import grammar, invalidation, keys
from imgserve.core.errors import BadKey, BadRequest, ImgserveError, NotFound
from imgserve.core.invalidation import Entry, Progress, Result, Rule, State
from imgserve.core.originals import ImageRef
from imgserve.core.tenants import Key, Scope, Tenant
from imgserve.interfaces import Clock, ImageCache, Removed

log = logging.getLogger(__name__)

_RESUME_AFTER_S: Final = 30.0  # younger ones are under way in the front that accepted them


class Log(Protocol):
    """The durable record, as this use case writes it."""

    async def append(self, entry: Entry) -> None:
        """Make a request durable."""

    async def complete(self, tenant: str, uuid: str, results: Iterable[Result]) -> None:
        """Note what became of rules."""

    async def progress(self, tenant: str, uuid: str) -> Progress | None:
        """How far a request has come."""

    async def unfinished(self, until_us: int) -> tuple[Entry, ...]:
        """Requests up to that time that are not done."""


class SlotMap(Protocol):
    """The map of slots, as this use case raises it. Both methods block the thread for a moment."""

    def raise_image(self, image: ImageRef, sequence: int) -> int:
        """Make every stamp of the image given so far look again; the slot's new value."""

    def raise_tenant(self, tenant: str, sequence: int) -> int:
        """The same for all images of the tenant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalNode:
    """What of this node an invalidation touches, under the name that progress reports give it."""

    name: str
    slots: SlotMap
    cache: ImageCache


class Invalidations:
    """Accepts, applies and reports invalidations of one node."""

    def __init__(self, *, log: Log, node: LocalNode, hasher: keys.Hasher, clock: Clock) -> None:
        self._log = log
        self._node = node
        self._hasher = hasher
        self._clock = clock
        self.accepted = 0
        self.unfinished = 0

    async def invalidate(self, tenant: Tenant, key: Key, body: object) -> dict[str, object]:
        """Accept a decoded body and return its receipt: from here on this node serves nothing old.

        Raises BadRequest; BadKey if the key lacks the scope; NoSpace or Overloaded if nothing could be made durable.
        """
        request = invalidation.parse(body)
        _check_scope(key, request.scope)
        entry = Entry(
            tenant=tenant.name,
            uuid=str(uuid4()),
            at_us=int(self._clock.now_s() * 1_000_000),
            scope=request.scope,
            rules=self._rules(request, tenant),
        )
        await self._log.append(entry)
        self.accepted += 1
        await self._apply(entry)
        return invalidation.receipt(entry)

    async def progress(self, tenant: Tenant, uuid: str) -> dict[str, object]:
        """What has been done of one of the tenant's invalidations. Raises NotFound for another's or none."""
        found = await self._log.progress(tenant.name, uuid)
        if found is None:
            raise NotFound("no such invalidation", public="There is no such invalidation.")
        return invalidation.report(found, self._node.name)

    async def resume(self, min_age_s: float = _RESUME_AFTER_S) -> int:
        """Apply again what a crash or a full disk left unfinished; how many requests. May run beside itself.

        With ``min_age_s`` 0 at a node's start, when nobody else has any under way.
        """
        until_us = int((self._clock.now_s() - min_age_s) * 1_000_000)
        entries = await self._log.unfinished(until_us)
        for entry in entries:
            await self._apply(entry)
        return len(entries)

    def _rules(self, request: invalidation.Request, tenant: Tenant) -> tuple[Rule, ...]:
        if request.scope is invalidation.Scope.ALL:
            return (Rule(),)
        rules: dict[Rule, None] = {}
        for position, url in enumerate(request.urls):
            found = [self._rule(request.scope, image, tenant) for image in _readings(url, tenant, position)]
            rules.update(dict.fromkeys(found))
        return tuple(rules)

    def _rule(self, scope: invalidation.Scope, image: grammar.ImageRequest, tenant: Tenant) -> Rule:
        image_id = keys.image_id(self._hasher, tenant.name, image.original.location)
        if scope is invalidation.Scope.ORIGINAL:
            return Rule(image_id=image_id)
        return Rule(image_id=image_id, plan_key=keys.plan_key(self._hasher, image.plan, image.busters))

    async def _apply(self, entry: Entry) -> None:
        """Put durable rules in force, then remove files. What fails after the raise is left to ``resume``."""
        sequences = await asyncio.to_thread(self._raise, entry)
        results = [await self._remove(entry.tenant, rule, sequences[rule]) for rule in entry.rules]
        try:
            await self._log.complete(entry.tenant, entry.uuid, results)
        except ImgserveError as error:
            self.unfinished += 1
            log.warning("invalidation_not_completed", extra={"uuid": entry.uuid, "reason": str(error)})

    def _raise(self, entry: Entry) -> dict[Rule, int]:
        return {
            rule: self._node.slots.raise_tenant(entry.tenant, 0)
            if rule.image_id is None
            else self._node.slots.raise_image(ImageRef(tenant=entry.tenant, id=rule.image_id), 0)
            for rule in entry.rules
        }

    async def _remove(self, tenant: str, rule: Rule, sequence: int) -> Result:
        try:
            removed = await self._unlink(tenant, rule)
        except (OSError, ImgserveError) as error:
            self.unfinished += 1
            log.warning("invalidated_files_not_removed", extra={"tenant": tenant, "reason": type(error).__name__})
            return Result(rule=rule, sequence=sequence, state=State.FAILED)
        return Result(
            rule=rule,
            sequence=sequence,
            state=State.DONE,
            removed_files=removed.files,
            removed_bytes=removed.size_bytes,
        )

    async def _unlink(self, tenant: str, rule: Rule) -> Removed:
        if rule.image_id is None:
            return await self._node.cache.remove_all(tenant)
        plan_keys = None if rule.plan_key is None else frozenset({str(rule.plan_key)})
        return await self._node.cache.remove(ImageRef(tenant=tenant, id=rule.image_id), plan_keys)


def _check_scope(key: Key, scope: invalidation.Scope) -> None:
    needed = Scope.INVALIDATE_ALL if scope is invalidation.Scope.ALL else Scope.INVALIDATE
    if needed not in key.scopes:
        raise BadKey(f"the key {key.name} lacks the scope {needed}", public=f"This key lacks the scope '{needed}'.")


def _readings(url: str, tenant: Tenant, position: int) -> list[grammar.ImageRequest]:
    """Every way in which the spelling names an image. Raises BadRequest, naming the entry, when there is none."""
    readings = []
    failure = ""
    for target in invalidation.targets(url, tenant):
        try:
            readings.append(grammar.parse(target, tenant, must_be_signed=False))
        except BadRequest as error:
            failure = failure or error.public
    if not readings:
        raise BadRequest(f"urls[{position}]: {failure}")
    return readings
