"""What is recognised as one plain request, and what is not."""

from types import ModuleType

import pytest
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser, RawRequestMessage
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imgserve.fast import _head, _head_py

BROWSER = (
    b"GET /v7/images.example.com/cat.jpg?w=400&func=crop HTTP/1.1\r\n"
    b"Host: Demo.localhost:8080\r\n"
    b"Connection: keep-alive\r\n"
    b'sec-ch-ua: "Chromium";v="130", "Not?A_Brand";v="99"\r\n'
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\n"
    b"ACCEPT:\t image/avif,image/webp,*/*;q=0.8 \t\r\n"
    b"Cookie: session=caf\xc3\xa9; theme=dark\r\n"
    b"X-Forwarded-For: 203.0.113.7, 198.51.100.1\r\n"
    b"\r\n"
)

HOST = b"Host: a.example"


def request(*lines: bytes, first: bytes = b"GET /a.jpg HTTP/1.1", end: bytes = b"\r\n\r\n") -> bytes:
    return b"\r\n".join((first, *lines)) + end


def fields(found: object) -> tuple[object, ...] | None:
    if found is None:
        return None
    assert isinstance(found, _head.Head | _head_py.Head)
    return found.key, found.accept, found.forwarded, found.is_replayable


def test_a_browsers_request(head: ModuleType) -> None:
    """Key, Accept and forwarded header are the exact bytes; cookies and other headers do not count."""
    expected = (
        b"GDemo.localhost:8080/v7/images.example.com/cat.jpg?w=400&func=crop",
        b"image/avif,image/webp,*/*;q=0.8",
        b"203.0.113.7, 198.51.100.1",
        True,
    )
    assert expected == fields(head.scan(BROWSER, b"x-forwarded-for"))
    assert (*expected[:2], None, True) == fields(head.scan(BROWSER))
    assert (*expected[:2], None, True) == fields(head.scan(BROWSER, b"forwarded"))


def test_head_and_get_have_different_keys(head: ModuleType) -> None:
    """A HEAD is never answered with a GET's body."""
    assert b"Ha.example/a.jpg" == head.scan(request(HOST, first=b"HEAD /a.jpg HTTP/1.1")).key
    assert b"Ga.example/a.jpg" == head.scan(request(HOST)).key


def test_no_accept_is_an_empty_one(head: ModuleType) -> None:
    """Without Accept the value is empty; an Accept that is empty is left to aiohttp."""
    assert (b"Ga.example/a.jpg", b"", None, True) == fields(head.scan(request(HOST)))
    assert (b"Ga.example/a.jpg", b"", None, False) == fields(head.scan(request(HOST, b"Accept:")))


@pytest.mark.parametrize(
    "lines",
    [
        (b"Range: bytes=0-99",),
        (b"AUTHORIZATION: Basic eDp5",),
        (b"Proxy-Authorization: Basic eDp5",),
        (b"If-None-Match: *",),
        (b"If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT",),
        (b"If-Range: x",),
        (b"Accept: image/webp", b"Accept: image/avif"),
        (b"X-Forwarded-For: 192.0.2.1", b"X-Forwarded-For: 192.0.2.2"),
    ],
)
def test_what_is_one_request_but_not_replayed(head: ModuleType, lines: tuple[bytes, ...]) -> None:
    """These change the answer but not where the request ends: it is counted, and aiohttp answers it."""
    found = head.scan(request(HOST, *lines), b"x-forwarded-for")
    assert (b"Ga.example/a.jpg", False) == (found.key, found.is_replayable)


FOREIGN = {
    "nothing": b"",
    "HTTP/1.0": request(HOST, first=b"GET /a.jpg HTTP/1.0"),
    "HTTP/1.2": request(HOST, first=b"GET /a.jpg HTTP/1.2"),
    "lower-case version": request(HOST, first=b"GET /a.jpg http/1.1"),
    "POST": request(HOST, first=b"POST /a.jpg HTTP/1.1"),
    "lower-case method": request(HOST, first=b"get /a.jpg HTTP/1.1"),
    "GETS": request(HOST, first=b"GETS /a.jpg HTTP/1.1"),
    "absolute form": request(HOST, first=b"GET http://a.example/a.jpg HTTP/1.1"),
    "asterisk form": request(HOST, first=b"GET * HTTP/1.1"),
    "no target": request(HOST, first=b"GET  HTTP/1.1"),
    "two spaces before the target": request(HOST, first=b"GET  /a.jpg HTTP/1.1"),
    "two spaces behind the target": request(HOST, first=b"GET /a.jpg  HTTP/1.1"),
    "a tab for a space": request(HOST, first=b"GET\t/a.jpg HTTP/1.1"),
    "a space behind the version": request(HOST, first=b"GET /a.jpg HTTP/1.1 "),
    "a fragment": request(HOST, first=b"GET /a.jpg#x HTTP/1.1"),
    "a control byte in the target": request(HOST, first=b"GET /a\x01.jpg HTTP/1.1"),
    "DEL in the target": request(HOST, first=b"GET /a\x7f.jpg HTTP/1.1"),
    "bytes above ASCII in the target": request(HOST, first=b"GET /caf\xc3\xa9.jpg HTTP/1.1"),
    "an empty line first": b"\r\n" + request(HOST),
    "no headers": request(),
    "no Host": request(b"Accept: */*"),
    "an empty Host": request(b"Host: "),
    "two Hosts": request(HOST, HOST),
    "a list as Host": request(b"Host: a.example, b.example"),
    "a path in Host": request(b"Host: a.example/b"),
    "user information in Host": request(b"Host: a@b.example"),
    "bytes above ASCII in Host": request(b"Host: caf\xc3\xa9.example"),
    "Connection: close": request(HOST, b"Connection: close"),
    "Connection: upgrade": request(HOST, b"Connection: keep-alive, Upgrade"),
    "two Connections": request(HOST, b"Connection: keep-alive", b"Connection: keep-alive"),
    "Proxy-Connection": request(HOST, b"Proxy-Connection: close"),
    "Upgrade": request(HOST, b"Upgrade: h2c"),
    "Expect": request(HOST, b"Expect: 100-continue"),
    "Trailer": request(HOST, b"Trailer: x"),
    "Transfer-Encoding": request(HOST, b"Transfer-Encoding: chunked"),
    "Content-Length": request(HOST, b"Content-Length: 5"),
    "Content-Length of nothing": request(HOST, b"content-length: 0"),
    "Content-Type": request(HOST, b"Content-Type: text/plain"),
    "two User-Agents": request(HOST, b"User-Agent: a", b"User-Agent: b"),
    "Max-Forwards": request(HOST, b"Max-Forwards: 1"),
    "ETag": request(HOST, b"ETag: x"),
    "Server": request(HOST, b"Server: x"),
    "Sec-WebSocket-Key1": request(HOST, b"Sec-WebSocket-Key1: x"),
    "a folded line": request(HOST, b"X: a", b" b"),
    "a folded first line": request(b" x", HOST),
    "a space before the colon": request(b"Host : a.example"),
    "no colon": request(HOST, b"X"),
    "no name": request(HOST, b": x"),
    "a name that is no token": request(HOST, b"X(Y): x"),
    "NUL in a value": request(HOST, b"X: a\x00b"),
    "NUL in a long value": request(HOST, b"X: 0123456789\x00 123456789"),
    "a control byte in a value": request(HOST, b"X: a\x1fb"),
    "DEL in a value": request(HOST, b"X: 0123456\x7f0123456789"),
    "a bare CR": request(HOST, b"X: a\rb"),
    "a bare LF": request(HOST, b"X: a\nY: b"),
    "LF ends": request(HOST).replace(b"\r\n", b"\n"),
    "the empty line is missing": request(HOST, end=b"\r\n"),
    "the last byte is missing": request(HOST)[:-1],
    "a body": request(HOST) + b"x",
    "two requests": request(HOST) * 2,
    "an empty line behind": request(HOST) + b"\r\n",
    "too many headers": request(HOST, *[b"X: y"] * 128),
    "too long": request(HOST, b"X: " + b"x" * 8190),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_not_recognised(head: ModuleType, case: str) -> None:
    """Anything that is not exactly one whole plain request is None."""
    assert None is head.scan(FOREIGN[case], b"x-forwarded-for")


def test_the_limits_are_reached(head: ModuleType) -> None:
    """8190 bytes and 128 headers are still recognised."""
    frame = len(request(HOST, b"X: "))
    assert head.scan(request(HOST, b"X: " + b"x" * (head.MAX_BYTES - frame))) is not None
    assert head.scan(request(HOST, b"X: " + b"x" * (head.MAX_BYTES - frame + 1))) is None
    assert head.scan(request(HOST, *[b"X: y"] * (head.MAX_HEADERS - 1))) is not None


@pytest.mark.parametrize("size", range(len(BROWSER)))
def test_no_part_of_a_request_is_one(head: ModuleType, size: int) -> None:
    """However a request is cut, its beginning is not recognised."""
    assert None is head.scan(BROWSER[:size], b"x-forwarded-for")


PIECES = (
    b"GET ", b"HEAD ", b"POST ", b"/", b"/a.jpg?w=1", b" HTTP/1.1", b" HTTP/1.0", b"\r\n", b"\n", b"\r", b"\r\n\r\n",
    b"Host: a.example", b"Host:", b": ", b" ", b"\t", b"\x00", b"\x7f", b"\xff", b"Accept: image/webp", b"Accept:",
    b"Connection: keep-alive", b"Connection: close", b"X-Forwarded-For: 192.0.2.1", b"If-None-Match: *", b"If-",
    b"Range: bytes=0-1", b"Content-Length: 0", b"Content-", b"Transfer-Encoding: chunked", b"User-Agent: x", b"X: y",
    b"\r\nHost: a.example\r\n", b"GET /a.jpg HTTP/1.1\r\n", b"eTaG: x", b"Upgrade: x", b"TRAILER:", b"Expect:", b"#",
)  # fmt: skip


LINES = (
    b"Accept: image/webp", b"accept:*/*", b"Accept:", b"ACCEPT : x", b"Connection: keep-alive",
    b"Cookie: a=b", b"Host: b.example", b"Host: [::1]:80", b"If-None-Match: *", b"Range: bytes=0-1", b"X: caf\xc3\xa9",
    b"X-Forwarded-For: 192.0.2.1", b"x-forwarded-for:\t192.0.2.2 ", b"User-Agent: x", b"Keep-Alive: 5", b"TE: trailers",
    b"Pragma: no-cache", b"If: x", b"Content: x", b"Forwarded: for=192.0.2.3", b"X:", b"X: \t ", b"X: a\tb",
    b"connection:Keep-Alive", b"etags: x",
)  # fmt: skip


@st.composite
def packets(draw: st.DrawFn) -> bytes:
    """Requests that are right or almost right: header lines or pieces in any order, with some places changed."""
    lines = draw(st.lists(st.sampled_from(LINES), max_size=6))
    whole = request(HOST, *lines, first=draw(st.sampled_from([b"GET /a.jpg?w=1 HTTP/1.1", b"HEAD /~ HTTP/1.1"])))
    pieces = b"".join(draw(st.lists(st.sampled_from(PIECES), max_size=14)))
    packet = bytearray(draw(st.sampled_from([BROWSER, whole, whole, pieces])))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(packet)))
        packet[at : at + draw(st.integers(0, 3))] = draw(st.sampled_from(PIECES) | st.binary(max_size=2))
    return bytes(packet)


NAMES = st.sampled_from([b"", b"x-forwarded-for", b"forwarded", b"cf-connecting-ip"])


@settings(max_examples=700, deadline=None)
@given(packet=packets() | st.binary(max_size=200), name=NAMES)
@example(packet=request(HOST, b"Range: x", b"Range: y"), name=b"")
def test_the_twins_agree(packet: bytes, name: bytes) -> None:
    """Compiled and Python see the same in anything."""
    assert fields(_head_py.scan(packet, name)) == fields(_head.scan(packet, name))


class Protocol:
    """What aiohttp's parser wants of a connection."""

    def pause_reading(self) -> None:
        """Never called: there is no body."""


def as_aiohttp_sees(packet: bytes) -> list[RawRequestMessage]:
    parser = HttpRequestParser(Protocol(), None, 65536, max_line_size=8190, max_field_size=8190)  # type: ignore[arg-type]
    messages, is_upgraded, tail = parser.feed_data(packet)
    assert (False, b"") == (is_upgraded, tail)
    return [message for message, _ in messages]


@settings(max_examples=700, deadline=None)
@given(packet=packets())
def test_what_is_recognised_is_one_request_for_aiohttp_too(packet: bytes) -> None:
    """Its strict parser finds exactly one bodyless request there, with the same method, Host, target and Accept."""
    found = _head.scan(packet)
    if found is None:
        return
    try:
        (message,) = as_aiohttp_sees(packet)
    except HttpProcessingError as error:
        raise AssertionError(packet) from error
    headers = [(name.lower(), value) for name, value in message.raw_headers]
    (host,) = [value for name, value in headers if name == b"host"]
    assert message.method[:1].encode() + host + message.path.encode() == found.key
    assert ([value for name, value in headers if name == b"accept"] or [b""])[-1] == found.accept
    assert not message.should_close
    assert not message.chunked
