"""Every failure the server can report, as one tree.

Each error has two texts: ``str(error)`` is for the operator, ``error.public`` is for the caller
and never holds an internal path, an address or a full URL. HTTP statuses are chosen in ``web``.
"""

from typing import Final


class ImgserveError(Exception):
    """Never raised itself: the root of all errors of this package."""

    default_public: str = "The request cannot be served."

    def __init__(self, message: str, *, public: str | None = None) -> None:
        super().__init__(message)
        self.public: Final = public if public is not None else self.default_public


class Misconfigured(ImgserveError):
    """A setting is missing, impossible or contradicts another; says key, value and fix."""

    default_public = "The server is misconfigured."

    def __init__(self, key: str, value: object, fix: str) -> None:
        super().__init__(f"{key} = {value!r}: {fix}")
        self.key: Final = key
        self.fix: Final = fix


class BadRequest(ImgserveError):
    """The URL or the body asks for something that cannot be meant; the public text says what to change."""

    def __init__(self, public: str) -> None:
        super().__init__(public, public=public)


class BadKey(ImgserveError):
    """The request's key is missing, unknown, or lacks the scope."""

    default_public = "Send a valid key in the X-Client-Key header."


class Denied(ImgserveError):
    """The origin or the signature is refused by the tenant's policy or by the network guard."""

    default_public = "This origin is not allowed."


class NotFound(ImgserveError):
    """The origin says that there is no such original."""

    default_public = "The origin has no such image."


class Gone(ImgserveError):
    """The image was erased and may not come back."""

    default_public = "This image has been removed."


class Misdirected(ImgserveError):
    """The Host belongs to no tenant, or its tenant may not be served in this region."""

    default_public = "This host is not served here."


class Undecodable(ImgserveError):
    """The original is not an image that this installation reads, or it is damaged."""

    default_public = "The original cannot be decoded as an image."


class OverLimit(ImgserveError):
    """The original exceeds a limit; the public text names the limit."""

    default_public = "The original is over a limit of this server."


class OriginFailed(ImgserveError):
    """The origin could not be reached, answered with an error, or sent less than it promised."""

    default_public = "The origin did not deliver the image."


class RenderFailed(ImgserveError):
    """A worker died or ran out of memory under this request; nothing is remembered about the original."""

    default_public = "The image could not be rendered; try again."


class TimedOut(ImgserveError):
    """The origin, the queue or the rendering took longer than its limit."""

    default_public = "The image took too long."


class Overloaded(ImgserveError):
    """A bounded queue is full; trying again later may succeed."""

    default_public = "The server is busy; try again."

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s: Final = retry_after_s


class Superseded(ImgserveError):
    """What was about to be published had been invalidated meanwhile: born dead."""

    default_public = "The image changed while it was rendered; try again."


class NoSpace(ImgserveError):
    """The disk is full; serving goes on from memory."""

    default_public = "The server has no room to store the image."
