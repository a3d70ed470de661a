"""Reading the cache's folders: what is there, and what should not be."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from imgserve.adapters.cache import names, rules, trailer
from imgserve.adapters.cache.index import Entry
from imgserve.core import tenants
from imgserve.core.originals import ImageRef
from imgserve.disk.files import Disk

log = logging.getLogger(__name__)

LEFTOVER_AGE_S: Final = 900
"""A dot-name of this age was left by a writer that was killed: a live one needs it for less than a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """An image's folder: cached files, and names that no cached file bears."""

    image: ImageRef
    path: str
    files: frozenset[str]
    strangers: tuple[str, ...]


def folders(disk: Disk, data_dir: str) -> Iterator[Folder]:
    """All images of all tenants. What is no image's folder is left alone."""
    for tenant in disk.names(names.tenants_folder(data_dir)):
        if not tenants.is_name(tenant):
            continue
        top = names.images_folder(data_dir, tenant)
        for prefix in disk.names(top):
            for image in disk.names(f"{top}/{prefix}"):
                if names.IMAGE.fullmatch(image) is not None and image.startswith(prefix):
                    yield read(disk, data_dir, names.reference(tenant, image))


def read(disk: Disk, data_dir: str, image: ImageRef) -> Folder:
    """One image's folder; empty when it is not there."""
    path = names.image_folder(data_dir, image)
    present = disk.names(path)
    files = frozenset(name for name in present if names.FILE.fullmatch(name) is not None)
    return Folder(image=image, path=path, files=files, strangers=tuple(sorted(set(present) - files)))


def leftovers(disk: Disk, data_dir: str, before_s: float) -> Iterator[str]:
    """Folders that were set aside to be removed, by someone who was killed before it was done."""
    for tenant in disk.names(names.tenants_folder(data_dir)):
        path = f"{names.tenants_folder(data_dir)}/{tenant}"
        for name in disk.names(path):
            modified_s = disk.modified_s(f"{path}/{name}") if name.startswith(".") else None
            if modified_s is not None and modified_s < before_s:
                yield f"{path}/{name}"


def entry(disk: Disk, folder: Folder, name: str) -> Entry | None:
    """What a file's trailer says; None when it is gone meanwhile. Raises Torn, OSError.

    The last use is not in the trailer: the last writing stands for it. The body is not read here: it is checked when
    the file is opened for the first time in a boot.
    """
    path = f"{folder.path}/{name}"
    try:
        fd = disk.open_read(path)
    except FileNotFoundError:
        return None
    try:
        file_bytes = disk.size_bytes(fd)
        found = trailer.read(disk, fd)
    finally:
        disk.close(fd)
    return Entry(
        image=folder.image,
        name=name,
        size_bytes=rules.occupied_bytes(file_bytes),
        created_s=found.meta.created_s,
        used_s=int(disk.modified_s(path) or found.meta.created_s),
    )
