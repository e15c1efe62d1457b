# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters over versions of Debian packages, and over what apt says of 2.4 (Ubuntu 22.04) to 3.0 (Debian 13) in the C locale."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

# What a reason of apt's means and what to do. {source} and the like stand for the names of variables.
ADVICE = [
    (
        r"NO_PUBKEY ([0-9A-F]+)|Missing key ([0-9A-F]+)",
        "is signed by the key {0}, which is not the one that {fingerprints} names. Ask the vendor before you trust that key.",
    ),
    (
        r"EXPKEYSIG|KEYEXPIRED|key(?: is)? expired|[Cc]ertificate .*expired",
        "is signed by a key that has expired ({reason}). Remove {key}, and the next run fetches the key anew; "
        "a shipped key comes with a newer release of the collection.",
    ),
    (
        r"BADSIG|manipulated|[Bb]ad signature|Clearsigned file isn't valid",
        "has an index that was changed after it was signed. Install nothing from there, and look into the mirror or proxy "
        "between.",
    ),
    (
        r"Hash Sum mismatch|unexpected size",
        "has a list of packages that is not the one its index was signed for. A mirror in the middle of its update mends itself; "
        "else look into the mirror or proxy between.",
    ),
    (
        r"is (?:expired|not valid yet)",
        "has an index that is out of date, or the host's clock is wrong ({reason}). Set the clock, or name another mirror "
        "({uris}).",
    ),
    (r"doesn't have the component '([^']*)'", "has no component {0}. Correct {components}."),
    (
        r"\b404\b|does not have a Release file",
        "has nothing for this suite (404 Not Found). Correct {uris}, or see whether it has packages for this distribution.",
    ),
    (
        r"[Cc]ertificate verification failed|certificate issuer is unknown|unable to get local issuer|self-signed certificate",
        "shows a certificate that the host does not trust ({reason}). Install ca-certificates, or make the host trust your proxy "
        "or mirror (update-ca-certificates).",
    ),
    (
        r"\b(?:401|403|407)\b",
        "refuses access ({reason}). Give apt the credentials (/etc/apt/auth.conf.d), or correct {uris} or {proxy}.",
    ),
    (
        r"(?i)(?:unable|could not|cannot) (?:to )?(?:connect|resolve|initiate|handshake|wait)"
        r"|connection|temporary failure|timed out|SSL|TLS|proxy",
        "can't be reached ({reason}). Name a mirror that the host reaches ({uris}) or a proxy ({proxy}).",
    ),
    (r"", "is refused by apt ({reason}). Correct {uris}."),
]


def apt_missing(wanted: dict[str, object], installed: dict[str, str]) -> list[str]:
    """Return the packages that are not installed in a wanted version; an empty one and `latest` are any."""
    return [
        name
        for name, version in wanted.items()
        if name not in installed or not (str(version or "") in {"", "latest"} or _matches(installed[name], str(version)))
    ]


def apt_targets(madison: str, names: Iterable[str], wanted: dict[str, object]) -> dict:
    """Return how apt-get is asked for the packages, and the versions that `apt-cache madison` knows of each."""
    rows = [[part.strip() for part in line.split("|")] for line in madison.splitlines() if line.count("|") == 2]
    versions: dict[str, list[str]] = {}
    for name, version, _source in rows:
        versions.setdefault(name, []).append(version)
    targets, missing = [], []
    for name in names:
        version = str(wanted.get(name) or "")
        if version in {"", "latest"}:
            targets.append(name)
        elif found := [each for each in versions.get(name, []) if _matches(each, version)]:
            targets.append(f"{name}={found[0]}")
        else:
            missing.append(name)
    short = {name: list(dict.fromkeys(_spellings(each)[2] for each in found))[:15] for name, found in versions.items()}
    return {"targets": targets, "missing": missing, "versions": short}


def apt_troubles(output: str, names: dict[str, str]) -> list[dict[str, str]]:
    """Return what went wrong in `apt-get update`, whatever its exit status, which is 0 for a site that can't be reached."""
    return [
        {"uri": uri, "reason": reason.rstrip("."), "advice": _advice(reason.rstrip("."), names)}
        for uri, reason in dict.fromkeys(_troubles(output))
    ]


def _troubles(output: str) -> Iterator[tuple[str, str]]:
    uris = []
    for uri, reason in _of_repositories(output):
        uris.append(uri)
        yield uri, reason
    for line in output.splitlines():
        # errors that only sum up what was said of a repository are left out
        if line.startswith("E: ") and "index files failed" not in line and not any(uri.rstrip("/") in line for uri in uris):
            yield "", line[3:]


def _of_repositories(output: str) -> Iterator[tuple[str, str]]:
    for uri, words in re.findall(r"(?m)^Err:\d+ (\S+) [^\n]*\n((?:[ ]+[^\n]*\n?)+)", output):
        yield uri, words.strip().split("\n")[0].strip()
    for line in output.splitlines():
        found = (
            re.match(r"E: (?P<reason>Conflicting values .* regarding source (?P<uri>\S+) .*)", line)
            or re.match(r"W: Skipping .* as repository '(?P<uri>\S+) [^']*' (?P<reason>doesn't have the component.*)", line)
            or re.match(r"E: (?P<reason>Release file for (?P<uri>\S+) is .*)", line)
        )
        if found:
            yield found["uri"], found["reason"]


def _advice(reason: str, names: dict[str, str]) -> str:
    pattern, text = next((pattern, text) for pattern, text in ADVICE if re.search(pattern, reason))
    group = next((group for group in re.search(pattern, reason).groups() if group), "")
    return text.format(group, **names, reason=reason)


def _matches(version: str, wanted: str) -> bool:
    return any(fnmatchcase(spelling, wanted) for spelling in _spellings(version))


def _spellings(version: str) -> list[str]:
    """Return 5:28.5.2-1~debian.13~trixie, the same without 5:, and 28.5.2; of 26.1.5+dfsg1-9 also 26.1.5."""
    plain = version.partition(":")[2] or version
    upstream = plain.rpartition("-")[0] or plain
    return [version, plain, upstream, re.split(r"[+~]", upstream)[0]]


class FilterModule:
    """The filters of this file."""

    def filters(self):
        return {"apt_missing": apt_missing, "apt_targets": apt_targets, "apt_troubles": apt_troubles}
