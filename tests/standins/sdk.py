"""
What stands for AWS is asked by a boto3 of ours, which owes nothing to Collector's, with credentials of no value.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
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


def client(service: str, port: int, *, access_key: str = ACCESS_KEY, attempts: int = 5) -> Any:
    """Make a client of a service on a port of loopback; with one attempt, what comes of a call is seen as it comes."""
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(
        service,
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name=REGION,
        aws_access_key_id=access_key,
        aws_secret_access_key=SECRET_KEY,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": attempts}),
    )
