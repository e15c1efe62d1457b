# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What apt's output means, for versions 2.4 (Ubuntu 22.04) to 3.0 (Debian 13), in the C locale."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple


class Trouble(NamedTuple):
    """What apt says about one repository; the address is empty where it is about none in particular."""

    uri: str
    reason: str


class Advice(NamedTuple):
    """A reason in the words of a person, and what to do; {source} and the like stand for the names of variables."""

    meaning: str
    action: str


_ADVICE = [
    (
        r"NO_PUBKEY ([0-9A-F]+)|Missing key ([0-9A-F]+)",
        Advice(
            "is signed by the key {0}, which is not the one that {fingerprints} names",
            "Ask the vendor before you trust that key.",
        ),
    ),
    (
        r"EXPKEYSIG|KEYEXPIRED|key(?: is)? expired|[Cc]ertificate .*expired",
        Advice(
            "is signed by a key that has expired ({reason})",
            "Remove {key}, and the next run fetches the key anew; a shipped key comes with a newer release of the collection.",
        ),
    ),
    (
        r"BADSIG|manipulated|[Bb]ad signature|Clearsigned file isn't valid",
        Advice(
            "has an index that was changed after it was signed",
            "Install nothing from there, and look into the mirror or proxy between.",
        ),
    ),
    (
        r"Hash Sum mismatch|unexpected size",
        Advice(
            "has a list of packages that is not the one its index was signed for",
            "A mirror in the middle of its update mends itself; else look into the mirror or proxy between.",
        ),
    ),
    (
        r"is (?:expired|not valid yet)",
        Advice(
            "has an index that is out of date, or the host's clock is wrong ({reason})",
            "Set the clock, or name another mirror ({source}).",
        ),
    ),
    (
        r"doesn't have the component '([^']*)'",
        Advice("has no component {0}", "Correct {components}."),
    ),
    (
        r"\b404\b|does not have a Release file",
        Advice(
            "has nothing for this suite (404 Not Found)",
            "Correct {source}, or see whether it has packages for this distribution.",
        ),
    ),
    (
        r"[Cc]ertificate verification failed|certificate issuer is unknown|unable to get local issuer|self-signed certificate",
        Advice(
            "shows a certificate that the host does not trust ({reason})",
            "Install ca-certificates, or make the host trust your proxy or mirror (update-ca-certificates).",
        ),
    ),
    (
        r"\b(?:401|403|407)\b",
        Advice("refuses access ({reason})", "Give apt the credentials (/etc/apt/auth.conf.d), or correct {source} or {proxy}."),
    ),
    (
        r"(?i)(?:unable|could not|cannot) (?:to )?(?:connect|resolve|initiate|handshake|wait)"
        r"|connection|temporary failure|timed out|SSL|TLS|proxy",
        Advice("can't be reached ({reason})", "Name a mirror that the host reaches ({source}) or a proxy ({proxy})."),
    ),
]


def troubles(output: str) -> list[Trouble]:
    """What went wrong in `apt-get update`, whatever its exit status: it is 0 for a site that can't be reached."""
    found = list(dict.fromkeys(_troubles(output)))
    told = {trouble.uri for trouble in found}
    general = [line[3:] for line in output.splitlines() if line.startswith("E: ")]
    # errors that only sum up what was told of a repository are left out
    rest = [
        Trouble("", line)
        for line in general
        if not any(uri.rstrip("/") in line for uri in told) and "index files failed" not in line
    ]
    return found + rest


def _troubles(output: str) -> Iterator[Trouble]:
    for uri, words in re.findall(r"(?m)^Err:\d+ (\S+) [^\n]*\n((?:[ ]+[^\n]*\n?)+)", output):
        yield Trouble(uri, words.strip().split("\n")[0].strip())
    for line in output.splitlines():
        found = (
            re.match(r"E: (?P<reason>Conflicting values .* regarding source (?P<uri>\S+) .*)", line)
            or re.match(r"W: Skipping .* as repository '(?P<uri>\S+) [^']*' (?P<reason>doesn't have the component.*)", line)
            or re.match(r"E: (?P<reason>Release file for (?P<uri>\S+) is .*)", line)
        )
        if found:
            yield Trouble(found["uri"], found["reason"])


def advise(reason: str, names: dict[str, str]) -> Advice:
    """The reason in plain words; names tell what the user knows source, proxy, components, fingerprints and key by."""
    for pattern, advice in _ADVICE:
        found = re.search(pattern, reason)
        if found:
            words = {**names, "reason": reason.rstrip(".")}
            group = next((group for group in found.groups() if group), "")
            return Advice(*(text.format(group, **words) for text in advice))
    return Advice(f"is refused by apt ({reason.rstrip('.')})", f"Correct {names['source']}.")


def matches(version: str, wanted: str) -> bool:
    """Whether a package's version is the wanted one, be that spelt in full, without epoch, as upstream's alone, or as 28.*."""
    return any(fnmatchcase(spelling, wanted) for spelling in spellings(version))


def spellings(version: str) -> list[str]:
    """5:28.5.2-1~debian.13~trixie, the same without 5:, 28.5.2; of 26.1.5+dfsg1-9 also 26.1.5."""
    plain = version.partition(":")[2] or version
    upstream = plain.rpartition("-")[0] or plain
    return [version, plain, upstream, re.split(r"[+~]", upstream)[0]]


def removals(simulation: str) -> list[str]:
    """The packages that `apt-get --simulate` says it would remove."""
    return re.findall(r"(?m)^(?:Remv|Purg) (\S+)", simulation)
