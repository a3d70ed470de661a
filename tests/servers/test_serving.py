"""A real node answers real requests as the contract says."""

import json
from typing import Any

import pytest

AVIF_WEBP = "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8"


def test_a_url_becomes_an_image_with_its_headers(node: Any, origin: Any) -> None:
    """An original by raw URL is resized, and every promised header is on the answer."""
    reply = node.get(f"/v7/{origin.base}/red.png?w=32")

    assert (200, "image/png") == (reply.status, reply.headers["content-type"])
    assert (32, 24) == size_of(reply.body)
    assert "Accept" == reply.headers["vary"]
    assert reply.headers["etag"].startswith('"')
    assert reply.headers["cache-status"].startswith("imgserve; fwd=")
    assert "max-age=3600" in reply.headers["cache-control"]
    assert "default-src 'none'; sandbox" == reply.headers["content-security-policy"]
    assert "nosniff" == reply.headers["x-content-type-options"]
    assert "*" == reply.headers["access-control-allow-origin"]
    assert "cross-origin" == reply.headers["cross-origin-resource-policy"]
    assert 16 == len(reply.headers["surrogate-key"])


@pytest.mark.parametrize(
    "spelling", ["/v7/{base}/red.png", "/{base}/red.png", "/v7/{merged}/red.png", "/127.0.0.1:{port}/red.png"]
)
def test_all_spellings_of_an_original_are_one_image(node: Any, origin: Any, spelling: str) -> None:
    """With and without version, scheme and second slash: one origin fetch, one image."""
    first = node.get(f"/v7/{origin.base}/red.png?w=10")
    target = spelling.format(base=origin.base, merged=origin.base.replace("//", "/"), port=origin.port)
    reply = node.get(target + "?w=10")

    assert first.headers["surrogate-key"] == reply.headers["surrogate-key"]
    assert "imgserve; hit" == reply.headers["cache-status"]
    assert {"/red.png": 1} == dict(origin.fetches)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (AVIF_WEBP, "image/avif"),
        ("image/webp,*/*", "image/webp"),
        ("*/*", "image/png"),
        ("image/avif;q=0,image/webp;q=0.5,*/*;q=0.1", "image/webp"),
        ("image/avif;q=0.2,image/webp;q=0.9", "image/webp"),
    ],
)
def test_the_format_follows_accept_and_its_q_values(node: Any, origin: Any, accept: str, content_type: str) -> None:
    """What the client prefers is what it gets, and shared caches are told so."""
    reply = node.get(f"/{origin.base}/red.png?w=20", Accept=accept)

    assert (200, content_type, "Accept") == (reply.status, reply.headers["content-type"], reply.headers["vary"])


def test_a_forced_format_does_not_vary(node: Any, origin: Any) -> None:
    """force_format wins over Accept."""
    reply = node.get(f"/{origin.base}/red.png?force_format=jpeg", Accept=AVIF_WEBP)

    assert ("image/jpeg", None) == (reply.headers["content-type"], reply.headers.get("vary"))


def test_the_second_answer_is_a_hit_and_equal(node: Any, origin: Any) -> None:
    """Whichever front answers, the bytes and the tag are the same."""
    first = node.get(f"/{origin.base}/red.png?w=30")
    again = [node.get(f"/{origin.base}/red.png?w=30") for _ in range(10)]

    assert {(first.body, first.headers["etag"])} == {(reply.body, reply.headers["etag"]) for reply in again}
    assert {"imgserve; hit"} == {reply.headers["cache-status"] for reply in again}


def test_a_condition_that_holds_is_answered_with_304(node: Any, origin: Any) -> None:
    """If-None-Match with the strong tag, a list, a weak form and the star (RFC 9110 section 13.1.2)."""
    target = f"/{origin.base}/red.png?w=30"
    tag = node.get(target).headers["etag"]

    for condition in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        reply = node.get(target, If_None_Match=condition)
        assert (304, b"", tag) == (reply.status, reply.body, reply.headers["etag"])
    assert 200 == node.get(target, If_None_Match='"other"').status


def test_head_says_what_get_says(node: Any, origin: Any) -> None:
    """HEAD has the headers of GET and no body; for a known answer nothing is rendered or fetched."""
    target = f"/{origin.base}/red.png?w=30"
    got = node.get(target)
    renders = node.metric("imgserve_render_seconds_count")
    head = node.request("HEAD", target)

    assert (200, b"") == (head.status, head.body)
    for name in ("content-type", "content-length", "etag", "vary"):
        assert got.headers[name] == head.headers[name]
    assert renders == node.metric("imgserve_render_seconds_count")


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/nodot/a.jpg", 400),
        ("/{base}/red.png?w=abc", 400),
        ("/{base}/red.png?func=explode", 400),
        ("/{base}/missing.png", 404),
        ("/http://other.example.com/a.jpg", 403),
        ("/http://169.254.169.254/latest/meta-data", 403),
        ("/{base}/text.png", 422),
        ("/{base}/broken.png", 422),
        ("/{base}/error.png", 502),
        ("/", 404),
        ("/favicon.ico", 404),
        ("/.well-known/security.txt", 404),
        ("/-/nothing", 404),
    ],
)
def test_a_failure_is_one_clear_sentence(node: Any, origin: Any, target: str, status: int) -> None:
    """The right status, a sentence, a Request-Id, no trace, no path, no address; never cached."""
    origin.files["/text.png"] = b"this is no image"
    origin.files["/broken.png"] = origin.files["/red.png"][:-20]
    origin.statuses["/error.png"] = 500
    reply = node.get(target.format(base=origin.base))

    assert status == reply.status
    text = reply.body.decode()
    assert 1 == len(text.splitlines())
    assert text.rstrip().endswith(".")
    assert "no-store" == reply.headers["cache-control"]
    assert reply.headers["request-id"]
    assert "access-control-allow-origin" not in reply.headers
    for leak in ("Traceback", str(node.folder), "site-packages", "127.0.0.1", "Error"):
        assert leak not in text


def test_problem_details_for_who_asks_for_json(node: Any) -> None:
    """RFC 9457: type, title, status and detail."""
    reply = node.get("/nodot/a.jpg", Accept="application/json")

    problem = json.loads(reply.body)
    assert ("application/problem+json", 400) == (reply.headers["content-type"], problem["status"])
    assert {"type", "title", "status", "detail"} == set(problem)


def test_other_methods_are_refused_with_the_allowed_ones(node: Any, origin: Any) -> None:
    """405 and Allow."""
    reply = node.request("DELETE", f"/{origin.base}/red.png")

    assert (405, "GET, HEAD") == (reply.status, reply.headers["allow"])


def test_an_unknown_host_without_a_default_tenant_is_421(start_node: Any, origin: Any) -> None:
    """Hosts compare without case, port and final dot; others are misdirected."""
    tenants = "\n".join(
        f'[[tenants]]\nname = "t{n}"\nhosts = ["t{n}.example.com"]\nallowed_origins = ["127.0.0.1:{origin.port}"]'
        for n in range(2)
    )
    node = start_node(tenants=tenants)
    target = f"/{origin.base}/red.png?w=8"

    assert 421 == node.get(target, Host="unknown.example.com").status
    for host in ("t1.example.com", "T1.Example.COM", "t1.example.com:8080", "t1.example.com."):
        assert 200 == node.get(target, Host=host).status
    assert 2 == len({node.get(target, Host=f"t{n}.example.com").headers["surrogate-key"] for n in range(2)})


def test_no_visitor_header_reaches_the_origin(node: Any, origin: Any) -> None:
    """Cookies, credentials, referer, address and user agent of the visitor stay here."""
    node.get(
        f"/{origin.base}/red.png?w=9",
        Cookie="session=secret",
        Authorization="Basic c2VjcmV0",
        Referer="https://shop.example.com/secret",
        User_Agent="SecretBrowser/1",
        X_Forwarded_For="203.0.113.9",
        Accept_Language="fr-FR",
    )

    assert 1 == len(origin.seen_headers)
    sent = origin.seen_headers[0]
    assert {"host", "accept", "accept-encoding", "user-agent"} >= set(sent)
    assert "secret" not in str(sent).lower()
    assert sent["user-agent"].startswith("imgserve/")


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height from a PNG's header."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def test_accept_classes_are_not_confused_by_another_urls_list(start_node: Any, origin: Any) -> None:
    """A browser that got WebP from a list without AVIF still gets AVIF where it may, also from memory."""
    node = start_node(fronts=1)
    accept = "image/avif,image/webp,*/*"
    listed, free = (f"/{origin.base}/red.png?w=20{end}" for end in ("&force_format=webp,jpg", ""))

    for _ in range(3):
        assert "image/webp" == node.get(listed, Accept=accept).headers["content-type"]
        assert "image/avif" == node.get(free, Accept=accept).headers["content-type"]
        assert "image/webp" == node.get(free, Accept="image/webp,*/*;q=0.5").headers["content-type"]
    assert "image/png" == node.get(free, Accept="image/png").headers["content-type"]


def test_a_key_of_any_bytes_is_refused_and_no_fault(node: Any) -> None:
    """401, not 500, for what is no text at all."""
    for method, target in (("POST", "/invalidate"), ("GET", "/-/invalidations/x")):
        assert 401 == node.request(method, target, headers={"X-Client-Key": "\xff\xfe"}).status


def test_an_absolute_target_brings_its_own_authority(start_node: Any, origin: Any) -> None:
    """RFC 9112 section 3.2.2: accepted, and Host overruled."""
    tenants = "\n".join(
        f'[[tenants]]\nname = "t{n}"\nhosts = ["t{n}.example"]\nallowed_origins = ["127.0.0.1:{origin.port}"]'
        for n in range(2)
    )
    node = start_node(tenants=tenants)
    plain = node.get(f"/{origin.base}/red.png?w=10", Host="t1.example")
    absolute = node.get(f"http://t1.example/{origin.base}/red.png?w=10", Host="t0.example")

    assert (200, plain.headers["surrogate-key"]) == (absolute.status, absolute.headers["surrogate-key"])
    assert 200 == node.get("http://t1.example/-/live", Host="t0.example").status


@pytest.mark.parametrize(
    "packet",
    [
        b"GET /<script>alert(1)</script>\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000 + b"\r\n\r\n",
        b"\x00\x01\x02 nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
    ],
)
def test_what_is_no_request_gets_our_words_and_none_of_its_own(node: Any, packet: bytes) -> None:
    """One sentence, no version of any software, nothing repeated, and the connection ends."""
    import socket

    with socket.create_connection(("127.0.0.1", node.port)) as connection:
        connection.sendall(packet)
        connection.settimeout(10)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece

    assert b" 400 " in answer.splitlines()[0]
    assert b"Server: imgserve\r\n" in answer
    assert b"Cache-Control: no-store" in answer
    assert b"Request-Id: " in answer
    for leak in (b"script", b"aiohttp", b"Python", b"nonsense", b"aaaa"):
        assert leak not in answer
    assert "library_message" not in node.log
