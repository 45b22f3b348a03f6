"""
Run the whole suite as a worker runs the code: patched by gevent before anything else is imported.

What passes here and in a plain run holds under real threads and under greenlets. Arguments go to pytest.
"""

from gevent import monkey

monkey.patch_all()

import sys  # noqa: E402 - the patch comes first, that is the point
from pathlib import Path  # noqa: E402 - as above

import pytest  # noqa: E402 - as above

if __name__ == "__main__":
    # As `python -m pytest` would, and unlike a script, which has its own folder there.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    sys.exit(pytest.main(sys.argv[1:]))
