"""
Reads SPL: which fields a search takes, from which signals, and which columns come out of it.

Not all of SPL, and no search is run: the commands, functions and options that the app uses. What is not known here is
an error, so that nothing passes by not being understood.
"""

from __future__ import annotations

from dashboards.spl.errors import SplError
from dashboards.spl.reader import read
from dashboards.spl.state import Column, State
from dashboards.spl.words import expand, fill, tokens

__all__ = ["Column", "SplError", "State", "expand", "fill", "read", "tokens"]
