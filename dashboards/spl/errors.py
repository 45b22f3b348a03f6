"""
What a search is refused with.
"""

from __future__ import annotations


class SplError(ValueError):
    """Raised when a search is not understood, or names what is not there; the message says which word."""
