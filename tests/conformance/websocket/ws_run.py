# SPDX-License-Identifier: MIT
"""Plays one case of ws_cases.py on an open connection, and judges it."""
import ws_data
from ws_cases import INFORMATIONAL, QUIET_S, Await, Bulk, Quiet
from ws_wire import CLOSE, TEXT, TIMEOUT_S, Broken, close_payload

SHORT_COUNT = 10  # messages of a Bulk case in the short form


def nothing_comes(peer):
    try:
        event = peer.read(QUIET_S)
    except TimeoutError:
        return
    raise Broken(f"{event} came where nothing was expected")


def send_steps(peer, case):
    """All frames that follow each other leave in one write, unless the case says otherwise."""
    pending = b""
    for step in case.steps:
        if isinstance(step, (Quiet, Await)):
            peer.raw(pending, case.chop if isinstance(case.chop, int) else 0)
            pending = b""
            if isinstance(step, Quiet):
                nothing_comes(peer)
            elif (event := peer.read()) != step.event:
                raise Broken(f"{event} instead of {step.event}")
            continue
        data = peer.frame(step.opcode, step.payload, fin=step.fin, rsv=step.rsv)
        if case.chop == "frames":
            peer.raw(data)
        elif case.chunks:
            head = len(data) - len(step.payload)
            first, second = (head + at for at in case.chunks)
            peer.raw(data[:first])
            nothing_comes(peer)
            peer.raw(data[first:second])  # … and the rest never
        else:
            pending += data
    peer.raw(pending, case.chop if isinstance(case.chop, int) else 0)


def until_close(peer):
    """(events before the Close, its code). The Close must come before the connection ends."""
    events = []
    while True:
        event = peer.read()
        if event[0] == "close":
            return tuple(events), event[1]
        if event[0] == "end":
            raise Broken(f"the connection ended without a Close, after {events}")
        events.append(event)


def finish(peer):
    """After both Closes it is the server that ends the connection (RFC 6455 §7.1.1)."""
    while peer.is_client and peer.fill():
        peer.buffer.clear()
    peer.sock.close()


def play(peer, case):
    """(events, close code) of a case."""
    send_steps(peer, case)
    opcodes = [step.opcode for step in case.steps if hasattr(step, "opcode")]
    is_closing = CLOSE in opcodes or case.fails
    events = ()
    if not is_closing:
        while len(events) < len(case.want):
            events += (peer.read(),)
            if events[-1] != case.want[len(events) - 1]:
                break
        peer.send(CLOSE, close_payload(1000))
    more, code = until_close(peer)
    if case.fails:
        peer.send(CLOSE, close_payload(code))
    finish(peer)
    return events + more, code


def play_bulk(peer, case, count):
    is_text = case.opcode == TEXT
    if bool(peer.deflate) != bool(case.deflate):
        return "UNIMPLEMENTED", "no permessage-deflate"
    for payload in ws_data.messages(case.data, is_text, case.size, min(case.count, count)):
        if case.chop:
            peer.send(case.opcode, payload, chop=case.chop)
        else:
            peer.send_message(case.opcode, payload, case.fragment)
        event = peer.read()
        if event != ("message", case.opcode, payload):
            return "FAILED", f"{event[:2]} of {len(event[-1])} bytes came back"
    peer.send(CLOSE, close_payload(1000))
    events, code = until_close(peer)
    finish(peer)
    return ("OK", "") if events == () and code == 1000 else ("FAILED", f"{events[:1]} then {code}")


def judge(case, events, code):
    if events != case.want:
        return "FAILED", f"got {events}, wanted {case.want}"
    if code not in case.codes:
        return "WRONG CODE", f"{code} instead of {case.codes}"
    return ("INFORMATIONAL" if case.id in INFORMATIONAL else "OK"), ""


def run(peer, case, count=SHORT_COUNT):
    """(verdict, why)"""
    try:
        if isinstance(case, Bulk):
            return play_bulk(peer, case, count)
        return judge(case, *play(peer, case))
    except Broken as error:
        return "FAILED", str(error)
    except TimeoutError:
        return "FAILED", f"nothing within {TIMEOUT_S} s"
    except UnicodeDecodeError:
        return "FAILED", "a Close whose reason is not UTF-8"
