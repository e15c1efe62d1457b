# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""apt's source files: what they name, and taking entries out of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple


class SourceError(ValueError):
    """What is wrong with a source file, and what to do about it: whole sentences."""


class Repository(NamedTuple):
    """What apt takes for one and the same source, for which it wants one Signed-By."""

    uri: str
    suite: str


class Unwanted(NamedTuple):
    """Which entries of other files have to go."""

    same: frozenset[Repository]
    below: tuple[str, ...]  # addresses without their scheme, ending in a slash

    def matches(self, uri: str, suite: str) -> bool:
        """Whether the entry is the same source by another name, or lies below an address that is replaced."""
        return Repository(normal(uri), suite) in self.same or bare(uri).startswith(self.below)


class Cleaned(NamedTuple):
    """A file's text without the unwanted entries, and these."""

    text: str
    removed: list[str]
    empty: bool  # nothing but comments is left


def normal(uri: str) -> str:
    """An address as apt compares it."""
    return uri.rstrip("/") + "/"


def bare(uri: str) -> str:
    """An address without its scheme, as one repository can be had by several."""
    return normal(uri).partition("://")[2] or normal(uri)


def list_name(uri: str) -> str:
    """How the files begin that apt keeps of this address in its lists."""
    quoted = re.sub(r"[_~=@%]", lambda found: f"%{ord(found[0]):02x}", bare(uri))
    return quoted.replace("/", "_")


def unwanted(uris: Sequence[str], suites: Sequence[str], replaces: Sequence[str], architecture: str) -> Unwanted:
    """What conflicts with a source of these addresses and suites, or is replaced by it."""
    same = frozenset(Repository(normal(_arch(uri, architecture)), suite) for uri in uris for suite in suites)
    return Unwanted(same, tuple(bare(_arch(uri, architecture)) for uri in replaces))


def clean(path: str, text: str, unwanted: Unwanted, architecture: str) -> Cleaned:
    """The file's text without what is unwanted; of a stanza with other addresses or suites as well, these stay."""
    if path.endswith(".sources"):
        parts = [_without(path, stanza, unwanted, architecture) for stanza in _stanzas(text)]
    else:
        parts = [
            ("", line.strip()) if unwanted.matches(*entry) else (line, "")
            for line in text.splitlines(keepends=True)
            for entry in [_one_line(line, architecture)]
        ]
    left = "".join(kept for kept, _ in parts)
    removed = [taken for _, taken in parts if taken]
    return Cleaned(left, removed, not any(line.strip() and not line.startswith("#") for line in left.splitlines()))


def fields(stanza: str) -> dict[str, str]:
    """The fields of a deb822 stanza, their names in lower case."""
    found: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1] in {" ", "\t"} and name:
            found[name] += f"\n{line.strip()}"
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            found[name] = value.strip()
    return found


def addresses(text: str, architecture: str) -> list[str]:
    """The addresses that a deb822 file names."""
    return [normal(_arch(uri, architecture)) for stanza in _stanzas(text) for uri in fields(stanza).get("uris", "").split()]


def _arch(uri: str, architecture: str) -> str:
    return uri.replace("$(ARCH)", architecture)


def _one_line(line: str, architecture: str) -> tuple[str, str]:
    found = re.match(r"\s*deb(?:-src)?\s+(?:\[[^\]]*\]\s*)?(\S+)\s+(\S+)", line)
    return (_arch(found[1], architecture), _arch(found[2], architecture)) if found else ("", "")


def _stanzas(text: str) -> Iterator[str]:
    """The stanzas, each with the empty lines that follow it."""
    stanza, closed = "", False
    for line in text.splitlines(keepends=True):
        if closed and line.strip():
            yield stanza
            stanza = ""
        closed = not line.strip()
        stanza += line
    if stanza:
        yield stanza


def _without(path: str, stanza: str, unwanted: Unwanted, architecture: str) -> tuple[str, str]:
    """The stanza without what is unwanted, and what was taken out of it."""
    values = fields(stanza)
    if values.get("enabled", "yes").lower() in {"no", "false", "without", "off", "disable"}:
        return stanza, ""
    uris, suites = values.get("uris", "").split(), values.get("suites", "").split()
    pairs = {(uri, suite) for uri in uris for suite in suites if unwanted.matches(_arch(uri, architecture), suite)}
    other_uris = [uri for uri in uris if not any(uri == pair[0] for pair in pairs)]
    other_suites = [suite for suite in suites if not any(suite == pair[1] for pair in pairs)]
    if not pairs:
        return stanza, ""
    if len(pairs) == len(uris) * len(suites):
        return "", " ".join([*uris, *suites])
    if len(pairs) == (len(uris) - len(other_uris)) * len(suites):
        return _with_field(stanza, "URIs", other_uris), " ".join(uri for uri in uris if uri not in other_uris)
    if len(pairs) == (len(suites) - len(other_suites)) * len(uris):
        return _with_field(stanza, "Suites", other_suites), " ".join(suite for suite in suites if suite not in other_suites)
    raise SourceError(
        f"{path} names {' '.join(uris)} for {' '.join(suites)} in one stanza, of which only a part conflicts. "
        "Split the stanza by address."
    )


def _with_field(stanza: str, name: str, values: Sequence[str]) -> str:
    pattern = rf"(?mi)^{name}[ \t]*:[^\n]*(?:\n[ \t][^\n]*)*"
    return re.sub(pattern, lambda _: f"{name}: {' '.join(values)}", stanza, count=1)
