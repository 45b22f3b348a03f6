"""
`collector hec`: how large the buffer for Splunk has to be, and how many endpoints of HEC it takes.
"""

from __future__ import annotations

import click

from collector.cli.hec_size import size_command
from collector.cli.hec_tune import tune_command


@click.group("hec")
def hec() -> None:
    """Find out what Splunk's HTTP Event Collector needs: tune the buffer, and size the endpoints."""


hec.add_command(tune_command)
hec.add_command(size_command)
