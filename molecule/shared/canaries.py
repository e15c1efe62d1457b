"""A secret of its own for each option that may hold one: which options these are, and where such a secret turns up.

New options join by themselves: by `no_log` in a role's meta/argument_specs.yml, or by a name that is an address's.
"""

from __future__ import annotations

import base64
import re
import secrets
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
# Options whose names end like this take addresses, which may have a password.
ADDRESS = re.compile(r"(^|_)(urls?|uris?|proxy|mirrors?|index|endpoint|registry|repository|target|site|server|webhook)$")
NO_ADDRESS = re.compile(r"(^|_)no_proxy$")
# Dictionaries that go into somebody else's configuration, where a key may have any name.
FREE = re.compile(r"(^|_)(settings|options)$")


def options(specification: dict, above: str = "") -> dict[str, dict]:
    """Return options by name; those of dictionaries come after a dot, as in registry_users.password."""
    found = {}
    for name, option in (specification or {}).items():
        found[above + name] = option
        found |= options(option.get("options"), f"{above}{name}.")
    return found


def may_be_secret(name: str, option: dict) -> bool:
    """Return whether an option may hold a secret, by its specification or by the last part of its name."""
    last = name.rpartition(".")[2]
    if option.get("no_log"):
        return True
    if option.get("type") == "dict" and FREE.search(last):
        return True
    return bool(ADDRESS.search(last)) and not NO_ADDRESS.search(last) and option.get("type", "str") in ("str", "list", "dict")


def secret_options() -> dict[str, dict]:
    """Return the options of all roles that may hold a secret, by name."""
    found = {}
    for path in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        for entry in yaml.safe_load(path.read_text())["argument_specs"].values():
            found |= options(entry.get("options"))
    return {name: option for name, option in found.items() if may_be_secret(name, option)}


class Canaries:
    """Secrets by name, and what finds them again."""

    def __init__(self):
        """Begin with none. All share a beginning that is nowhere else."""
        self.stem = "cnry" + secrets.token_hex(4)
        self.names = []

    def __call__(self, name: str) -> str:
        """Return the secret of a name: letters and digits only, so that no encoding but base64 changes it."""
        if name not in self.names:
            self.names.append(name)
        return f"{self.stem}{self.names.index(name):03d}z"

    def address(self, name: str, site: str = "127.0.0.1:9", scheme: str = "http") -> str:
        """Return an address with the secret as its password."""
        return f"{scheme}://robot:{self(name)}@{site}"

    def needles(self) -> list[str]:
        """Return the beginning of all secrets as it is, and as base64 of a text in which it begins at any byte."""
        encoded = []
        for shift in range(3):
            text = base64.b64encode(b"\0" * shift + self.stem.encode()).decode().rstrip("=")
            # Without the letters that also depend on what comes before and after.
            encoded.append(text[(shift * 8 + 5) // 6 : len(b"\0" * shift + self.stem.encode()) * 8 // 6])
        return [self.stem, *encoded]

    def found_in(self, text: str) -> set[str]:
        """Return the names of the secrets that a text holds; one in base64 is named so."""
        plain, *encoded = self.needles()
        found = {self.named(number) for number in re.findall(plain + "([0-9]{3})z", text)}
        if any(needle in text for needle in encoded):
            found.add("one in base64")
        return found

    def named(self, number: str) -> str:
        """Return the name of the secret with this number."""
        return self.names[int(number)] if int(number) < len(self.names) else f"number {number}"

    def lines(self, text: str, most: int = 12) -> str:
        """Return the lines of a text that hold a secret, each with the names in its place, for the message of a failure."""
        shown = []
        for number, line in enumerate(text.splitlines(), 1):
            if names := self.found_in(line):
                place = min(line.find(needle) for needle in self.needles() if needle in line)
                shown.append(f"{number}: {', '.join(sorted(names))}: …{line[max(0, place - 160) : place + 60]}…")
        return "\n".join(shown[:most] + [f"and {len(shown) - most} more lines"] * (len(shown) > most))
