"""force_download is of the answer: one file, two ways to show it."""

from typing import Any

import pytest

from imgserve.web import replies


def test_a_download_is_an_attachment_also_when_it_is_answered_again(node: Any, origin: Any) -> None:
    """The plain answer has no such header; both are made of one rendering."""
    target = f"/v7/{origin.base}/red.png?w=16"
    plain = node.get(target)
    first, second = node.get(target + "&force_download=1"), node.get(target + "&force_download=1")
    assert "content-disposition" not in plain.headers
    assert ['attachment; filename="red.png"'] * 2 == [one.headers["content-disposition"] for one in (first, second)]
    assert "imgserve; hit" == first.headers["cache-status"]
    assert plain.body == first.body == second.body


@pytest.mark.parametrize(
    ("location", "content_type", "expected"),
    [
        ("https://a.example/photos/Boat.large.jpg", "image/webp", "Boat-large.webp"),
        ("https://a.example/x/caf%C3%A9%20%22a%22.png?b=c.d", "image/jpeg", "caf-a.jpg"),
        ("https://a.example/no-ending", "image/avif", "image.avif"),
        ("https://a.example/%0d%0aSet-Cookie:x.png", "image/png", "Set-Cookie-x.png"),
        ("file:///srv/" + "a" * 300 + ".png", "image/png", "a" * 80 + ".png"),
    ],
)
def test_a_download_has_a_plain_name_and_its_own_ending(location: str, content_type: str, expected: str) -> None:
    """Nothing of the URL can break out of the header."""
    assert f'attachment; filename="{expected}"' == replies.attachment(location, content_type)
