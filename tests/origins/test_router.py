"""Claims about Origins: the scheme alone chooses the origin."""

import pytest

from imgserve.adapters.origins.router import Origins
from imgserve.core.errors import Denied
from imgserve.core.originals import Original
from imgserve.core.tenants import Tenant
from imgserve.interfaces import Fetched, Origin


class Sized:
    """An origin whose every original has one size."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes

    async def fetch(self, original: Original, tenant: Tenant, into_fd: int) -> Fetched:
        return Fetched(size_bytes=self._size_bytes)


async def test_the_scheme_chooses_the_origin() -> None:
    """Upper case or not; what nothing serves is Denied."""
    web, files = Sized(1), Sized(2)
    origins: Origin = Origins({"http": web, "https": web, "file": files})
    tenant = Tenant(name="demo")
    sizes = [
        (await origins.fetch(Original(location=location), tenant, -1)).size_bytes
        for location in ("http://a.b/c", "https://a.b/c", "HTTPS://a.b/c", "file:///a")
    ]
    assert [1, 1, 1, 2] == sizes
    for location in ("ftp://a.b/c", "s3://bucket/a", "gopher:x", "", "a.jpg", "javascript:1"):
        with pytest.raises(Denied):
            await origins.fetch(Original(location=location), tenant, -1)
