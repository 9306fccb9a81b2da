# SPDX-License-Identifier: MIT
"""RFC 4254, each clause with the bytes of a stranger: channels, windows, requests."""
import os

import pytest
from stranger import (ADJUST, CH_FAILURE, CH_SUCCESS, CLOSE, CONFIRMATION, DATA, DISCONNECT, EOF,
                      EXTENDED, FAILURE, GLOBAL, OPEN, OPEN_FAILURE, REQUEST, SUCCESS,
                      UNIMPLEMENTED, Reader, string, u32)

clause = pytest.mark.clause
PROHIBITED, CONNECT_FAILED, UNKNOWN_TYPE, SHORTAGE = 1, 2, 3, 4
PROTOCOL_ERROR = 2
MOST = (1 << 32) - 1


@pytest.fixture
def peer(server):
    with server.connect() as made:
        yield made.establish()


@pytest.fixture
def echo(alone):
    """A session with our engine alone, where the host `echo` sends everything back."""
    with alone.connect() as made:
        yield made.establish()


# ---- §4: global requests ----


@clause("4254:4-1", "4254:4-2", "4251:5-1")
@pytest.mark.parametrize("name", ["x@example.com", "keepalive@openssh.com", "", "no-more-sessions",
                                  pytest.param("a" * 1000, id="long"), "tcpip-forward ",
                                  "streamlocal-forward@openssh.com"])
@pytest.mark.parametrize("wants", [b"\0", b"\1", b"\2", b"\xff"])
def test_unknown_requests_fail_if_they_want_a_reply(peer, name, wants):
    peer.send(GLOBAL, string(name), wants, b"any payload")
    if wants != b"\0":
        peer.expect(FAILURE).end()
    peer.ping()


@clause("4254:4-3")
def test_replies_keep_the_order_of_the_requests(echo):
    packets = []
    for number in range(12):
        host = f"name{number}"
        request = ([string("tcpip-forward"), b"\1", string(host), u32(80)] if number % 3 == 0
                   else [string("x@example.com"), bytes([number % 2])])
        packets.append(echo.pack(GLOBAL, *request))
    echo.raw(b"".join(packets))
    wanted = [SUCCESS if n % 3 == 0 else FAILURE for n in range(12) if n % 3 == 0 or n % 2]
    assert [echo.read()[0] for _ in wanted] == wanted
    echo.ping()


@clause("4254:4-4")
@pytest.mark.parametrize("number", [SUCCESS, FAILURE])
def test_a_reply_to_nothing_ends_the_session(peer, number):
    peer.send(number)
    peer.expect_end(PROTOCOL_ERROR)


@clause("4254:7.1-1", "4254:7.1-3")
def test_forwards_are_answered(peer):
    for name in ("tcpip-forward", "cancel-tcpip-forward", "cancel-tcpip-forward"):
        peer.send(GLOBAL, string(name), b"\1", string("conformance"), u32(80))
        assert peer.read()[0] in (SUCCESS, FAILURE)
    peer.ping()


@clause("4254:9-1")
@pytest.mark.parametrize("body", [b"", string("x"), u32(100) + b"x", u32(MOST),
                                  string("tcpip-forward") + b"\1",
                                  string("tcpip-forward") + b"\1" + string("x"),
                                  string("tcpip-forward") + b"\1" + string("x") + u32(80) + b"x"])
def test_requests_that_are_cut_or_too_long_end_the_session(peer, body):
    peer.send(GLOBAL, body)
    peer.expect_end(PROTOCOL_ERROR)


# ---- §5.1: opening ----


@clause("4254:5.1-1", "4254:5.1-2")
@pytest.mark.parametrize("kind", ["session", "x11", "auth-agent@openssh.com", "tun@openssh.com",
                                  "direct-streamlocal@openssh.com", "", "direct-tcpip\0"])
def test_other_types_are_refused(peer, kind):
    for number in (0, 5, MOST):
        peer.send(OPEN, string(kind), u32(number, 1000, 1000))
        peer.expect_refusal(number, UNKNOWN_TYPE)
    peer.ping()


@clause("4254:7.2-3", "4254:5.1-3")
def test_a_server_refuses_forwarded_channels(peer):
    peer.send_open(kind="forwarded-tcpip")
    peer.expect_refusal(7, PROHIBITED)
    peer.ping()


@clause("4254:5.1-2", "4254:5-1", "4254:5-2")
@pytest.mark.parametrize("number", [0, 1, 4711, MOST])
def test_a_channel_is_confirmed_under_both_numbers(echo, number):
    theirs, window, packet = echo.open(number)
    assert window >= 1024 and 1024 <= packet <= 35000
    echo.send(DATA, u32(theirs), string("hello"))
    assert echo.read_data(number, 5)[0] == b"hello"


@clause("4254:5.1-3")
def test_channels_beyond_the_limit_are_refused(echo):
    for number in range(100):
        echo.open(number)
    echo.send_open(100)
    echo.expect_refusal(100, SHORTAGE)
    echo.ping()


@clause("4254:5.1-3")
@pytest.mark.parametrize("packet", [0, 1, 1023])
def test_packet_sizes_that_are_too_small_are_refused(peer, packet):
    peer.send_open(packet=packet)
    reader = peer.expect(OPEN_FAILURE)
    assert reader.u32() == 7
    peer.ping()


@clause("4254:5.1-4")
@pytest.mark.parametrize("message", [(DATA, string("x")), (EOF,), (CLOSE,), (ADJUST, u32(1)),
                                     (REQUEST, string("x"), b"\1"), (CH_SUCCESS,), (CH_FAILURE,),
                                     (CONFIRMATION, u32(1, 1, 1)),
                                     (OPEN_FAILURE, u32(1), string(""), string(""))])
@pytest.mark.parametrize("number", [0, 3, MOST])
def test_messages_for_channels_that_are_not_there_end_the_session(echo, message, number):
    echo.send(message[0], u32(number), *message[1:])
    echo.expect_end(PROTOCOL_ERROR)


@clause("4254:9-1")
@pytest.mark.parametrize("cut", [1, 4, 5, 12, 20])
def test_opens_that_are_cut_end_the_session(peer, cut):
    body = string("direct-tcpip") + u32(1, 9999, 9999) + string("echo") + u32(7) + string("x") + u32(1)
    peer.send(OPEN, body[:-cut])
    peer.expect_end(PROTOCOL_ERROR)


# ---- §5.2: data ----


@clause("4254:5.2-1", "4254:5.2-2", "4254:5.3-5")
@pytest.mark.parametrize("packet", [1024, 4096, 32768, MOST])
def test_window_and_packet_size_are_kept(echo, packet):
    theirs, _, most = echo.open(window=5000, packet=packet)
    data = os.urandom(20000)
    echo.send(DATA, u32(theirs), string(data))
    echo.send(EOF, u32(theirs))
    got, largest = echo.read_data(7, 5000)
    assert got == data[:5000] and largest <= packet
    echo.ping(ADJUST)  # and not one byte more
    for more in (1, 7000):
        echo.send(ADJUST, u32(theirs, more))
        part, largest = echo.read_data(7, more)
        got += part
        assert len(part) == more and largest <= packet
    echo.send(ADJUST, u32(theirs, len(data) - len(got)))
    got += echo.read_data(7, len(data) - len(got))[0]
    assert got == data
    # The window is used up: neither end of file nor close needs any.
    assert echo.expect(EOF, ADJUST).u32() == 7
    assert echo.expect(CLOSE).u32() == 7


@clause("4254:5.2-3")
def test_the_largest_window_is_understood(echo):
    theirs, _, most = echo.open(window=MOST)
    echo.send(DATA, u32(theirs), string("x" * 1000))
    assert echo.read_data(7, 1000)[0] == b"x" * 1000
    echo.send(ADJUST, u32(theirs, 1000))
    echo.ping()


@clause("4254:5.2-3")
@pytest.mark.parametrize("window, more", [(MOST, 1), (1, MOST), (1 << 31, 1 << 31)])
def test_a_window_above_it_ends_the_session(echo, window, more):
    theirs = echo.open(window=window)[0]
    echo.send(ADJUST, u32(theirs, more))
    echo.expect_end(PROTOCOL_ERROR)


@clause("4254:5.2-4")
@pytest.mark.parametrize("number", [DATA, EXTENDED])
def test_data_beyond_our_window_ends_the_session(echo, number):
    theirs, window, most = echo.open(window=0)  # so nothing comes back and nothing is given back
    kind = b"" if number == DATA else u32(1)
    if number == EXTENDED:
        window = window * 4  # which is dropped, and so given back at once
    sent = 0
    while sent + most <= window:
        echo.send(number, u32(theirs), kind, string(bytes(most)))
        sent += most
    if number == EXTENDED:
        echo.ping(ADJUST)
        return
    echo.ping()
    echo.send(DATA, u32(theirs), string(bytes(window - sent)))
    echo.ping()
    echo.send(DATA, u32(theirs), string("x"))
    echo.expect_end(PROTOCOL_ERROR)


@clause("4254:5.2-2")
def test_a_packet_beyond_our_size_ends_the_session(echo):
    theirs, _, most = echo.open()
    echo.send(DATA, u32(theirs), string(bytes(most + 1)))
    echo.expect_end(PROTOCOL_ERROR)


@clause("4254:5.2-5", "4254:5.2-7")
def test_extended_data_takes_window_and_is_dropped(echo):
    theirs, window, most = echo.open()
    sent = 0
    while sent < window // 2 + most:
        echo.send(EXTENDED, u32(theirs, 1), string(bytes(most)))
        sent += most
    given = 0
    while given <= sent - window // 8:  # the rest comes back with what is taken next
        reader = echo.expect(ADJUST)
        assert reader.u32() == 7
        given += reader.u32()
    assert given <= sent
    echo.ping(ADJUST)
    assert DATA not in echo.seen


@clause("4254:5.2-6")
def test_window_comes_back_as_data_is_passed_on(echo):
    theirs, window, most = echo.open(window=MOST)
    given, sent = window, 0
    while sent < 3 * window:
        size = min(most, given - sent)
        if size > 0:
            echo.send(DATA, u32(theirs), string(bytes(size)))
            sent += size
        while given - sent < most or b"" != echo.buffer:
            payload = echo.read()
            if payload[0] == ADJUST:
                reader = Reader(payload[1:])
                assert reader.u32() == 7
                given += reader.u32()
                reader.end()
            else:
                assert payload[0] == DATA
        assert given - sent <= window
    assert given > window


# ---- §5.3: the end of a channel ----


@clause("4254:5.3-1", "4254:5.3-2", "4254:5.3-6")
def test_end_of_file_closes_one_direction(echo):
    theirs = echo.open(window=10)[0]
    echo.send(DATA, u32(theirs), string("x" * 100))
    echo.send(EOF, u32(theirs))
    assert echo.read_data(7, 10)[0] == b"x" * 10
    echo.ping()  # no answer to the end of file; what is left waits for window
    echo.send(ADJUST, u32(theirs, 1000))
    assert echo.read_data(7, 90)[0] == b"x" * 90
    assert echo.expect(EOF).u32() == 7
    assert echo.expect(CLOSE).u32() == 7
    echo.send(CLOSE, u32(theirs))
    echo.ping()
    assert echo.seen.count(CLOSE) == 1


@clause("4254:5.3-2", "4254:5.3-3", "4254:5.3-4")
def test_a_close_is_answered_once_and_its_number_is_free(echo):
    numbers = set()
    for _ in range(150):
        theirs = echo.open(number=9)[0]
        numbers.add(theirs)
        echo.send(CLOSE, u32(theirs))
        reader = echo.expect(CLOSE)
        assert reader.u32() == 9
        reader.end()
    echo.ping()
    assert len(numbers) <= 100 and echo.seen.count(CLOSE) == 150


@clause("4254:5.3-7")
@pytest.mark.parametrize("first", [EOF, CLOSE])
def test_data_behind_the_end_ends_the_session(echo, first):
    theirs = echo.open()[0]
    echo.send(first, u32(theirs))
    echo.expect(CLOSE, EOF)
    echo.send(DATA, u32(theirs), string("x"))
    echo.expect_end(PROTOCOL_ERROR)


@clause("4254:5.3-7")
def test_window_behind_the_end_is_ignored(echo):
    """Some clients give it once more."""
    theirs = echo.open()[0]
    echo.send(CLOSE, u32(theirs))
    echo.expect(CLOSE)
    echo.send(ADJUST, u32(theirs, 1))
    echo.ping()


@clause("4254:5.3-7")
def test_what_crosses_our_close_is_borne(echo):
    theirs = echo.open()[0]
    echo.send(EOF, u32(theirs))
    echo.expect(EOF)
    echo.expect(CLOSE)
    for message in ((ADJUST, u32(1000)), (REQUEST, string("x"), b"\1"), (EOF,)):
        echo.send(message[0], u32(theirs), *message[1:])
    echo.ping()  # and no answer behind a close
    echo.send(CLOSE, u32(theirs))
    echo.ping()


# ---- §5.4: channel requests ----


@clause("4254:5.4-1", "4254:5.4-2", "4254:5.4-3", "4251:5-1")
@pytest.mark.parametrize("name", ["shell", "exec", "subsystem", "pty-req", "x11-req", "env", "",
                                  "auth-agent-req@openssh.com", "keepalive@openssh.com", "signal"])
def test_channel_requests_fail(echo, name):
    theirs = echo.open(window=0)[0]
    for wants in (b"\0", b"\1", b"\7"):
        echo.send(REQUEST, u32(theirs), string(name), wants, b"more" * 100)
        if wants != b"\0":
            reader = echo.expect(CH_FAILURE)
            assert reader.u32() == 7
            reader.end()
    echo.send(ADJUST, u32(theirs, 10))
    echo.send(DATA, u32(theirs), string("still here"))
    assert echo.read_data(7, 10)[0] == b"still here"


@clause("4254:9-1")
@pytest.mark.parametrize("number", [CH_SUCCESS, CH_FAILURE, CONFIRMATION, OPEN_FAILURE])
def test_answers_to_nothing_end_the_session(echo, number):
    theirs = echo.open()[0]
    echo.send(number, u32(theirs), u32(1, 1, 1))
    echo.expect_end(PROTOCOL_ERROR)


@clause("4254:9-1")
@pytest.mark.parametrize("message", [(DATA, u32(5) + b"xxx"), (DATA, u32(MOST)), (DATA, b"\0\0"),
                                     (DATA, string("x") + b"y"), (EXTENDED, u32(1)), (EOF, b"x"),
                                     (CLOSE, b"x"), (ADJUST, b"\1"), (ADJUST, u32(1, 1)),
                                     (REQUEST, string("x")), (REQUEST, u32(9) + b"x")])
def test_messages_that_are_cut_or_too_long_end_the_session(echo, message):
    theirs = echo.open()[0]
    echo.send(message[0], u32(theirs), *message[1:])
    echo.expect_end(PROTOCOL_ERROR)


# ---- our client ----


@pytest.fixture
def served(client):
    """Our client, established, with a channel on its way to us."""
    peer, program = client("--open", "echo:7", "--bytes", "5000")
    peer.hello()
    peer.follow()
    peer.authenticate()
    program.wait("established")
    reader = peer.expect(OPEN)
    assert reader.string() == b"direct-tcpip"
    peer.theirs = reader.u32()
    return peer, program


@clause("4254:6.1-1", "4254:7.2-2", "4254:5.1-1")
@pytest.mark.parametrize("kind, reason", [("session", UNKNOWN_TYPE), ("direct-tcpip", PROHIBITED),
                                          ("x11", UNKNOWN_TYPE)])
def test_a_client_refuses_what_a_server_may_not_open(served, kind, reason):
    peer, _ = served
    if kind == "direct-tcpip":
        peer.send_open()
    else:
        peer.send(OPEN, string(kind), u32(7, 1000, 1000))
    peer.expect_refusal(7, reason)
    peer.ping()


@clause("4254:5.1-5", "4253:11.1-3", "4252:5.4-2")
def test_texts_of_a_peer_are_not_printed(served):
    peer, program = served
    peer.send(OPEN_FAILURE, u32(peer.theirs, 2), string("\x1b[2Jgone"), string("en"))
    assert peer.expect(DISCONNECT).u32() == 11
    program.wait("refused 2")
    assert not program.find("\x1b")


@clause("4254:5.2-1", "4254:5.2-2", "4254:5-2", "4254:5.1-4")
def test_a_client_keeps_to_the_window_of_a_server(served):
    peer, program = served
    peer.send(CONFIRMATION, u32(peer.theirs, 3, 2000, 1024))
    data, largest = peer.read_data(3, 2000)
    assert largest <= 1024
    peer.ping()
    peer.send(ADJUST, u32(peer.theirs, 10000))
    data += peer.read_data(3, 3000)[0]
    peer.send(DATA, u32(peer.theirs), string(data))
    peer.expect(EOF)
    peer.send(EOF, u32(peer.theirs))
    peer.send(CLOSE, u32(peer.theirs))
    program.wait("ok 5000 bytes")


@clause("4254:5.1-4")
@pytest.mark.parametrize("message", [(DATA, string("x")), (EOF,), (CLOSE,), (ADJUST, u32(1))])
def test_a_client_takes_nothing_on_a_channel_that_is_not_confirmed(served, message):
    peer, program = served
    peer.send(message[0], u32(peer.theirs), *message[1:])
    peer.expect_end(PROTOCOL_ERROR)
    program.wait("failed SSH_PROTOCOL")


@clause("4254:5.1-2")
@pytest.mark.parametrize("packet", [0, 1, 10, 1023])
def test_a_client_closes_a_channel_with_small_packets(served, packet):
    peer, program = served
    peer.send(CONFIRMATION, u32(peer.theirs, 3, 1 << 20, packet))
    assert peer.expect(CLOSE).u32() == 3
    program.wait("refused")
    assert DATA not in peer.seen


@clause("4250:4.1-1", "4250:4.6.1-1")
def test_numbers_and_names_are_the_registered_ones(echo):
    """The stranger has them from the tables; here those of a whole session once more."""
    theirs = echo.open()[0]
    echo.send(DATA, u32(theirs), string("x"))
    echo.read_data(7, 1)
    echo.send(192)
    echo.expect(UNIMPLEMENTED)
    echo.send(CLOSE, u32(theirs))
    echo.expect(CLOSE, EOF)
    assert set(echo.seen) <= {20, 31, 21, 6, 52, CONFIRMATION, DATA, UNIMPLEMENTED, CLOSE}
    assert {name for name in echo.read_init(echo.peer_init)["cipher_to_client"].split(",")
            if "@" not in name} == set()
