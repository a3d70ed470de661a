"""Where cached files lie and what they may be called: no text from outside becomes a path unchecked."""

import re
from typing import Final

from imgserve.core import tenants
from imgserve.core.originals import ImageId, ImageRef

IMAGE: Final = re.compile(r"[a-z2-7]{16}", re.ASCII)
FILE: Final = re.compile(r"o-(?:main|[a-z2-7]{16})|v-[a-z2-7]{26}\.[a-z]{2,8}", re.ASCII)


def tenants_folder(data_dir: str) -> str:
    """The folder of all tenants."""
    return f"{data_dir}/tenants"


def images_folder(data_dir: str, tenant: str) -> str:
    """The folder of a tenant's images. Raises ValueError for what is no tenant's name."""
    if not tenants.is_name(tenant):
        raise ValueError("not a tenant's name")
    return f"{data_dir}/tenants/{tenant}/images"


def image_folder(data_dir: str, image: ImageRef) -> str:
    """The folder of an image. Raises ValueError for what is no id."""
    if IMAGE.fullmatch(image.id) is None:
        raise ValueError("not an image id")
    return f"{images_folder(data_dir, image.tenant)}/{image.id[:2]}/{image.id}"


def check_file(name: str) -> str:
    """The name, if a cached file may bear it. Raises ValueError."""
    if FILE.fullmatch(name) is None:
        raise ValueError("not a name of a cached file")
    return name


def reference(tenant: str, image: str) -> ImageRef:
    """An image by texts from a message or a row. Raises ValueError."""
    if not tenants.is_name(tenant) or IMAGE.fullmatch(image) is None:
        raise ValueError("not an image of a tenant")
    return ImageRef(tenant=tenant, id=ImageId(image))
