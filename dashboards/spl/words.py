"""
The words of SPL: tokens of a dashboard, macros, the stages of a pipeline, and what a stage is made of.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

from dashboards.spl.errors import SplError

_TOKEN = re.compile(r"\$([A-Za-z_][\w.]*)(?:\|([a-z]+))?\$")
_MACRO = re.compile(r"`([^`]*)`")
#: A word of a stage: a string, a quoted field, a name (with the dots and braces that JSON gives it), a number with a
#: unit of time or as part of a relative time, an operator.
_WORD = re.compile(
    r"""\s*(?:
      (?P<string>"(?:\\.|[^"\\])*")
    | (?P<quoted>'[^']+')
    | (?P<name>[A-Za-z_][\w.:{}]*\*?|\*)
    | (?P<number>\d+(?:\.\d+)?(?:[a-z]+(?:@[a-z]+)?)?(?![\w.]))
    | (?P<mark><=|>=|!=|==|[=<>(),+\-*/%.@\[\]])
    )""",
    re.VERBOSE,
)
#: The same of eval, where a dot between names joins texts.
_EVAL_WORD = re.compile(
    r"""\s*(?:
      (?P<string>"(?:\\.|[^"\\])*")
    | (?P<quoted>'[^']+')
    | (?P<name>[A-Za-z_]\w*)
    | (?P<number>\d+(?:\.\d+)?(?![\w.]))
    | (?P<mark><=|>=|!=|==|[=<>(),+\-*/%.])
    )""",
    re.VERBOSE,
)
_PAIRS = {"(": ")", "[": "]"}

#: (kind, text): `string` and `quoted` without their quotes.
Word = tuple[str, str]


def tokens(text: str) -> set[tuple[str, str]]:
    """Return (name, filter) of each `$token|filter$` of a text."""
    return {(match[1], match[2] or "") for match in _TOKEN.finditer(text)}


def fill(text: str, known: Collection[str]) -> str:
    """Put a star where a token stands, in quotes where its filter quotes; SplError of one that nothing sets."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in known:
            raise SplError(f"nothing sets the token ${match[1]}$")
        return '"*"' if match[2] == "s" else "*"

    return _TOKEN.sub(value, text)


def expand(text: str, macros: Mapping[str, str]) -> str:
    """Put what macros stand for in their place."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in macros:
            raise SplError(f"there is no macro `{match[1]}`")
        return macros[match[1]]

    return _MACRO.sub(value, text)


def stages(text: str) -> list[str]:
    """Cut a pipeline at its bars, but those within quotes or brackets; a leading bar makes an empty first stage."""
    found, start, depth = [], 0, 0
    for at, mark in _marks(text):
        if mark in "[(":
            depth += 1
        elif mark in ")]":
            depth -= 1
        elif not depth:
            found.append(text[start:at].strip())
            start = at + 1
    if depth:
        raise SplError(f"brackets do not close: {text}")
    found.append(text[start:].strip())
    if not all(found[1:]):
        raise SplError(f"a stage is empty: {text}")
    return found


def _marks(text: str) -> Iterator[tuple[int, str]]:
    quoted = False
    for at, letter in enumerate(text):
        if letter == '"' and (not at or text[at - 1] != "\\"):
            quoted = not quoted
        elif not quoted and letter in "|[]()":
            yield at, letter
    if quoted:
        raise SplError(f"a quote does not close: {text}")


class Words:
    """The words of a stage, read from left to right."""

    def __init__(self, text: str, *, of_eval: bool = False) -> None:
        self._text = text
        self._words: list[Word] = []
        pattern = _EVAL_WORD if of_eval else _WORD
        at = 0
        while text[at:].strip():
            match = pattern.match(text, at)
            if match is None:
                raise SplError(f"not understood: {text[at:].strip()[:40]!r} in {text!r}")
            kind = str(match.lastgroup)
            word = match[kind]
            self._words.append((kind, word[1:-1] if kind in {"string", "quoted"} else word))
            at = match.end()
        self._at = 0

    def __bool__(self) -> bool:
        """Tell whether a word is left."""
        return self._at < len(self._words)

    def peek(self, ahead: int = 0) -> Word:
        """Return a word that comes, or ("", "") behind the last."""
        at = self._at + ahead
        return self._words[at] if at < len(self._words) else ("", "")

    def take(self) -> Word:
        """Return the next word and go on; SplError at the end."""
        if not self:
            raise SplError(f"something is missing at the end of {self._text!r}")
        self._at += 1
        return self._words[self._at - 1]

    def skip(self, *texts: str) -> bool:
        """Go over the next word if it is a mark or a keyword of these; tell whether it was."""
        kind, text = self.peek()
        if kind in {"mark", "name"} and text.upper() in texts:
            self._at += 1
            return True
        return False

    def expect(self, text: str) -> None:
        """Go over this word; SplError if it is another."""
        if not self.skip(text):
            raise SplError(f"expected {text} before {self.peek()[1]!r} in {self._text!r}")

    def field(self) -> str:
        """Return the next word, which is the name of a field."""
        kind, text = self.take()
        if kind not in {"name", "quoted", "string"} or text.endswith("*"):
            raise SplError(f"{text!r} is no field's name in {self._text!r}")
        return text

    def inside(self) -> str:
        """Return the text between the next bracket and the one that closes it, words joined by blanks."""
        _, opening = self.take()
        closing, depth = _PAIRS.get(opening, ""), 1
        parts: list[str] = []
        while closing:
            kind, text = self.take()
            depth += (kind == "mark" and text == opening) - (kind == "mark" and text == closing)
            if not depth:
                return " ".join(parts)
            quote = {"string": '"', "quoted": "'"}.get(kind, "")
            parts.append(f"{quote}{text}{quote}")
        raise SplError(f"expected a bracket before {opening!r} in {self._text!r}")
