"""
Reads Splunk's .conf files: stanzas of settings, where a line that ends in a backslash goes on.
"""

from __future__ import annotations

from pathlib import Path

Stanzas = dict[str, dict[str, str]]


def read_conf(file: Path) -> Stanzas:
    """Read a file; ValueError names the line of what is no setting, or is there twice."""
    stanzas: Stanzas = {}
    stanza: dict[str, str] | None = None
    name, going_on = "", False
    for number, line in enumerate(file.read_text().splitlines(), 1):
        where = f"{file.name}:{number}"
        if going_on and stanza is not None:
            going_on = line.endswith("\\")
            stanza[name] += "\n" + line.removesuffix("\\").strip()
        elif not line.strip() or line.startswith("#"):
            continue
        elif line.startswith("["):
            title = line.strip()[1:-1]
            if not line.rstrip().endswith("]") or title in stanzas:
                raise ValueError(f"{where}: {line} is no stanza's name, or is there twice")
            stanza = stanzas[title] = {}
        else:
            name, equals, value = (part.strip() for part in line.partition("="))
            if not equals or stanza is None or name in stanza:
                raise ValueError(f"{where}: {line} is no setting, stands in no stanza, or is there twice")
            going_on = value.endswith("\\")
            stanza[name] = value.removesuffix("\\").strip()
    if going_on:
        raise ValueError(f"{file.name}: the last line goes on into nothing")
    return stanzas
