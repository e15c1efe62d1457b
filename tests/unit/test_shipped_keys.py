"""The keys that the roles ship."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROLES = Path(__file__).resolve().parents[2] / "roles"


@pytest.mark.parametrize(
    ("path", "fingerprint"),
    [
        ("docker/files/docker.asc", "9DC858229FC7DD38854AE2D88D81803C0EBFCD88"),
        ("nvidia_container_toolkit/files/nvidia-container-toolkit.asc", "C95B321B61E88C1809C4F759DDCAE044F796ECB0"),
    ],
)
def test_a_shipped_key_is_the_vendors_and_nothing_else(path, fingerprint, tmp_path):
    """Whoever changes the file or the fingerprint has to change both, and the default of the role."""
    command = ["gpg", "--homedir", tmp_path, "--batch", "--no-autostart", "--with-colons", "--show-keys", ROLES / path]
    rows = [row.split(":") for row in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()]
    kinds = [row[0] for row in rows]
    assert kinds.count("pub") == 1
    assert not {"sec", "ssb"} & set(kinds)
    assert rows[kinds.index("fpr")][9] == fingerprint
    role = (ROLES / path).parents[1]
    for name in ("defaults/main.yml", "vars/main.yml"):
        assert fingerprint in (role / name).read_text()
