# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What git and its helpers say when a repository can't be read, and what to do about it."""

from __future__ import annotations

import re

# The host of an ssh:// address, or of the short form user@host:path.
SSH = re.compile(
    r"ssh://(?:[^@/]+@)?(?P<host>\[[^]]+\]|[^:/]+)(?::(?P<port>\d+))?/|(?:[^@/:]+@)?(?P<scp>\[[^]]+\]|[^:/]+):(?!//)"
)

OPTIONS = ("repo", "user", "token", "proxy", "ca_bundle", "known_hosts")  # of the module source_git, which the causes name

# The most telling cause comes first.
CAUSES = (
    (
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "the server shows another host key than the known one. Ask its owner whether the key was changed. If so, set "
        "{known_hosts} to the new one{keyscan}.",
    ),
    (
        "Host key verification failed|No .* host key is known",
        "the server's host key is unknown. Set {known_hosts}{keyscan}.",
    ),
    (
        "No space left on device|Disk quota exceeded",
        "the disk of the host is full. Free some space there.",
    ),
    (
        "HTTP code 407|Proxy Authentication Required|Could not resolve proxy|CONNECT tunnel failed|from proxy after CONNECT"
        "|Failed to connect to .* via proxy",
        "the proxy refuses or does not answer. Check {proxy}.",
    ),
    (
        "certificate|SSL_|gnutls_handshake|TLS connect error",
        "TLS fails, or the host does not trust the server's certificate. {ca_bundle} names the authorities of your network.",
    ),
    (
        "Could not resolve host|Name or service not known|Temporary failure in name resolution|No address associated"
        "|unable to look up",
        "the host can't resolve the server's name. Check {repo} and the host's DNS, or name a proxy ({proxy}).",
    ),
    (
        r"Permission denied \((?:publickey|password|keyboard)|Too many authentication failures",
        "the server accepts no ssh key of root on the host. Install a key there that may read the repository, or use an https "
        "address with {token}.",
    ),
    (
        "Authentication failed|could not read (?:Username|Password)|terminal prompts disabled|HTTP Basic: Access denied"
        "|returned error: 40[13]",
        "the server wants a login, or refuses the one that was given. Check {user}, {token} and {repo}; many "
        "servers ask for a login where there is no such repository.",
    ),
    (
        "Repository not found|repository '.*' (?:not found|does not exist)|returned error: 404|not appear to be a git repository"
        "|repository not exported",
        "the server has no such repository, or hides it without a login. Check {repo}, and {token} for a private one.",
    ),
    (
        "Connection refused|timed out|Network is unreachable|No route to host|Failed to connect|Couldn't connect"
        "|unable to connect|Connection reset|Operation too slow|Connection closed",
        "the host does not reach the server. Check {repo} and the network, or name a proxy ({proxy}).",
    ),
    (
        "cannot run ssh",
        "ssh is not installed on the host (Debian's package openssh-client).",
    ),
)


def explain(said, repo, names):
    """Return why a repository can't be read and what to do, None where git's own words have to do.

    names: what the user knows each of OPTIONS by.
    """
    keyscan, ssh = "", SSH.match(repo)
    if ssh:
        port = f"-p {ssh['port']} " if ssh["port"] else ""
        server = (ssh["host"] or ssh["scp"]).strip("[]")
        keyscan = f" (`ssh-keyscan {port}{server}` prints it; compare it with the fingerprints that its owner publishes)"
    return next((text.format(keyscan=keyscan, **names) for pattern, text in CAUSES if matches(pattern, said)), None)


def is_explained(said):
    """Return whether git's words have a cause that a fresh checkout does not change."""
    return any(matches(pattern, said) for pattern, _text in CAUSES)


def matches(pattern, said):
    """Return whether git's words match the pattern of a cause."""
    return bool(re.search(pattern, said, re.IGNORECASE))
