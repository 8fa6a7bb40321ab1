"""The three codecs fed with every kind of answer, cut anywhere: no sockets, no clock."""

import json
import re
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.utils import accept_key

from exporters.probing.protocols import (
    BIG,
    CAUSES,
    MOST,
    PROTOCOLS,
    BadReplyError,
    Exchange,
    Hello,
    Http,
    Reply,
    Tcp,
    Ws,
    text_frame,
)

HELLO = Hello("me", "my-instance", "peer.example", 8080, tls=False)
PEER = {"instance": "x1", "node": "n", "zone": "z", "source": "s", "boot_id": "b", "address": "10.0.0.7", "pod": "p"}
STEPS = (1, 7, 1 << 20)  # bytes handed over at a time
STREAM = 10_000_000  # bytes of an answer that does not end


def outcome(exchange: Exchange, data: bytes, step: int = 1 << 20) -> tuple[list[int], str]:
    """Feed `data` and close: the numbers answered, and the cause for those that are not."""
    numbers: list[int] = []
    try:
        step = max(step, len(data) // 500)
        for at in range(0, len(data), step):
            numbers += [reply.seq for reply in exchange.feed(data[at : at + step])]
            exchange.owed()
        replies, cause = exchange.ended("closed")
    except BadReplyError as error:
        return numbers + [reply.seq for reply in error.replies], error.args[0]
    return numbers + [reply.seq for reply in replies], cause


def asked(exchange: Exchange, *, big: bool = False) -> Exchange:
    """The exchange, waiting for the answer to number 7."""
    exchange.heartbeat(7, big=big)
    return exchange


def taken(exchange: Exchange, head: bytes, more: bytes) -> int:
    """How many bytes of an answer without end are read before it is called none."""
    count = 0
    for piece in (head, *[more] * (STREAM // len(more))):
        count += len(piece)
        try:
            exchange.feed(piece)
        except BadReplyError:
            break
    return count


def our_line(seq: int = 7, **fields: object) -> bytes:
    return b"ovnwatch/1 " + json.dumps({"seq": seq, **PEER, **fields}).encode()


# --- http


def page(status: str, *headers: str, body: str = "") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *headers, "", body]).encode()


OK = page("200 OK", "Content-Length: 2", body="ok")
HTTP_ANSWERED = {
    "whole": OK,
    "empty": page("200 OK", "Content-Length: 0"),
    "chunked": page("200 OK", "Transfer-Encoding: chunked", body="2\r\nok\r\n3;x=y\r\nabc\r\n0\r\n\r\n"),
    "until the end": page("200 OK", body="all of it"),
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nall of it",
    "continue first": page("100 Continue") + OK,
    "hints first": page("103 Early Hints", "Link: </a>") + page("103 Early Hints") + OK,
    "204": page("204 No Content"),
    "301": page("301 Moved", "Location: /elsewhere", "Content-Length: 0"),
    "304": page("304 Not Modified", "Content-Length: 5"),
    "bytes after the end": OK + b"\0\xff\r\nHTTP/9",
    "a second answer": OK + page("500 No", "Content-Length: 0"),
}
HTTP_FAILED = {
    "400": (page("400 Bad", "Content-Length: 0"), "http_status"),
    "404": (page("404 Not Found", "Content-Length: 2", body="no"), "http_status"),
    "500": (page("500 No", "Transfer-Encoding: chunked", body="2\r\nno\r\n0\r\n\r\n"), "http_status"),
    "503 until the end": (page("503 Busy", body="no"), "http_status"),
    "503 cut off": (page("503 Busy", "Content-Length: 99", body="no"), "http_status"),
    "switched": (page("101 Switching Protocols", "Upgrade: x", "Connection: upgrade") + b"x", "http_status"),
    "only continue": (page("100 Continue"), "bad_response"),
    "nothing": (b"", "closed"),
    "half a header": (OK[:20], "bad_response"),
    "too short a body": (page("200 OK", "Content-Length: 9", body="ok"), "bad_response"),
    "chunks cut off": (page("200 OK", "Transfer-Encoding: chunked", body="5\r\nok"), "bad_response"),
    "chunk of no size": (page("200 OK", "Transfer-Encoding: chunked", body="g\r\nok"), "bad_response"),
    "two lengths": (page("200 OK", "Content-Length: 2", "Content-Length: 3", body="ok"), "bad_response"),
    "negative length": (page("200 OK", "Content-Length: -1"), "bad_response"),
    "endless length": (page("200 OK", f"Content-Length: {10**30}"), "bad_response"),
    "no HTTP": (b"220 mail.example ESMTP\r\n", "bad_response"),
    "TLS alert": (b"\x15\x03\x01\x00\x02\x02\x46", "bad_response"),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("answer", HTTP_ANSWERED.values(), ids=HTTP_ANSWERED.keys())
def test_http_answers(answer: bytes, step: int) -> None:
    numbers, _ = outcome(asked(Http(HELLO)), answer, step)
    assert set(numbers) == {7}  # whoever waits for it takes the first


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("answer", "cause"), HTTP_FAILED.values(), ids=HTTP_FAILED.keys())
def test_http_failures(answer: bytes, cause: str, step: int) -> None:
    assert outcome(asked(Http(HELLO)), answer, step) == ([], cause)


def test_http_is_not_answered_before_the_body_is_whole() -> None:
    for early in (b"", page("100 Continue")):
        exchange = asked(Http(HELLO))
        assert exchange.feed(early + OK[:-1]) == []
        assert [reply.seq for reply in exchange.feed(OK[-1:])] == [7]


@pytest.mark.parametrize(
    "cause", ["reset", "stalled", "tls"]
)  # what the kernel says stands, whatever had arrived by then
def test_http_ended_by_an_error_is_that_error(cause: str) -> None:
    exchange = asked(Http(HELLO))
    exchange.feed(page("200 OK", body="half of"))
    assert exchange.ended(cause) == ([], cause)


@pytest.mark.parametrize(
    ("head", "more"),
    [
        ("HTTP/1.1 200 OK\r\nX: ", "x" * 1000),
        ("HTTP/1.1 200 OK\r\n", "X: y\r\n" * 100),
        ("HTTP/1.1 200 OK\r\n\r\n", "x" * 1000),
        (f"HTTP/1.1 200 OK\r\nContent-Length: {STREAM}\r\n\r\n", "x" * 60000),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n" * 100),
        ("", "HTTP/1.1 100 Continue\r\n\r\n" * 100),
    ],
    ids=["header", "headers", "body", "length", "chunks", "continues"],
)
def test_http_reads_no_more_than_64_kilobytes(head: str, more: str) -> None:
    assert taken(asked(Http(HELLO)), head.encode(), more.encode()) <= MOST + 60000


def test_http_asks_for_a_big_answer_and_says_who_asks() -> None:
    request = Http(HELLO).heartbeat(1, big=False).decode()
    assert request.startswith(f"GET /ping?size={BIG} HTTP/1.1\r\nHost: peer.example:8080\r\nUser-Agent: ovnwatch\r\n")
    assert request.endswith("\r\nConnection: close\r\n\r\n")
    assert (
        "\r\nHost: [fd00::1]:8080\r\n"
        in Http(Hello("", "", "fd00::1", 8080, tls=False)).heartbeat(1, big=False).decode()
    )


@pytest.mark.parametrize(
    ("body", "known"),
    [
        (json.dumps(PEER), PEER),
        (
            json.dumps({**PEER, "node": 7, "zone": None, "pod": ["p"], "source": "\n", "other": "x"}),
            {"instance", "boot_id", "address"},
        ),
        (json.dumps({**PEER, "node": "n" * 254, "zone": "\ud800"}), PEER.keys() - {"node", "zone"}),
        (json.dumps({"status": "ok", "pod": "an earlier system's"}), {}),
        ('{"boot_id":' + "[" * 50_000, {}),
        ("[1, 2]", {}),
        ('{"boot_id": "b", "seq": ' + "9" * 9000 + "}", {}),
        ("<html>", {}),
    ],
)
def test_http_any_page_is_an_answer_and_only_ours_says_who_answered(body: str, known: Iterable[str]) -> None:
    exchange = asked(Http(HELLO))
    exchange.feed(page("200 OK", f"Content-Length: {len(body.encode())}"))
    (reply,) = exchange.feed(body.encode())
    assert reply.info == {key: PEER[key] for key in known}


# --- tcp


@pytest.mark.parametrize("step", STEPS)
def test_tcp_many_replies_cut_anywhere(step: int) -> None:
    numbers = [7, 8, -1, 0, 2**63]
    data = b"".join(our_line(seq) + b"\n" for seq in numbers)
    assert outcome(asked(Tcp(HELLO)), data + b"ovnwatch/1 {", step) == (numbers, "closed")


@pytest.mark.parametrize("step", STEPS)
def test_tcp_garbage_after_a_reply_does_not_take_it_back(step: int) -> None:
    assert outcome(asked(Tcp(HELLO)), our_line(7) + b"\nrubbish\n" + our_line(8) + b"\n", step) == ([7], "bad_response")


TCP_GARBAGE = {
    "another prefix": b"hello\n",
    "another version": b"ovnwatch/2 {}\n",
    "empty line": b"\n",
    "no JSON": b"ovnwatch/1 {\n",
    "no object": b"ovnwatch/1 [7]\n",
    "no number": our_line()[:-1].replace(b'"seq"', b'"SEQ"') + b"}\n",
    "number in quotes": b'ovnwatch/1 {"seq": "7"}\n',
    "number with a point": b'ovnwatch/1 {"seq": 7.0}\n',
    "true": b'ovnwatch/1 {"seq": true}\n',
    "a very long number": b'ovnwatch/1 {"seq": ' + b"7" * 5000 + b"}\n",
    "deep": b'ovnwatch/1 {"seq": ' + b"[" * 60_000 + b"\n",
    "no UTF-8": b'ovnwatch/1 {"seq": 7, "node": "\xff"}\n',
    "too long": our_line(pad="x" * MOST) + b"\n",
    "zeros": bytes(1000) + b"\n",
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("line", TCP_GARBAGE.values(), ids=TCP_GARBAGE.keys())
def test_tcp_garbage_is_a_bad_response(line: bytes, step: int) -> None:
    assert outcome(asked(Tcp(HELLO)), line, step) == ([], "bad_response")


def test_tcp_says_who_answered_in_checked_words_only() -> None:
    (reply,) = Tcp(HELLO).feed(our_line(node="x" * 254, zone=["z"], source="a\nb", other="o") + b"\n")
    assert reply.info == {key: PEER[key] for key in ("instance", "boot_id", "address", "pod")}


@pytest.mark.parametrize("big", [False, True])
def test_tcp_an_echo_of_our_own_line_is_an_answer_of_nobody(big: bool) -> None:
    exchange = Tcp(HELLO)
    (reply,) = exchange.feed(exchange.heartbeat(7, big=big))
    assert reply == Reply(7, {})


@pytest.mark.parametrize("speech", [Tcp, Ws])
def test_big_requests_are_four_kilobytes_both_ways(speech: Callable[[Hello], Exchange]) -> None:
    exchange = speech(HELLO)
    if isinstance(exchange, Ws):
        exchange.feed(upgrade(exchange))
    line = exchange.heartbeat(123_456, big=True)
    small = exchange.heartbeat(123_456, big=False)
    assert BIG <= len(line) <= BIG + 8  # a frame's head may come on top
    assert len(small) < 200
    if isinstance(exchange, Tcp):
        request = json.loads(line.removeprefix(b"ovnwatch/1 "))
        assert (request["seq"], request["size"], request["source"]) == (123_456, BIG, "me")


@pytest.mark.parametrize(
    "more", [b"x" * 60_000, b"ovnwatch/1 ", our_line(-1) + b"\n"], ids=["line", "prefix", "replies"]
)
def test_tcp_reads_no_more_than_64_kilobytes_between_two_requests(more: bytes) -> None:
    assert taken(asked(Tcp(HELLO)), b"", more) <= MOST + len(more)


def test_long_talks_are_no_long_answers() -> None:
    tcp, ws = Tcp(HELLO), Ws(HELLO)
    ws.feed(upgrade(ws))
    for seq in range(100):
        line = our_line(seq, pad="x" * BIG)
        for exchange, data in ((tcp, line + b"\n"), (ws, frame(line))):
            exchange.heartbeat(seq, big=True)
            assert [reply.seq for reply in exchange.feed(data)] == [seq]


# --- ws


def upgrade(exchange: Exchange, *headers: str, status: str = "101 Switching Protocols", accept: str = "") -> bytes:
    """The server's side of the handshake, an ovnwatch server's unless `headers` say otherwise."""
    key = re.search(rb"Sec-WebSocket-Key: (\S+)", exchange.opening())
    assert key is not None
    accepted = f"Sec-WebSocket-Accept: {accept or accept_key(key[1].decode())}"
    return page(status, "Upgrade: websocket", "Connection: Upgrade", accepted, *(headers or ("Ovnwatch: 1",)))


def frame(data: bytes, opcode: Opcode = Opcode.TEXT, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=False)


def opened(*headers: str) -> Ws:
    """An exchange after its handshake, waiting for the answer to number 7."""
    exchange = Ws(HELLO)
    assert not exchange.ready
    assert exchange.feed(upgrade(exchange, *headers)) == []
    assert exchange.ready
    exchange.heartbeat(7, big=False)
    return exchange


WS_ANSWERED = {
    "one message": frame(our_line()),
    "in fragments": frame(our_line()[:9], fin=False)
    + frame(b"", Opcode.CONT, fin=False)
    + frame(our_line()[9:], Opcode.CONT),
    "a ping between fragments": frame(our_line()[:30], fin=False)
    + frame(b"?", Opcode.PING)
    + frame(our_line()[30:], Opcode.CONT),
    "other messages first": frame(b"hello") + frame(b"\0", Opcode.BINARY) + frame(b"", Opcode.PING) + frame(our_line()),
    "another fragmented first": frame(b"a", fin=False) + frame(b"b", Opcode.CONT) + frame(our_line()),
    "binary fragments first": frame(b"a", Opcode.BINARY, fin=False)
    + frame(our_line(9), Opcode.CONT)
    + frame(our_line()),
    "a pong": frame(b"7", Opcode.PONG),
}
WS_FAILED = {
    "nothing": (b"", "closed"),
    "a goodbye": (frame(Close(1001, "going").serialize(), Opcode.CLOSE), "closed"),
    "a mute goodbye": (frame(b"", Opcode.CLOSE), "closed"),
    "our words without sense": (frame(b"ovnwatch/1 x"), "bad_response"),
    "our words in fragments without sense": (
        frame(b"ovnwatch/1 ", fin=False) + frame(b"x", Opcode.CONT),
        "bad_response",
    ),
    "masked": (Frame(Opcode.TEXT, our_line()).serialize(mask=True), "bad_response"),
    "unknown opcode": (b"\x83\x00", "bad_response"),
    "reserved bits": (b"\xf1\x00", "bad_response"),
    "too big a frame": (b"\x81\x7f" + (10**12).to_bytes(8), "bad_response"),
    "too big in fragments": (frame(b"x" * 60_000, fin=False) + frame(b"x" * 60_000, Opcode.CONT), "bad_response"),
    "half a frame": (frame(our_line())[:-1], "closed"),
    "continuation of nothing": (frame(our_line(), Opcode.CONT), "bad_response"),
    "a fragmented ping": (b"\x09\x00", "bad_response"),
    "half a close code": (b"\x88\x01\x03", "bad_response"),
    "pongs we did not ask for": (
        frame(b"", Opcode.PONG) + frame(b"x", Opcode.PONG) + frame(b"7" * 99, Opcode.PONG),
        "closed",
    ),
}


@pytest.mark.parametrize("size", [0, 1, 125, 126, 4096, 65535])
def test_a_text_we_send_is_one_masked_frame(size: int) -> None:
    text = b"\xc3\xa4" * (size // 2) + b"x" * (size % 2)
    server = ServerProtocol(state=State.OPEN)
    server.receive_data(text_frame(text))
    (received,) = server.events_received()
    assert isinstance(received, Frame)
    assert (received.opcode, bytes(received.data), received.fin) == (Opcode.TEXT, text, True)
    assert len({text_frame(text) for _ in range(8)}) > 1  # each has a key of its own


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("answer", WS_ANSWERED.values(), ids=WS_ANSWERED.keys())
def test_ws_answers(answer: bytes, step: int) -> None:
    assert outcome(opened(), answer, step)[0] == [7]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("answer", "cause"), WS_FAILED.values(), ids=WS_FAILED.keys())
def test_ws_failures(answer: bytes, cause: str, step: int) -> None:
    assert outcome(opened(), answer, step) == ([], cause)


def test_ws_a_goodbye_behind_the_answer_does_not_undo_it() -> None:
    exchange = opened()
    assert exchange.feed(frame(our_line()) + frame(b"", Opcode.CLOSE)) == [Reply(7, PEER)]
    assert not exchange.ready
    assert exchange.owed()[:1] == b"\x88"
    assert exchange.ended("closed") == ([], "closed")


@pytest.mark.parametrize("step", STEPS)
def test_ws_handshake_and_answers_cut_anywhere(step: int) -> None:
    exchange = Ws(HELLO)
    data = upgrade(exchange) + frame(our_line(1)) + frame(our_line(2)) + frame(our_line(3))
    assert outcome(exchange, data, step) == ([1, 2, 3], "closed")


def sized(length: int) -> bytes:
    """An answer to number 7 of so many bytes."""
    start = b'ovnwatch/1 {"seq": 7, "pad": "'
    return start + b"." * (length - len(start) - 2) + b'"}'


@pytest.mark.parametrize("length", [119, 125, 126, 127, 128, 129, 300, 4096])
def test_ws_reads_a_text_whichever_way_its_size_is_written(length: int) -> None:
    """In one byte, in the two after it or in eight, which a peer may do for a short text, too."""
    text = sized(length)
    sizes = [b"\x7e" + length.to_bytes(2), b"\x7f" + length.to_bytes(8)]
    if length < 126:
        sizes.append(bytes([length]))
    for size in sizes:
        whole = b"\x81" + size + text
        assert opened().feed(whole) == [Reply(7, {})]
        assert opened().feed(whole + whole[:5]) == [Reply(7, {})]


def test_ws_a_text_that_is_not_ours_answers_nothing() -> None:
    exchange = opened()
    assert exchange.feed(frame(b"")) == []
    assert exchange.feed(frame(b"hello")) == []
    assert exchange.feed(frame(our_line())) == [Reply(7, PEER)]


def test_ws_pings_a_server_that_is_no_ovnwatch_and_answers_its_pings() -> None:
    exchange = opened("Server: other")
    ping = exchange.heartbeat(1234, big=True)
    assert ping[:2] == bytes([0x89, 0x80 + 4])  # a masked PING of four bytes: the number
    assert exchange.feed(frame(b"1234", Opcode.PONG) + frame(our_line(5))) == [Reply(1234, {}), Reply(5, PEER)]
    exchange.feed(frame(b"are you there", Opcode.PING))
    assert exchange.owed()[:2] == bytes([0x8A, 0x80 + 13])


def test_ws_says_whom_it_asks() -> None:
    for tls, host, port, said in (
        (False, "peer.example", 80, "peer.example"),
        (True, "peer.example", 443, "peer.example"),
        (True, "fd00::1", 8080, "[fd00::1]:8080"),
    ):
        request = Ws(Hello("me", "i", host, port, tls, agent="ovnwatch/9")).opening().decode()
        assert request.startswith("GET / HTTP/1.1\r\n")
        assert f"\r\nHost: {said}\r\n" in request
        assert "\r\nUser-Agent: ovnwatch/9\r\n" in request


WS_REFUSED = {
    "200": {"status": "200 OK"},
    "200 with a page": {"status": "200 OK", "more": b"<html>"},
    "403": {"status": "403 Forbidden"},
    "403 with length": {"status": "403 Forbidden", "headers": ["Content-Length: 2"], "more": b"no"},
    "403 cut off": {"status": "403 Forbidden", "headers": ["Content-Length: 20"], "more": b"no"},
    "426 in chunks": {
        "status": "426 Upgrade",
        "headers": ["Transfer-Encoding: chunked"],
        "more": b"2\r\nno\r\n0\r\n\r\n",
    },
    "100": {"status": "100 Continue"},
    "wrong accept": {"accept": "bm90IGl0"},
    "two accepts": {"headers": ["Sec-WebSocket-Accept: x"]},
    "extension": {"headers": ["Sec-WebSocket-Extensions: permessage-deflate"]},
    "subprotocol": {"headers": ["Sec-WebSocket-Protocol: x"]},
    "broken header": {"headers": ["Nonsense"]},
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("case", WS_REFUSED.values(), ids=WS_REFUSED.keys())
def test_ws_refused_upgrades(case: dict[str, object], step: int) -> None:
    exchange = Ws(HELLO)
    headers = case.get("headers", [])
    assert isinstance(headers, list)
    answer = upgrade(
        exchange, "X: y", *headers, status=str(case.get("status", "101 Ok")), accept=str(case.get("accept", ""))
    )
    more = case.get("more", b"")
    assert isinstance(more, bytes)
    assert outcome(exchange, answer + more, step) == ([], "ws_upgrade")
    assert not exchange.ready


def test_ws_what_is_no_handshake_at_all() -> None:
    for answer in (
        b"220 mail.example ESMTP\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46\r\n",
        b"HTTP/1.0 101 Ok\r\n\r\n",
        bytes(9000),
    ):
        assert outcome_after_opening(answer) == ([], "ws_upgrade")
    assert outcome_after_opening(b"") == ([], "closed")


def outcome_after_opening(answer: bytes) -> tuple[list[int], str]:
    exchange = Ws(HELLO)
    exchange.opening()
    return outcome(exchange, answer)


def test_ws_a_header_given_twice_is_no_bug_of_ours() -> None:
    exchange = opened("Ovnwatch: 1", "Ovnwatch: 1")
    assert outcome(exchange, frame(our_line()))[0] == [7]


@pytest.mark.parametrize(
    "more",
    [b"X: y\r\n" * 100, b"X: " + b"x" * 7000 + b"\r\n", b"\r\n" + b"x" * 60_000],
    ids=["headers", "long headers", "body"],
)
def test_ws_reads_no_more_than_64_kilobytes_of_a_handshake(more: bytes) -> None:
    exchange = Ws(HELLO)
    exchange.opening()
    assert taken(exchange, b"HTTP/1.1 200 OK\r\n", more) <= MOST + len(more)


@pytest.mark.parametrize(
    "more",
    [frame(b"x" * 60_000), frame(b"?", Opcode.PING) * 100, frame(b"", Opcode.BINARY) * 100, frame(our_line(-1))],
    ids=["text", "pings", "binary", "replies"],
)
def test_ws_reads_no_more_than_64_kilobytes_between_two_requests(more: bytes) -> None:
    assert taken(opened(), b"", more) <= MOST + len(more)


# --- all of them


def _http() -> tuple[Exchange, list[bytes]]:
    return asked(Http(HELLO)), [page("100 Continue"), *HTTP_ANSWERED.values()]


def _tcp() -> tuple[Exchange, list[bytes]]:
    return asked(Tcp(HELLO)), [our_line() + b"\n", our_line(8, pad="x" * 100) + b"\n"]


def _ws() -> tuple[Exchange, list[bytes]]:
    return opened(), [*WS_ANSWERED.values(), *(answer for answer, _ in WS_FAILED.values())]


def _handshake() -> tuple[Exchange, list[bytes]]:
    exchange = Ws(HELLO)
    return exchange, [upgrade(exchange), frame(our_line())]


@st.composite
def mangled(draw: st.DrawFn, answers: list[bytes]) -> list[bytes]:
    """Good answers after some bytes were changed, lost, repeated or put in, cut anywhere."""
    data = bytearray(b"".join(draw(st.lists(st.sampled_from(answers), min_size=1, max_size=4))))
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 9))] = draw(
            st.one_of(st.binary(max_size=9), st.just(bytes(data[:at][-99:])))
        )
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    return [bytes(data[a:b]) for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@pytest.mark.parametrize("conversation", [_http, _tcp, _ws, _handshake])
@given(data=st.data())
def test_mangled_answers_are_replies_or_bad_ones_never_a_crash(
    conversation: Callable[[], tuple[Exchange, list[bytes]]], data: st.DataObject
) -> None:
    exchange, answers = conversation()
    assert talk(exchange, data.draw(mangled(answers))) in CAUSES


@pytest.mark.parametrize("protocol", PROTOCOLS)
@given(pieces=st.lists(st.binary(max_size=300), max_size=8))
def test_noise_is_never_a_crash(protocol: str, pieces: list[bytes]) -> None:
    exchange = PROTOCOLS[protocol].exchange(HELLO)
    exchange.opening()
    assert talk(exchange, pieces) in CAUSES


def talk(exchange: Exchange, pieces: list[bytes]) -> str:
    """Ask again after each piece of an answer, as long as one may; how it ended."""
    try:
        for piece in pieces:
            assert all(type(reply.seq) is int for reply in exchange.feed(piece))
            exchange.owed()
            if exchange.ready:
                exchange.heartbeat(8, big=True)
        return exchange.ended("closed")[1]
    except BadReplyError as error:
        cause: str = error.args[0]
        return cause


@pytest.mark.parametrize("told", [1_764_000_000.25, 1_764_000_000])
def test_a_reply_tells_the_time(told: float) -> None:
    (reply,) = asked(Tcp(HELLO)).feed(our_line(7, time=told) + b"\n")
    assert reply.time == told


@pytest.mark.parametrize("told", ["noon", -1, 1e300, None])
def test_a_strange_time_is_none_and_no_failure(told: object) -> None:
    (reply,) = asked(Tcp(HELLO)).feed(our_line(7, time=told) + b"\n")
    assert (reply.seq, reply.info, reply.time) == (7, PEER, 0.0)
