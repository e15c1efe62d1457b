# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What goes wrong between an engine and a registry, and what to do about it."""

from __future__ import annotations

import re

# What the module registry_image calls the settings that a cause names, unless its caller has names for them.
SETTINGS = {"repository": "repository", "ca": "/etc/docker/certs.d", "login": "docker login", "proxy": "/etc/docker/daemon.json"}
# The engine's words (the first that match count), and what to do. {registry}: HOST:PORT, {name}: HOST:PORT/team/iopaint.
CAUSES = (
    (
        r"no space left on device|disk quota exceeded",
        "The disk is full where the engine keeps its data ({root}). Free some (`docker system df` shows what the engine holds); "
        "what was half fetched is the engine's to clear, and it does.",
    ),
    (
        r"unknown authority|self.signed certificate",
        "The host does not know the authority behind the registry's certificate. Install its certificate on the host ({ca}).",
    ),
    (
        r"x509: certificate",
        "The registry's certificate does not fit: {repository} has to name {registry} as the certificate does, and it must "
        "not have expired.",
    ),
    (
        r"server gave HTTP response to HTTPS client",
        "The registry speaks plain HTTP. Give it a certificate (iopaint.fleet.registry makes one).",
    ),
    (
        r"proxy authentication required|proxyconnect|\b407\b",
        "The engine's proxy does not let it through. Check the proxy's address, user and password ({proxy}), or except "
        "{registry} from it.",
    ),
    (
        r"unauthorized|authentication required|no basic auth credentials|denied|\b401\b|\b403\b",
        "The registry refuses the login. Check the login ({login}), and that this user may do so in {name}.",
    ),
    (
        r"manifest unknown|manifest for \S+ not found|name unknown|not found: ",
        "The registry does not have it. iopaint.fleet.build, run for the builder and this host, pushes it again.",
    ),
    (
        r"\b405\b|unsupported|read.only",
        "The registry takes no pushes now. While its garbage collection runs it can only be read; try again once that is over.",
    ),
    (
        r"",
        "See that the registry runs and that the host reaches {registry} ({repository}): "
        "`curl https://{registry}/v2/` there. The same command goes on from here.",
    ),
)


def explain(output, repository, root, names):
    """Return the engine's last words and what to do about them.

    root: where the engine keeps its data. names: what the user knows SETTINGS by.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    said = re.sub(r"^Error response from daemon: |^ERROR: ", "", lines[-1]) if lines else "the engine gave no reason"
    facts = {"name": repository, "registry": repository.partition("/")[0], "root": root, **SETTINGS, **names}
    advice = next(text for pattern, text in CAUSES if re.search(pattern, said, re.IGNORECASE))
    return f"{said.rstrip('.')}. {advice.format(**facts)}"


def is_unknown(output):
    """Return whether a pull failed as the registry answers and has no such image."""
    return bool(re.search(r"manifest unknown|manifest for \S+ not found|name unknown|: not found\b", output, re.IGNORECASE))


def digest_of(image, repository):
    """Return the digest under which an image (the engine's document) is known to a repository, None where it isn't."""
    names = [name.partition("@") for name in image.get("RepoDigests") or []]
    return next((digest for name, _at, digest in names if name == repository), None)
