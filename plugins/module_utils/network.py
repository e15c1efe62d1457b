# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Addresses: how the host reaches a published port, and what is secret in the addresses of a build's downloads."""

from __future__ import annotations

import re
from urllib.parse import unquote

ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - what may be asked for, and how it is reached
USERINFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")


def secrets(values):
    """Return what is secret in these addresses: users and passwords, as they stand there and decoded, the longest first."""
    found = set()
    for value in values:
        for userinfo in USERINFO.findall(str(value or "")):
            password = userinfo.partition(":")[2]
            found |= {userinfo, unquote(userinfo), *({password, unquote(password)} if password else ())}
    return sorted(found, key=lambda text: (-len(text), text))


def keep_secret(module, values):
    """Let a module's answers, what it was asked included, leave out what is secret in these addresses.

    The module has to be made with no_log=True, so that the host's journal has not been told before.
    """
    module.no_log_values.update(secrets(values))


def masked(text, values):
    """Return a text with what is secret in these addresses left out."""
    for secret in secrets(values):
        text = text.replace(secret, "***")
    return text


def reached_at(address):
    """Return the host part of the URL under which the host itself reaches a port that is published on an address."""
    return ANY_ADDRESS.get(address, f"[{address}]" if ":" in address else address)
