"""Requests that are a little odd, by hand: one family after the other, each by the name of what is odd in it."""

from __future__ import annotations

import gzip
import json
import zlib
from itertools import product

import brotli  # type: ignore[import-untyped]  # ships no types
import zstandard

from tests.doors.pair import MAX_EVENT, MAX_EVENTS, MAX_HEAD, MAX_INFLATED, MAX_UPLOAD

LINE = b"POST /v1/events HTTP/1.1"
HOST = b"Host: collector.test"
KEY = b"Authorization: Bearer dev-key"
JSON = b"Content-Type: application/json"
BODY = b'[{"id":"a","n":1},{"n":2}]'
RECORDS = b'{"d":[{"type":"event","identity":"u","ts":1700000000,"evtName":"e","evtData":{"n":1}},{"type":"x"}]}'
CLEVER_LINE = b"POST /1/upload HTTP/1.1"
CLEVER = (b"X-CleverTap-Account-Id: ACC-1", b"X-CleverTap-Passcode: clever-key")

Requests = dict[str, bytes]


def request(*fields: bytes, line: bytes = LINE, body: bytes = BODY, length: bytes | None = None) -> bytes:
    """Write a request; its Content-Length comes last, as it is or as `length` says."""
    return b"\r\n".join([line, *fields, b"Content-Length: " + (length or b"%d" % len(body)), b"", body])


def bare(*fields: bytes, line: bytes = LINE, body: bytes = BODY) -> bytes:
    """Write a request without a Content-Length of its own."""
    return b"\r\n".join([line, *fields, b"", body])


PLAIN = request(HOST, KEY, JSON)
CLEVERTAP = request(HOST, *CLEVER, JSON, line=CLEVER_LINE, body=RECORDS)
KEYED = request(HOST, line=b"POST /v1/events?key=dev-key HTTP/1.1")
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = bare(HOST, KEY, b"Transfer-Encoding: chunked", body=b"1a\r\n" + BODY + b"\r\n0\r\n\r\n")


def named(*requests: bytes) -> Requests:
    """Name each by itself, as far as it is short."""
    return {repr(one)[2:-1][:150]: one for one in requests}


def _sound() -> Requests:
    origin = b"Origin: https://shop.test"
    return {
        "plain": PLAIN,
        "clevertap": CLEVERTAP,
        "a key in the query": KEYED,
        "a Basic user name": request(HOST, b"Authorization: Basic ZGV2LWtleTo="),
        "X-Collector-Key": request(HOST, b"X-Collector-Key: dev-key"),
        "an Origin": request(HOST, KEY, origin),
        "an Origin, and clevertap": request(HOST, *CLEVER, origin, line=CLEVER_LINE, body=RECORDS),
        "an Origin, and refused": request(HOST, origin),
        "an unknown key": request(HOST, b"Authorization: Bearer nobody"),
        "an unknown account": request(HOST, b"X-CleverTap-Account-Id: X", CLEVER[1], line=CLEVER_LINE, body=RECORDS),
        "a disabled tenant": request(HOST, b"Authorization: Bearer off-key"),
        "anonymise_ip": request(HOST, b"Authorization: Bearer hidden-key", b"X-Forwarded-For: 203.0.113.77"),
        "anonymise_ip, IPv6": request(HOST, b"Authorization: Bearer hidden-key", b"X-Forwarded-For: 2001:db8:1:2::7"),
        "a tenant that waits for its sink": request(HOST, b"Authorization: Bearer sunk-key"),
        "Collector-Ack: sink": request(HOST, KEY, b"Collector-Ack: sink"),
        "Collector-Ack: spool": request(HOST, b"Authorization: Bearer sunk-key", b"Collector-Ack: spool"),
        "over a quota": request(HOST, b"Authorization: Bearer tight-key") * 3,
        "over a quota, with an Origin": request(HOST, b"Authorization: Bearer tight-key", origin) * 3,
        "sent again within a window": request(HOST, b"Authorization: Bearer once-key") * 2,
        "clevertap sent again": CLEVERTAP * 2,
        "no body": request(HOST, KEY, body=b""),
        "only what is needed": request(HOST, b"X-Collector-Key:dev-key", body=b"{}"),
    }


#: Sound uploads, each one for the hot door.
HOT = _sound()

# -- lines and targets -------------------------------------------------------------------------------------

TARGETS = (
    b"/v1/events?", b"/v1/events??", b"/v1/events?key=dev-key", b"/v1/events?key=dev%2Dkey", b"/v1/events?key=",
    b"/v1/events?key=a&key=dev-key", b"/v1/events?key=dev-key&key=a", b"/v1/events?KEY=dev-key",
    b"/v1/events?%6bey=dev-key",
    b"/v1/events?a=1;key=dev-key", b"/v1/events?key=dev-key#key=a", b"/v1/events?key=dev+key", b"/v1/events?key=%ff",
    b"/v1/events?key=\xc3\xa9", b"/v1/events?\xff", b"/v1/events?key=dev-key%00", b"/v1/events?key=%E2%82%AC",
    b"/v1/events?&&",
    b"/v1/events?key=dev-key&", b"/v1/events?key", b"/v1/events?key=dev-key=", b'/v1/events?"<>\\^`{|}',
    b"/v1/events?a=%",
    b"/v1/events?a=%zz&key=dev-key", b"/v1/events?a=[1]&key=dev-key", b"/v1/events?/v1/events?key=dev-key",
    b"/v1/events/", b"//v1/events", b"/v1//events", b"/v1/./events", b"/v1/x/../events", b"/./v1/events",
    b"/v1/events/.",
    b"/v1/%65vents", b"/v1%2fevents", b"/v1%2Fevents", b"/%76%31/events", b"/v1/events%20", b"/v1/events%00",
    b"/v1/events%3f",
    b"/v1/events%3Fkey=dev-key", b"/v1/events%", b"/v1/events%2e", b"/v1/events;a=1", b"/v1/events#", b"/v1/events#a",
    b"/v1/events#?key=dev-key", b"/V1/EVENTS", b"/v1/event", b"/v1/eventss", b"/v1/events.json", b"/v1/\xc3\xa9vents",
    b"/v1/events\x7f", b"/v1/events\x01", b"/v1/events\t", b"/v1/ev\0ents", b"v1/events", b"*", b"", b"/", b"?",
    b"\\v1\\events",
    b"/1/upload", b"/1/upload/", b"/1/upload?a=1", b"/1//upload", b"/healthz", b"/readyz", b"/metrics", b"/ledger",
    b"http://collector.test/v1/events", b"http://other.test/v1/events", b"HTTP://collector.test/v1/events",
    b"http://collector.test/v1/events?key=dev-key", b"https://collector.test/v1/events", b"http:///v1/events",
    b"http://collector.test", b"http:/v1/events", b"ftp://a/v1/events", b"collector.test:80",
    b"//collector.test/v1/events",
    b"http://a@b/v1/events", b"http://[::1]/v1/events", b"http://[::1/v1/events", b"///v1/events",
    b"/http://a/v1/events",
    b":/v1/events", b"a:/v1/events", b"/v1/events?" + b"a" * 1500,
)  # fmt: skip
LINES = (
    b"POST  /v1/events HTTP/1.1", b"POST /v1/events  HTTP/1.1", b"POST\t/v1/events HTTP/1.1",
    b"POST /v1/events\tHTTP/1.1",
    b" POST /v1/events HTTP/1.1", b"\tPOST /v1/events HTTP/1.1", b"POST /v1/events HTTP/1.1 ",
    b"POST /v1/events HTTP/1.1\t",
    b"POST /v1/events", b"POST", b"POST ", b"", b"/v1/events", b"/v1/events HTTP/1.1", b"POST HTTP/1.1",
    b"POST/v1/events HTTP/1.1",
    b"POST /v1/events HTTP/1.0", b"POST /v1/events HTTP/0.9", b"POST /v1/events HTTP/2.0", b"POST /v1/events HTTP/2",
    b"POST /v1/events HTTP/1.2", b"POST /v1/events HTTP/1.10", b"POST /v1/events HTTP/1.", b"POST /v1/events HTTP/1",
    b"POST /v1/events HTTP/01.1", b"POST /v1/events http/1.1", b"POST /v1/events HTTP /1.1",
    b"POST /v1/events HTTP/1.1x",
    b"POST /v1/events HTTPS/1.1", b"POST /v1/events ICY/1.1", b"POST /v1/events HTTP/1,1", b"POST /v1/events HTTP/1 .1",
    b"POST /v1/events a HTTP/1.1", b"POST /v1/events HTTP/1.1 HTTP/1.1", b"POST /v1/events \x0bHTTP/1.1",
    b"post /v1/events HTTP/1.1", b"Post /v1/events HTTP/1.1", b"POS /v1/events HTTP/1.1", b"POSTS /v1/events HTTP/1.1",
    b"PO\0ST /v1/events HTTP/1.1", b"P\xd6ST /v1/events HTTP/1.1", b"P-OST /v1/events HTTP/1.1",
    b"P@ST /v1/events HTTP/1.1",
    b"GET /v1/events HTTP/1.1", b"GET /v1/events?key=dev-key HTTP/1.1", b"HEAD /v1/events HTTP/1.1",
    b"HEAD /healthz HTTP/1.1",
    b"PUT /v1/events HTTP/1.1", b"DELETE /v1/events HTTP/1.1", b"PATCH /1/upload HTTP/1.1",
    b"OPTIONS /v1/events HTTP/1.1",
    b"OPTIONS /1/upload HTTP/1.1", b"OPTIONS * HTTP/1.1", b"CONNECT /v1/events HTTP/1.1",
    b"CONNECT collector.test:80 HTTP/1.1",
    b"TRACE /v1/events HTTP/1.1", b"BREW /v1/events HTTP/1.1", b"PRI * HTTP/2.0", b"GET /healthz HTTP/1.1",
    b"POST /healthz HTTP/1.1",
    b"HTTP/1.1 200 OK", b"POST /v1/events HTTP/1.1\r", b"POST /v1/events HTTP/1.1\n", b"POST /v1/events HTTP/1.1\0",
    b"POST /v1/events HTTP/1.1\r\n", b"\r\nPOST /v1/events HTTP/1.1", b"\nPOST /v1/events HTTP/1.1",
    b"\rPOST /v1/events HTTP/1.1",
    b"\r\n\r\nPOST /v1/events HTTP/1.1", b"\0POST /v1/events HTTP/1.1", b"\xef\xbb\xbfPOST /v1/events HTTP/1.1",
    b"\x16\x03\x01\x02\0",
)  # fmt: skip


def lines() -> Requests:
    """Write request lines in every way."""
    return named(
        *(request(HOST, KEY, line=b"POST %s HTTP/1.1" % target) for target in TARGETS),
        *(request(HOST, line=b"POST %s HTTP/1.1" % target) for target in TARGETS if b"key" in target),
        *(request(HOST, KEY, line=line) for line in LINES),
        *(bare(HOST, b"Origin: https://shop.test", line=line, body=b"") for line in LINES if b"HTTP/1.1" in line),
        bare(
            HOST, b"Origin: https://a.test", b"Access-Control-Request-Method: POST", line=b"OPTIONS /v1/events HTTP/1.1"
        ),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    )


# -- fields ------------------------------------------------------------------------------------------------

#: For each field that Collector or gunicorn looks at, values that are odd or not.
VALUES: dict[bytes, tuple[bytes, ...]] = {
    b"Authorization": (
        b"Bearer dev-key", b"bearer dev-key", b"BEARER dev-key", b"Bearer  dev-key", b"Bearer\tdev-key",
        b"Bearer dev-key ",
        b"Bearer", b"Bearer ", b"", b"dev-key", b"Bearer dev-key, Bearer x", b"Bearer \xc3\xa9", b"Bearer \xff",
        b'Bearer "dev-key"',
        b"Basic ZGV2LWtleTo=", b"basic ZGV2LWtleTo=", b"Basic ZGV2LWtleTp4", b"Basic ZGV2LWtleQ==",
        b"Basic ZGV2LWtleTo", b"Basic ====",
        b"Basic \xff", b"Basic", b"Digest a=b", b"Token dev-key", b"Bearer dev-key\x0b", b"Bearer dev-key\x7f",
    ),
    b"X-Collector-Key": (b"dev-key", b" dev-key ", b"", b"DEV-KEY", b"dev-key,dev-key", b"\xff", b"hidden-key"),
    b"Content-Type": (
        b"application/json", b"APPLICATION/JSON", b"text/plain", b"", b"application/x-ndjson",
        b"application/x-www-form-urlencoded",
        b"multipart/form-data; boundary=a", b"application/json; charset=latin-1", b"\xff", b"a/b, c/d",
        b"application/cloudevents+json",
    ),
    b"Content-Encoding": (b"identity", b"", b"IDENTITY", b"gzip", b"br", b"gzip, gzip", b"aes128gcm", b"\xff"),
    b"Collector-Ack": (b"spool", b"SPOOL", b" spool ", b"sink", b"", b"none", b"spool, sink", b"spool,spool", b"\xff"),
    b"X-Forwarded-For": (
        b"203.0.113.7", b"198.51.100.1, 203.0.113.7", b"203.0.113.7,", b",203.0.113.7", b"", b",", b"unknown",
        b"203.0.113.7:4711",
        b"[2001:db8::1]:4711", b"2001:db8::1", b"2001:DB8:0:0::1", b"203.0.113.7 , x", b"\xff", b"203.0.113.007",
        b"x" * 300,
    ),
    b"Origin": (
        b"https://shop.test", b"null", b"", b"*", b"https://a.test https://b.test", b"\xff", b"https://shop.test ",
        b"a\tb",
    ),
    b"Host": (
        b"collector.test", b"", b"collector.test:80", b"a b", b"a,b", b"\xff", b"[::1]", b"user@host", b"/",
        b"other.test", b"a" * 300,
        b"collector.test:0", b"collector.test:080", b"collector.test:00080", b"collector.test:65535",
        b"collector.test:65536",
        b"collector.test:99999", b"collector.test:", b":80", b"a..b", b".a", b"a.", b".", b"-", b"a" * 63, b"a" * 64,
        b"a" * 64 + b".b",
        b"1.2.3.4:8080", b"0", b"xn--a", b"XN--nxasmq6b.test", b"COLLECTOR.TEST", b"[::1]:80", b"[::1%25a]", b"a_b",
        b"a:b", b"a%41", b"a" * 60 + b"." + b"b" * 200,
    ),
    b"Connection": (
        b"close", b"Close", b"CLOSE", b" close ", b"keep-alive", b"Keep-Alive", b"keep-alive, close",
        b"close, keep-alive", b"close,close",
        b"upgrade", b"Upgrade, close", b"foo", b"", b",", b"close,", b"closed", b"x-close", b"te, close",
        b"content-length",
        b"close, content-length", b"\xff", b'"close"', b"close;q=0", b"keep-alive\t", b"\tclose",
    ),
    b"Upgrade": (b"h2c", b"websocket", b"", b"TLS/1.0", b"h2c, websocket"),
    b"Expect": (b"100-continue", b"100-Continue", b"", b"100-continue, x", b"200-ok", b" 100-continue "),
    b"Transfer-Encoding": (
        b"chunked", b"Chunked", b"identity", b"gzip", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked", b"",
        b"xchunked", b"chunked ",
        b"chunked;a", b"\x0bchunked", b"'chunked'", b"identity, chunked", b"deflate", b"compress, chunked", b"br",
        b",chunked", b"chunked,",
    ),
    b"TE": (b"trailers", b"chunked", b""),
    b"Trailer": (b"X-A", b"Content-Length"),
    b"X-Forwarded-Proto": (b"https", b"http", b""),
    b"X-Forwarded-Ssl": (b"on",),
    b"X-Forwarded-Host": (b"evil.test",),
    b"Forwarded": (b"for=203.0.113.9",),
    b"X-Real-IP": (b"203.0.113.9",),
    b"X-HTTP-Method-Override": (b"GET", b"PUT"),
    b"Script-Name": (b"/v1", b"/x"),
    b"Script_Name": (b"/v1",),
    b"Path-Info": (b"/1/upload",),
    b"Path_Info": (b"/1/upload",),
    b"Remote-Addr": (b"203.0.113.9",),
    b"Remote-User": (b"root",),
    b"Proxy": (b"http://evil.test",),
    b"Query-String": (b"key=dev-key",),
    b"Wsgi.input": (b"x",),
    b"Cookie": (b"a=b", b"a=b; c=d", b""),
    b"Accept-Encoding": (b"gzip", b"br"),
    b"Content-Length": (),
    b"Accept": (b"*/*", b"application/json"),
    b"If-Match": (b"*",),
    b"Range": (b"bytes=0-1",),
    b"Keep-Alive": (b"timeout=1", b""),
    b"Proxy-Connection": (b"close", b"keep-alive"),
    b"HTTP2-Settings": (b"AAMAAABkAAQAoAAAAAIAAAAA",),
    b"X-CleverTap-Account-Id": (b"ACC-1", b"acc-1", b"", b"ACC-1, ACC-1", b"\xff"),
    b"X-CleverTap-Passcode": (b"clever-key", b"", b" clever-key"),
}  # fmt: skip
LENGTHS = (
    b"%d", b"+%d", b"-%d", b"0%d", b"00000000000000000000%d", b"%d0", b"%d,%d", b"%d, %d", b"0x%x", b"%d_0", b"%d.0",
    b"%d ", b" %d", b"\t%d",
    b"  %d  ", b"%d\t", b"%d\x0b", b"\xb2%d", b"%d;", b"%d\0", b"", b" ", b"0", b"-0", b"+0", b"1", b"1e1", b"a",
    b"%d a", b"%d\r", b"\r\n %d",
    b"99999999999999999999999", b"18446744073709551616", b"18446744073709551615", b"9223372036854775808", b"4294967296",
    b"999999999",
    b"1000000000", b"000000000%d", b"\xef\xbc\x91", b"'%d'",
)  # fmt: skip


def written(pattern: bytes, number: int) -> bytes:
    """Write a number in one of the ways of `LENGTHS`."""
    return pattern % ((number,) * pattern.count(b"%")) if b"%" in pattern else pattern


def lengths() -> Requests:
    """Write the Content-Length in every way, once and twice."""
    texts = [written(pattern, len(BODY)) for pattern in LENGTHS]
    right = b"%d" % len(BODY)
    return named(
        *(request(HOST, KEY, length=length or b" ") for length in texts),
        *(bare(HOST, KEY, b"content-length:" + length) for length in texts),
        *(bare(b"CONTENT-LENGTH: " + length, HOST, KEY, line=CLEVER_LINE) for length in texts),
        *(request(HOST, KEY, b"Content-Length: " + length) for length in texts),
        *(bare(HOST, b"Content-Length: " + right, KEY, b"content-length: " + length) for length in texts),
        *(request(HOST, KEY, length=b"%d" % (len(BODY) + off)) for off in (-len(BODY), -5, -1, 1, 5, 1000)),
        *(
            bare(HOST, KEY, name + b": " + right)
            for name in (b"Content_Length", b"Content-length ", b"Content-Length\t", b" Content-Length")
        ),
        bare(HOST, KEY),
        bare(HOST, KEY, body=b""),
        request(HOST, KEY, b"Content-Length: " + right, b"Content-Length: " + right),
    )


def values() -> Requests:
    """Give each field each of its values: beside the key, instead of it, and of the field that is there already."""
    found = []
    for name, texts in VALUES.items():
        for text in texts:
            field = name + b": " + text
            others = [one for one in (HOST, KEY) if not one.startswith(name + b":")]
            found += [request(*others, field), request(field, *others)]
            if name in {b"Origin", b"X-Forwarded-For", b"Connection"}:
                found.append(request(*others, field, line=CLEVER_LINE, body=RECORDS))
            if name in {b"Connection", b"Expect"}:
                found.append(request(*others, field, line=b"POST /v1/events HTTP/1.0"))
                found.append(request(*others, field, body=b"") + PLAIN)
            if name == b"X-Collector-Key":
                found.append(request(HOST, field))
            if name.startswith(b"X-Clever"):
                found.append(
                    request(
                        HOST,
                        *(one for one in CLEVER if not one.startswith(name)),
                        field,
                        line=CLEVER_LINE,
                        body=RECORDS,
                    )
                )
            if name == b"Transfer-Encoding":
                chunks = b"1a\r\n" + BODY + b"\r\n0\r\n\r\n"
                found += [
                    bare(HOST, KEY, field, body=chunks),
                    bare(HOST, KEY, field, line=b"POST /v1/events HTTP/1.0", body=chunks),
                ]
    return named(*found)


def doubles() -> Requests:
    """Send each field twice: the same, another, apart, in another case, with an underscore."""
    found = []
    for name, texts in VALUES.items():
        if not texts:
            continue
        first, second = name + b": " + texts[0], name.lower() + b": " + texts[min(1, len(texts) - 1)]
        last = name.swapcase() + b":" + texts[-1]
        others = [one for one in (HOST, KEY) if not one.startswith(name + b":")]
        found += [
            request(*others, first, first), request(*others, first, second), request(*others, second, first),
            request(first, *others, last), request(last, *others, JSON, first), request(first, *others, second, last),
            request(*others, first, name + b":"), request(*others, name + b": ", first),
            request(*others, first, name.replace(b"-", b"_") + b": " + texts[-1]),
            request(*others, name.replace(b"-", b"_") + b": " + texts[0]),
        ]  # fmt: skip
    return named(
        *found,
        request(HOST, b"X-A-b: 1", b"X-A_b: 2", KEY),
        request(HOST, b"X_Collector_Key: dev-key"),
        request(HOST, b"X_Collector_Key: hidden-key", b"X-Collector-Key: dev-key"),
        request(HOST, KEY, b"X_Forwarded_For: 203.0.113.7"),
        request(HOST, b"X-CleverTap-Account_Id: ACC-1", CLEVER[1], line=CLEVER_LINE, body=RECORDS),
        request(HOST, *CLEVER, *CLEVER, line=CLEVER_LINE, body=RECORDS),
        request(HOST, KEY, b"X-Collector-Key: hidden-key"),
        request(HOST, KEY, line=b"POST /v1/events?key=hidden-key HTTP/1.1"),
    )


#: Fields that are no fields, or look like none.
FIELDS = (
    b"X-A:b", b"X-A: b", b"X-A:  b  ", b"X-A:\tb\t", b"X-A: \t b", b"X-A:", b"X-A: ", b"X-A : b", b"X-A\t: b", b"X-A",
    b"", b" X-A: b", b"\tX-A: b",
    b":", b": b", b":b", b"=: b", b"(X): b", b"X A: b", b"X\0A: b", b"X-A: b\0c", b"X-A: b\x01c", b"X-A: b\x0bc",
    b"X-A: b\x0cc", b"X-A: b\x7f",
    b"X-A: \xe9", b"X-\xe9: b", b"X-A: \xc3\xa9", b"X-A: b\r\n c", b"X-A: b\r\n\tc", b"X-A: b\r\n \r\n c",
    b"X-A: b\nX-B: c", b"X-A: b\rX-B: c",
    b"X-A: b\n", b"X-A: b\r", b"\nX-A: b", b"\rX-A: b", b"X-A: b\n\nGET /healthz HTTP/1.1\n", b"X_A: b", b"X.A: b",
    b"X~A: b", b"X-A: b: c",
    b"X-A:: b", b"!#$%&'*+.^_`|~: b", b'"X": b', b"X/A: b", b"X@A: b", b"x" * 200 + b": b", b"X-A: " + b"b" * 1000,
    b"{X}: b", b"0: b", b"-: b", b"_: b",
    b"X-A: \xff\xfe", b"X-A: \x80", b"X-A: b\x85", b"X-A: b\xa0", b"X-A: \xa0b", b"\xa0X-A: b", b"X-A: b\x1f",
    b"X-A: \x1c", b"X-A: b\x0b", b"X-A: \x0cb",
)  # fmt: skip


def fields() -> Requests:
    """Put a strange line first, among the others and last; and strange white space round the fields that matter."""
    places = ((), (HOST,), (HOST, KEY, JSON))
    whole = (HOST, KEY, JSON)
    spaced = [
        name + gap + value + end
        for (name, value), gap, end in product(
            ((b"Authorization", b"Bearer dev-key"), (b"X-Collector-Key", b"dev-key"), (b"Collector-Ack", b"spool"),
             (b"Content-Encoding", b"identity"), (b"Origin", b"https://a.test"), (b"Connection", b"close")),
            (b":", b": ", b":  ", b":\t", b":\t ", b" : ", b":\x0b", b":\x0c", b":\xa0", b":\x1f"),
            (b"", b" ", b"\t", b" \t ", b"\x0b", b"\xa0", b"\x1f"),
        )
    ]  # fmt: skip
    return named(
        *(request(*before, field, *whole[len(before) :]) for field in FIELDS for before in places),
        *(request(HOST, *(() if one[:1] in b"AX" else (KEY,)), one) for one in spaced),
        *(PLAIN.replace(b"\r\n", b"\n", count) for count in (1, 2, 3, 4, 5)),
        *(PLAIN.replace(b"\r\n", end) for end in (b"\n", b"\r", b"\n\r", b"\r\r\n", b"\r\n ")),
        *(PLAIN.replace(b"\r\n\r\n", end) for end in (b"\n\n", b"\r\n\n", b"\n\r\n", b"\r\r", b"\r\n\r")),
        *(PLAIN.replace(b"\r\n\r\n", end) for end in (b"\r\n \r\n\r\n", b"\r\n\t\r\n\r\n")),
        *(request(*(one.lower() if low else one.upper() for one in (HOST, JSON)), KEY) for low in (True, False)),
        request(HOST, b"authorization: Bearer dev-key"),
        request(HOST, b"AUTHORIZATION: Bearer dev-key"),
        request(HOST, b"aUTHORIZATION: Bearer dev-key"),
        request(JSON, KEY, HOST),
        request(KEY),
        request(KEY, line=b"POST /v1/events HTTP/1.0"),
        bare(HOST, b"CONTENT-LENGTH: %d" % len(BODY), KEY),
    )  # fmt: skip


# -- bodies ------------------------------------------------------------------------------------------------


def _event(size: int) -> bytes:
    return b'{"x":"' + b"y" * (size - 8) + b'"}'


def _packed(body: bytes) -> dict[bytes, bytes]:
    raw = zlib.compressobj(wbits=-15)
    return {
        b"gzip": gzip.compress(body, mtime=0),
        b"x-gzip": gzip.compress(body, mtime=0),
        b"deflate": zlib.compress(body),
        b"Deflate": raw.compress(body) + raw.flush(),
        b"br": brotli.compress(body),
        b"zstd": zstandard.compress(body),
    }


def bodies() -> Requests:
    """Send what is JSON and what is not, packed, badly packed, at every limit and one beyond."""
    texts = {
        "an object": b'{"id":"a"}', "an array": BODY, "events": b'{"events":[{"id":"a"},{"id":"b"}]}',
        "NDJSON": b'{"id":"a"}\n{"id":"b"}\n',
        "an empty array": b"[]", "an empty object": b"{}", "nothing": b"", "blanks": b" \r\n\t ",
        "a line break": b"\r\n", "no JSON": b"hello",
        "a string": b'"a"', "numbers": b"[1,2]", "mixed": b'[{"id":"a"},1,{"id":"b"},"x",null]',
        "cut off": b'[{"id":"a"}', "a BOM": b"\xef\xbb\xbf{}",
        "UTF-16": '{"a":1}'.encode("utf-16"), "bad UTF-8": b'{"a":"\xff"}', "NUL": b'{"a":"\0"}',
        "deep": b"[" * 5000 + b"]" * 5000,
        "line breaks within": b'[\r\n{"id":\r\n"a"\n}\n]', "a form": b"e=%7B%7D&key=dev-key",
        "two documents": b'[{"id":"a"}][{"id":"b"}]',
        "the same id twice": b'[{"id":"a"},{"id":"a"}]', "an id that is a number": b'[{"id":1}]',
        "other ids": b'[{"messageId":"m"},{"uuid":"u"}]',
        "a request": PLAIN, "CR LF CR LF": b'[{"a":"\r\n\r\n"}]', "a surrogate": b'{"id":"\\ud800"}',
        "a long id": b'{"id":"' + b"i" * 600 + b'"}',
    }  # fmt: skip
    found = {name: request(HOST, KEY, body=body) for name, body in texts.items()}
    found |= {f"{name}, clevertap": request(HOST, *CLEVER, line=CLEVER_LINE, body=body) for name, body in texts.items()}
    for coding, packed in _packed(BODY).items():
        name, declared = coding.decode(), b"Content-Encoding: " + coding
        other = b"Content-Encoding: gzip" if coding == b"br" else b"Content-Encoding: br"
        found |= {
            f"{name}": request(HOST, KEY, declared, body=packed),
            f"{name}, clevertap": request(HOST, *CLEVER, declared, line=CLEVER_LINE, body=_packed(RECORDS)[coding]),
            f"{name}, undeclared": request(HOST, KEY, body=packed),
            f"{name}, cut off": request(HOST, KEY, declared, body=packed[:-3]),
            f"{name}, with a tail": request(HOST, KEY, declared, body=packed + b"x"),
            f"{name}, corrupt": request(HOST, KEY, declared, body=packed[:8] + bytes(8) + packed[16:]),
            f"{name}, twice": request(HOST, KEY, declared, body=packed * 2),
            f"{name}, not packed": request(HOST, KEY, declared),
            f"{name}, declared as another": request(HOST, KEY, other, body=packed),
            f"{name}, declared twice": request(HOST, KEY, declared, declared, body=packed),
            f"{name}, nothing": request(HOST, KEY, declared, body=b""),
            f"{name}, a bomb": request(HOST, KEY, declared, body=_packed(bytes(MAX_INFLATED * 4))[coding]),
        }
        for off in (0, 1):
            text = b"[" + b" " * (MAX_INFLATED - 2 + off) + b"]"
            found[f"{name}, {off} over the inflated limit"] = request(HOST, KEY, declared, body=_packed(text)[coding])
    return found


def limits() -> Requests:
    """Send as much as may be, and one more."""
    found: Requests = {}
    for off in (-1, 0, 1):
        plain = [HOST, KEY]
        found |= {
            f"a body, {off} over the limit": request(*plain, body=b"[" + b" " * (MAX_UPLOAD - 2 + off) + b"]"),
            f"events, {off} over the limit": request(*plain, body=json.dumps([{}] * (MAX_EVENTS + off)).encode()),
            f"bytes of an event, {off} over the limit": request(*plain, body=b"[{}," + _event(MAX_EVENT + off) + b"]"),
            f"a body read early, {off} over the limit": request(
                *plain, body=b"[" + b" " * (32 * 1024 - 2 + off) + b"]"
            ),
        }
        for line, more in ((LINE, (KEY,)), (CLEVER_LINE, CLEVER), (b"GET /healthz HTTP/1.1", ())):
            body = RECORDS if more is CLEVER else BODY if more else b""
            empty = request(HOST, *more, b"X-Pad: ", line=line, body=body)
            pad = MAX_HEAD + off - (len(empty) - len(body) - 4)
            few = [b"X-%d: y" % n for n in range(100 + off - 2 - len(more))]
            longest = line.replace(b" HTTP", b"?%s HTTP" % (b"a" * (MAX_HEAD - 2 - len(line) + off - 1)))
            place = line.decode()
            found |= {
                f"{place}, a head {off} over the limit": request(
                    HOST, *more, b"X-Pad: " + b"x" * pad, line=line, body=body
                ),
                f"{place}, fields {off} over the limit": request(HOST, *more, *few, line=line, body=body),
                f"{place}, a line about {off} over the limit": request(HOST, *more, line=longest, body=body),
            }
    return found


# -- several -----------------------------------------------------------------------------------------------

#: What may stand in a pipeline: hot ones, Flask's, refused ones and rubbish.
MIXED: Requests = {
    "hot": PLAIN,
    "hot, clevertap": CLEVERTAP,
    "hot, a key in the query": KEYED,
    "hot, and last": request(HOST, KEY, b"Connection: close"),
    "hot, refused": request(HOST),
    "hot, an empty body": request(HOST, KEY, body=b""),
    "hot, too large": request(HOST, KEY, length=b"%d" % (MAX_UPLOAD + 1)),
    "hot, cut off": PLAIN[:-4],
    "hot, half a head": PLAIN[:60],
    "GET": HEALTH,
    "GET with a body": bare(HOST, b"Content-Length: 3", line=b"GET /healthz HTTP/1.1", body=b"abc"),
    "HEAD": HEALTH.replace(b"GET", b"HEAD"),
    "preflight": bare(HOST, b"Origin: https://a.test", line=b"OPTIONS /v1/events HTTP/1.1", body=b""),
    "chunked": CHUNKED,
    "HTTP/1.0": PLAIN.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "expecting": request(HOST, KEY, b"Expect: 100-continue"),
    "nowhere": request(HOST, KEY, line=b"POST /nowhere HTTP/1.1"),
    "two lengths": request(HOST, KEY, b"Content-Length: 5"),
    "an empty line": b"\r\n",
    "rubbish": b"\0\xff rubbish\r\n\r\n",
}
