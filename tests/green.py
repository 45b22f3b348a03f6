"""
Run the tests of what runs in a worker as a worker runs it: patched by gevent before anything else is imported.

What passes here and in a plain run holds under real threads and under greenlets. Tests that start or fork processes
of their own stay out: a worker never forks, and gevent's patched fork and waitpid wait for a hub that does not turn
there. Arguments go to pytest.
"""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402 - the patch comes first, that is the point
from pathlib import Path  # noqa: E402 - as above

import pytest  # noqa: E402 - as above

TESTS = (
    "admission", "buffer", "contracts", "delivery", "flows", "protocols", "sinks", "telemetry",
    "receiver/test_app.py", "receiver/test_together.py", "receiver/test_upload.py",
    "test_aws_role.py",
)  # fmt: skip
FORKING = (
    "flows/test_death.py",
    "flows/test_homecoming.py",
    "sinks/test_s3.py",
    "sinks/test_s3_source.py",
    "telemetry/hec/test_processes.py",
    "telemetry/test_ledger.py::test_counters_are_read_while_they_are_written",
)

if __name__ == "__main__":
    # As `python -m pytest` would, and unlike a script, which has its own folder there.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    asked = any(not argument.startswith("-") for argument in sys.argv[1:])
    # The contract of the s3: sink runs a server.
    named = [] if asked else ["-k", "not s3", *(f"tests/{name}" for name in TESTS)]
    sys.exit(pytest.main([*sys.argv[1:], *named, *(f"--deselect=tests/{name}" for name in FORKING)]))
