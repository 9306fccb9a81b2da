# SPDX-License-Identifier: MIT
"""Numbered server-sent events: each must come once and in order."""
import re
import time


def serve(service, seconds):
    """Twenty a second at /events; returns how many."""
    count = int(seconds * 20)

    def route(conn, request):
        conn.read_body(request)
        conn.start_chunked("text/event-stream")
        for n in range(count):
            conn.chunk(b"data: %d\n\n" % n)
            time.sleep(0.05)
        conn.end_chunks()
        return True
    service.on("/events", route)
    return count


def check(response, count):
    got = [int(n) for n in re.findall(rb"data: (\d+)\n\n", response.body)]
    assert response.is_complete and got == list(range(count)), f"{len(got)} of {count}"
