"""
The clients whose requests are recorded: each with its exact packages and the program that makes it upload.

A program finds the recorder's address in BASE (`http://127.0.0.1:PORT`), and uploads under the key `dev-key` where the
client has a place for it.
"""

from __future__ import annotations

from typing import NamedTuple

PYTHON, NODE, SHELL, PAGE = "python", "node", "sh", "chromium"


class Client(NamedTuple):
    """One client: `runs` is what runs its program, `packages` what that needs, pinned, from PyPI or npm."""

    name: str
    runs: str
    packages: tuple[str, ...]
    program: str


_PY_HEAD = """
import os, json, gzip
BASE = os.environ["BASE"]
HOST, PORT = BASE[7:].split(":")
EVENTS = [{"id": "e1", "name": "open"}, {"name": "close", "text": "caf\\u00e9"}]
BODY = json.dumps(EVENTS).encode()
KEY = {"Authorization": "Bearer dev-key"}
"""
_JS_HEAD = """
const BASE = process.env.BASE;
const EVENTS = [{id: "e1", name: "open"}, {name: "close", text: "caf\\u00e9"}];
const KEY = {Authorization: "Bearer dev-key"};
"""


def _python(name: str, packages: str, program: str) -> Client:
    return Client(name, PYTHON, tuple(packages.split()), _PY_HEAD + program)


def _node(name: str, packages: str, program: str) -> Client:
    return Client(name, NODE, tuple(packages.split()), f"{_JS_HEAD}(async () => {{{program}}})();")


CLIENTS = (
    # -- HTTP clients, at /v1/events
    _python(
        "http.client",
        "",
        """
from http.client import HTTPConnection
link = HTTPConnection(HOST, int(PORT))
for _ in range(2):
    link.request("POST", "/v1/events", BODY, KEY); link.getresponse().read()
link.request("POST", "/v1/events", iter([BODY[:10], BODY[10:]]), KEY, encode_chunked=True); link.getresponse().read()
""",
    ),
    _python(
        "urllib",
        "",
        """
from urllib.request import Request, urlopen
urlopen(Request(BASE + "/v1/events?key=dev-key", BODY)).read()
urlopen(Request(BASE + "/v1/events", BODY, {"x-collector-key": "dev-key", "content-type": "application/json"})).read()
""",
    ),
    _python(
        "requests",
        "requests==2.34.2",
        """
import requests
with requests.Session() as session:
    session.post(BASE + "/v1/events", json=EVENTS, headers=KEY)
    session.post(BASE + "/v1/events", data=gzip.compress(BODY, mtime=0), headers=KEY | {"Content-Encoding": "gzip"})
    session.post(BASE + "/v1/events", json=EVENTS, auth=("dev-key", ""))
    session.post(BASE + "/v1/events", data={"e": BODY.decode()}, params={"key": "dev-key"})
    session.post(BASE + "/v1/events", data=iter([BODY]), headers=KEY)
""",
    ),
    _python(
        "httpx",
        "httpx==0.28.1",
        """
import httpx
with httpx.Client() as client:
    client.post(BASE + "/v1/events", json=EVENTS, headers=KEY)
    client.post(BASE + "/v1/events", content=BODY, headers={"X-Collector-Key": "dev-key", "Collector-Ack": "sink"})
""",
    ),
    _python(
        "aiohttp",
        "aiohttp==3.14.5",
        """
import aiohttp, asyncio
async def main():
    async with aiohttp.ClientSession() as session:
        await (await session.post(BASE + "/v1/events", json=EVENTS, headers=KEY)).read()
        await (await session.post(BASE + "/v1/events", data=BODY, headers=KEY, compress="deflate")).read()
        await (await session.post(BASE + "/v1/events", data=BODY, headers=KEY, expect100=True)).read()
asyncio.run(main())
""",
    ),
    _python(
        "urllib3",
        "urllib3==2.8.0",
        """
import urllib3
pool = urllib3.PoolManager()
pool.request("POST", BASE + "/v1/events", body=BODY, headers=KEY)
pool.request("POST", BASE + "/v1/events", json=EVENTS, headers=KEY)
""",
    ),
    Client(
        "curl",
        SHELL,
        (),
        r"""
body='[{"id":"e1","name":"open"},{"name":"close"}]'
curl -s "$BASE/v1/events" -H 'Authorization: Bearer dev-key' -d "$body"
curl -s "$BASE/v1/events" -u dev-key: --json "$body"
printf '{"id":"e1"}\n{"id":"e2"}\n' | gzip -n |
  curl -s "$BASE/v1/events" -H 'X-Collector-Key: dev-key' -H 'Content-Encoding: gzip' --data-binary @-
printf '%s' "$body" | curl -s -T - -X POST "$BASE/v1/events?key=dev-key"
curl -s "$BASE/v1/events?key=dev-key" -H 'Expect: 100-continue' --data-binary "$body"
curl -s -0 "$BASE/v1/events?key=dev-key" -d "$body"
""",
    ),
    Client(
        "wget",
        SHELL,
        (),
        r"""
wget -q -O - --header 'Authorization: Bearer dev-key' --post-data '[{"id":"e1"}]' "$BASE/v1/events"
""",
    ),
    _node(
        "node-http",
        "",
        """
const {request} = require("http");
const send = (options, parts) => new Promise(done => {
    const one = request(BASE + "/v1/events", {method: "POST", ...options}, r => r.resume().on("end", done));
    parts.forEach(part => one.write(part)); one.end();
});
const body = JSON.stringify(EVENTS);
await send({headers: {...KEY, "Content-Length": Buffer.byteLength(body)}}, [body]);
await send({headers: KEY}, [body]);
await send({headers: KEY, agent: false}, [body.slice(0, 9), body.slice(9)]);
""",
    ),
    _node(
        "node-fetch-of-node",
        "",
        """
const post = (body, headers) => fetch(BASE + "/v1/events", {method: "POST", body, headers}).then(r => r.text());
await post(JSON.stringify(EVENTS), KEY);
await post(JSON.stringify(EVENTS), {...KEY, "Content-Type": "application/json"});
await post(new Blob([JSON.stringify(EVENTS)]), KEY);
await post(new URLSearchParams({e: JSON.stringify(EVENTS)}), KEY);
""",
    ),
    _node(
        "undici",
        "undici@7.30.2",
        """
const {request} = require("undici");
const r = await request(BASE + "/v1/events", {method: "POST", body: JSON.stringify(EVENTS), headers: KEY});
await r.body.text();
""",
    ),
    _node(
        "axios",
        "axios@1.21.1",
        """
const axios = require("axios");
await axios.post(BASE + "/v1/events", EVENTS, {headers: KEY});
await axios.post(BASE + "/v1/events", EVENTS, {auth: {username: "dev-key", password: ""}});
""",
    ),
    _node(
        "got",
        "got@14.6.6",
        """
const {got} = await import("got");
await got.post(BASE + "/v1/events", {json: EVENTS, headers: KEY});
""",
    ),
    _node(
        "node-fetch",
        "node-fetch@3.3.2",
        """
const {default: fetch} = await import("node-fetch");
await (await fetch(BASE + "/v1/events", {method: "POST", body: JSON.stringify(EVENTS), headers: KEY})).text();
""",
    ),
    _node(
        "superagent",
        "superagent@10.4.2",
        """
await require("superagent").post(BASE + "/v1/events").set(KEY).send(EVENTS);
""",
    ),
    Client(
        "chromium",
        PAGE,
        (),
        """
const url = BASE + "/v1/events", body = JSON.stringify([{id: "e1", name: "open"}]);
navigator.sendBeacon(url + "?key=dev-key", body);
navigator.sendBeacon(url + "?key=dev-key", new Blob([body], {type: "application/json"}));
navigator.sendBeacon(url + "?key=dev-key", new URLSearchParams({e: body}));
navigator.sendBeacon(url + "?key=dev-key", new Uint8Array([91, 93]));
const send = (address, options) => fetch(address, {method: "POST", body, ...options}).catch(() => 0);
await send(url + "?key=dev-key", {keepalive: true});
await send(url, {headers: {Authorization: "Bearer dev-key", "Content-Type": "application/json"}});
await send(url, {headers: {"X-Collector-Key": "dev-key"}, credentials: "include"});
""",
    ),
    # -- SDKs, at the paths of their own
    _python(
        "segment-python",
        "segment-analytics-python==2.4.0",
        """
from segment.analytics.client import Client
for packed in (False, True):
    client = Client("dev-key", host=BASE, gzip=packed, timeout=5, max_retries=0)
    client.track("u1", "Opened", {"n": 1}); client.identify("u1", {"email": "a@example.test"}); client.flush()
""",
    ),
    _python(
        "rudder-python",
        "rudder-sdk-python==2.1.9",
        """
from rudderstack.analytics.client import Client
client = Client("dev-key", host=BASE, timeout=5, max_retries=0)
client.track("u1", "Opened", {"n": 1}); client.flush()
""",
    ),
    _python(
        "posthog-python",
        "posthog==7.91.1",
        """
from posthog import Posthog
for packed in (False, True):
    client = Posthog("dev-key", host=BASE, gzip=packed)
    client.capture("opened", distinct_id="u1", properties={"n": 1}); client.flush(); client.shutdown()
""",
    ),
    _python(
        "mixpanel-python",
        "mixpanel==5.4.1",
        """
from mixpanel import Consumer, Mixpanel
client = Mixpanel("dev-key", Consumer(events_url=BASE + "/track", people_url=BASE + "/engage", retry_limit=0))
for call in (lambda: client.track("u1", "Opened", {"n": 1}), lambda: client.people_set("u1", {"a": 1})):
    try: call()
    except Exception: pass
""",
    ),
    _python(
        "amplitude-python",
        "amplitude-analytics==1.3.0",
        """
from amplitude import Amplitude, BaseEvent
client = Amplitude("dev-key")
client.configuration.server_url = BASE + "/2/httpapi"
client.track(BaseEvent("opened", user_id="user-1")); client.flush(); client.shutdown()
""",
    ),
    _python(
        "snowplow-python",
        "snowplow-tracker==1.1.0",
        """
from snowplow_tracker import Emitter, PageView, Tracker
for method in ("post", "get"):
    emitter = Emitter(HOST, protocol="http", port=int(PORT), method=method, batch_size=1)
    Tracker("t", emitter, app_id="dev-key").track(PageView(page_url="https://example.test/")); emitter.flush()
""",
    ),
    _python(
        "otlp-python",
        "opentelemetry-exporter-otlp-proto-http==1.45.2 opentelemetry-sdk==1.45.2",
        """
import logging
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
provider = LoggerProvider()
provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(BASE + "/v1/logs", headers=KEY)))
logging.getLogger().addHandler(LoggingHandler(logger_provider=provider))
logging.warning("opened"); provider.force_flush(); provider.shutdown()
""",
    ),
    _node(
        "segment-node",
        "@segment/analytics-node@3.1.0",
        """
const {Analytics} = require("@segment/analytics-node");
const client = new Analytics({writeKey: "dev-key", host: BASE, maxRetries: 0});
client.track({userId: "u1", event: "Opened", properties: {n: 1}}); await client.closeAndFlush();
""",
    ),
    _node(
        "rudder-node",
        "@rudderstack/rudder-sdk-node@3.0.13",
        """
const Client = require("@rudderstack/rudder-sdk-node");
const client = new (Client.default || Client)("dev-key", {dataPlaneUrl: BASE});
client.track({userId: "u1", event: "Opened", properties: {n: 1}}); await client.flush();
setTimeout(() => process.exit(), 500);
""",
    ),
    _node(
        "posthog-node",
        "posthog-node@5.70.0",
        """
const {PostHog} = require("posthog-node");
const client = new PostHog("dev-key", {host: BASE});
client.capture({distinctId: "u1", event: "opened", properties: {n: 1}}); await client.shutdown();
""",
    ),
    _node(
        "amplitude-node",
        "@amplitude/analytics-node@1.5.73",
        """
const amplitude = require("@amplitude/analytics-node");
await amplitude.init("dev-key", {serverUrl: BASE + "/2/httpapi"}).promise;
await amplitude.track("opened", {n: 1}, {user_id: "user-1"}).promise;
""",
    ),
    _node(
        "mixpanel-node",
        "mixpanel@0.24.0",
        """
const client = require("mixpanel").init("dev-key", {host: BASE.slice(7), protocol: "http"});
await new Promise(done => client.track("opened", {distinct_id: "u1"}, done));
await new Promise(done => client.track_batch([{event: "a", properties: {}}, {event: "b", properties: {}}], done));
""",
    ),
    _node(
        "snowplow-node",
        "@snowplow/node-tracker@4.8.0",
        """
const {newTracker, buildPageView} = require("@snowplow/node-tracker");
const tracker = newTracker({namespace: "t", appId: "dev-key"}, {endpoint: BASE, bufferSize: 1});
tracker.track(buildPageView({pageUrl: "https://example.test/"}));
tracker.flush(); setTimeout(() => process.exit(), 500);
""",
    ),
    _node(
        "clevertap-node",
        "clevertap@1.3.0",
        """
const client = require("clevertap").init("ACC-1", "clever-key", "eu1");
for (const one of [client, ...Object.values(client)])
    if (one && one.apiEndpoint) one.apiEndpoint = BASE + "/1";
const record = {type: "event", identity: "u1", evtName: "opened", evtData: {n: 1}};
const upload = data => new Promise(done => client.upload(data, done));
await upload([record, {...record, ts: 1700000000}]);
await upload([{type: "profile", identity: "u1", profileData: {Name: "A"}}]);
""",
    ),
    _node(
        "cloudevents-node",
        "cloudevents@10.0.0",
        """
const {CloudEvent, HTTP, Mode, emitterFor, httpTransport} = require("cloudevents");
const event = new CloudEvent({source: "/a", type: "opened", data: {n: 1}});
for (const mode of [Mode.STRUCTURED, Mode.BINARY])
    await emitterFor(httpTransport(BASE + "/v1/events?key=dev-key"), {mode})(event);
""",
    ),
)
