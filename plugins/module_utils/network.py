# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Addresses: how the host reaches a published port, which ports exclude each other; what is secret in them and in settings."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import unquote

USERINFO = re.compile(r"(?<=://)[^/@\s]+(?=@)")
SECRET = re.compile(r"key|token|secret|password", re.IGNORECASE)  # in the name of an option whose value no output shows


def texts(value, named=False):
    """Yield each text in a value, however deep it lies, and whether the name of an option above it says that it is secret."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from texts(item, named or bool(SECRET.search(str(name))))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from texts(item, named)
    elif isinstance(value, str):
        yield value, named


def secrets(values):
    """Return what is secret in these values, the longest first.

    That is users and passwords of addresses, as they stand there and decoded, and the texts of options with the name of a secret.
    """
    found = set()
    for text, named in texts(list(values)):
        found |= {text} if named and text else set()
        for userinfo in USERINFO.findall(text):
            password = userinfo.partition(":")[2]
            found |= {userinfo, unquote(userinfo), *({password, unquote(password)} if password else ())}
    return sorted(found, key=lambda text: (-len(text), text))


def keep_secret(module, values):
    """Let a module's answers, what it was asked included, leave out what is secret in these values.

    The module has to be a QuietModule, so that the host's journal has not been told before.
    """
    module.no_log_values.update(secrets(values))


def masked(text, values):
    """Return a text with what is secret in these addresses left out."""
    for secret in secrets(values):
        text = text.replace(secret, "***")
    return text


def reached_at(address):
    """Return the host part of the URL under which the host itself reaches a port that is published on an address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # of a record that is damaged
        return address
    if parsed.is_unspecified:
        return "127.0.0.1" if parsed.version == 4 else "[::1]"
    return str(parsed) if parsed.version == 4 else f"[{parsed}]"


def shown(address, port):
    """Return address and port as an operator reads them: an IPv6 address is in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def overlap(one, other):
    """Return whether two pairs of address and port exclude each other: equal, or one of them for all addresses of the family."""
    (address, port), (address2, port2) = one, other
    parsed, parsed2 = (ipaddress.ip_address(each) for each in (address, address2))
    alike = parsed == parsed2 or parsed.is_unspecified or parsed2.is_unspecified
    return port == port2 and parsed.version == parsed2.version and alike
