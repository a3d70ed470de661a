"""Which kind of origin serves which scheme."""

from collections.abc import Mapping

from imgserve.core.errors import Denied
from imgserve.core.originals import Original
from imgserve.core.tenants import Tenant
from imgserve.interfaces import Fetched, Origin


class Origins:
    """All origins as one, chosen by the scheme of the location."""

    def __init__(self, by_scheme: Mapping[str, Origin]) -> None:
        self._by_scheme = dict(by_scheme)

    async def fetch(self, original: Original, tenant: Tenant, into_fd: int) -> Fetched:
        """See ``interfaces.Origin``. Raises Denied for a scheme that nothing serves."""
        origin = self._by_scheme.get(original.location.partition(":")[0].lower())
        if origin is None:
            raise Denied("no origin serves this scheme", public="Only http and https URLs, and aliases, are fetched.")
        return await origin.fetch(original, tenant, into_fd)
