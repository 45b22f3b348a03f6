"""
What stands for AWS is asked by a boto3 of ours, which owes nothing to Collector's, with credentials of no value.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from functools import cache
from typing import Any

ACCESS_KEY, SECRET_KEY, REGION = "AKIDSTANDIN", "a-secret-of-no-value", "us-east-1"
#: What an SDK needs to know of a stand-in, and nothing of the machine's own.
ENVIRON: Mapping[str, str] = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_DEFAULT_REGION": REGION,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "NO_PROXY": "127.0.0.1",
}


#: A session makes one client at a time.
_ONE_AT_A_TIME = threading.Lock()


@cache
def _session() -> Any:
    """Make a session once: each reads anew what AWS's services are, which takes longer than all calls of a test."""
    import boto3

    return boto3.session.Session()


def client(service: str, port: int, *, access_key: str = ACCESS_KEY, attempts: int = 5, read_s: float = 60.0) -> Any:
    """Make a client of a service on a port of loopback; with one attempt, what comes of a call is seen as it comes."""
    from botocore.config import Config

    with _ONE_AT_A_TIME:
        return _session().client(
            service,
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name=REGION,
            aws_access_key_id=access_key,
            aws_secret_access_key=SECRET_KEY,
            config=Config(
                s3={"addressing_style": "path"}, retries={"total_max_attempts": attempts}, read_timeout=read_s
            ),
        )
