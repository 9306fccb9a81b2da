# SPDX-License-Identifier: MIT
"""Python's own HTTP clients as a consumer: consumer.py http.client|urllib MODE URL [FILE].

`get` and `post FILE` write the body to stdout piece by piece as it comes. The Authorization field's
value is read from AUTHORIZATION. Ends with 3 when the answer was cut, as each client tells it.
"""
import http.client
import os
import sys
import urllib.parse
import urllib.request

CUT = 3
FIELDS = {"Authorization": os.environ["AUTHORIZATION"]}


def open_http_client(url, data):
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    # An iterable without a length goes out in chunks.
    body = iter(lambda: data.read(65536), b"") if data else None
    connection.request("POST" if data else "GET", target, body, FIELDS, encode_chunked=True)
    return connection.getresponse()


def open_urllib(url, data):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    fields = dict(FIELDS)
    if data:
        fields["Content-Length"] = str(os.fstat(data.fileno()).st_size)
        fields["Content-Type"] = "application/octet-stream"
    return opener.open(urllib.request.Request(url, data, fields), timeout=60)


def main(client, mode, url, path=None):
    data = open(path, "rb") if mode == "post" else None  # noqa: SIM115 - ends with the process
    response = (open_urllib if client == "urllib" else open_http_client)(url, data)
    left = response.length
    try:
        while piece := response.read1(65536):
            os.write(1, piece)
            left = left - len(piece) if left is not None else None
    except http.client.IncompleteRead:
        return CUT
    # read1() reports a short body by returning nothing.
    return CUT if left else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
