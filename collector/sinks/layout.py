"""
Where objects lie below a sink's place: parts with a slash between them, made of words and of tenant and hour.

    tenant={tenant}/date={date}/hour={hour}                         by tenant, without a word
    date={date}/hour={hour}                                         by hour, without a word
    year={year}/month={month}/day={day}/hour={hour}/{tenant}        as key= of the sink's URL may say
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal

By = Literal["tenant", "hour"]

DEFAULT: Mapping[By, str] = {"tenant": "tenant={tenant}/date={date}/hour={hour}", "hour": "date={date}/hour={hour}"}

#: What can stand in braces, and what takes its place there.
_FORMS: Mapping[str, str] = {"date": "%Y-%m-%d", "year": "%Y", "month": "%m", "day": "%d", "hour": "%H"}
_EPOCH = datetime.fromtimestamp(0, UTC)
_WORDS = ("tenant", *_FORMS)
_WORD = re.compile(r"\{(\w*)\}")
#: What is safe in a key of S3's, in a path and in a URL. A dot may not come first: it could climb, or hide.
_PART = re.compile(r"[A-Za-z0-9_=,@:-][A-Za-z0-9._=,@:-]*")
#: With the longest prefix, tenant and batch name it stays below the 1,024 bytes of a key.
_MOST_CHARACTERS = 128


def check_layout(template: str, *, by: By) -> None:
    """Raise `ValueError` with a sentence about a template that does not tell one tenant and hour from every other."""
    words = _WORD.findall(template)
    if odd := [word for word in words if word not in _WORDS]:
        raise ValueError(f"{{{odd[0]}}} is none of {', '.join(f'{{{word}}}' for word in _WORDS)}")
    if twice := [word for word in words if words.count(word) > 1]:
        raise ValueError(f"it has {{{twice[0]}}} twice; write each once")
    for part in template.split("/"):
        if not part:
            raise ValueError("it has an empty part; write one slash between two parts, and none before and after all")
        if not _PART.fullmatch(_WORD.sub("0", part)):
            raise ValueError(
                f"{part!r} can't be a part of it; write A-Z, a-z, 0-9, any of _ = , @ : - and a dot, but not first"
            )
    if len(template) > _MOST_CHARACTERS:
        raise ValueError(f"it has over {_MOST_CHARACTERS} characters")
    if by == "tenant" and "tenant" not in words:
        raise ValueError("it lacks {tenant}, of which each has objects of its own; write that, or by=hour")
    if by == "hour" and "tenant" in words:
        raise ValueError("it has {tenant}, and by=hour puts all tenants into one object; leave out one of the two")
    if "hour" not in words or not ("date" in words or {"year", "month", "day"} <= set(words)):
        raise ValueError("it does not say the whole hour; write {date} and {hour}, or {year}, {month}, {day}, {hour}")


@lru_cache(maxsize=32)
def around(template: str, hour: int) -> tuple[str, str]:
    """Return what stands before the tenant's id and behind it in an hour, which counts hours since the epoch."""
    moment = _EPOCH + timedelta(hours=hour)
    for word, form in _FORMS.items():
        template = template.replace(f"{{{word}}}", f"{moment:{form}}")
    before, _, behind = template.partition("{tenant}")
    return before, behind


def anywhere(template: str) -> str:
    """Write a template as the pattern of all its places, as `Path.glob` takes one."""
    return _WORD.sub(lambda word: "*" if word[1] == "tenant" else "?" * len(_EPOCH.strftime(_FORMS[word[1]])), template)


def for_people(template: str, tenant_id: str) -> str:
    """Write a template for people, with dots for what the hour brings."""
    return _WORD.sub(lambda word: tenant_id if word[1] == "tenant" else "…", template)
