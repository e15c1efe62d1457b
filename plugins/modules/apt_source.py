#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_source
short_description: A signed apt repository, with a key whose fingerprint was checked
version_added: 0.1.0
description:
  - Writes a repository to C(/etc/apt/sources.list.d/NAME.sources) and its key to C(/etc/apt/keyrings/NAME.gpg).
  - The key is fetched only where the keyring does not hold the keys with the wanted fingerprints and no others. Of the keys
    that come, only those are kept, so apt trusts no key that nobody checked.
  - Takes out of the other source files what would make apt stop with C(Conflicting values set for option Signed-By).
  - Needs neither gpg nor any Python library on the host, and does not refresh apt's lists.
options:
  name:
    description: Name of the files.
    type: str
    required: true
  types:
    description: Kinds of packages.
    type: list
    elements: str
    choices: [deb, deb-src]
    default: [deb]
  uris:
    description: Addresses of the repository; C($(ARCH\)) stands for the host's architecture. Required to be V(present).
    type: list
    elements: str
    default: []
  suites:
    description: Suites, or a path that ends in a slash for a repository without suites. Required to be V(present).
    type: list
    elements: str
    default: []
  components:
    description: Components; none for a repository without suites.
    type: list
    elements: str
    default: []
  architectures:
    description: Architectures; the host's own ones by default.
    type: list
    elements: str
    default: []
  fingerprints:
    description: Fingerprints of the primary keys that may sign the repository. Required to be V(present).
    type: list
    elements: str
    default: []
  key_url:
    description: Where the host fetches the key, armoured or binary; C(file:///path) for a file on the host.
    type: str
    default: ""
  key:
    description: The key itself, armoured, instead of O(key_url).
    type: str
    default: ""
  proxy:
    description:
      - The proxy for the hosts in O(uris), for the key and for apt (C(/etc/apt/apt.conf.d/90NAME-proxy)).
      - Without it the key is fetched as the environment says, and apt as it is configured.
    type: str
    default: ""
  replaces:
    description:
      - Addresses below which entries of other source files are removed, whatever their suite and scheme.
      - Entries for the very addresses and suites of this one are removed in any case, as apt takes no source twice.
    type: list
    elements: str
    default: []
  variables:
    description: What to call the options in messages, where a role hands its variables on.
    type: dict
    default: {}
  state:
    description: Whether the repository is known to apt. V(absent) removes the files of this name and no others.
    type: str
    choices: [present, absent]
    default: present
  root:
    description: The folder that holds apt's configuration.
    type: path
    default: /etc/apt
attributes:
  check_mode:
    description: Fetches and checks the key as well, so that a wrong one is found before the first real run.
    support: full
  diff_mode:
    support: full
author:
  - iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Docker's repository is known to apt
  iopaint.fleet.apt_source:
    name: docker
    uris: https://download.docker.com/linux/debian
    suites: trixie
    components: stable
    key_url: https://download.docker.com/linux/debian/gpg
    fingerprints: 9DC8 5822 9FC7 DD38 854A  E2D8 8D81 803C 0EBF CD88
    replaces: https://download.docker.com/linux

- name: A repository without suites
  iopaint.fleet.apt_source:
    name: nvidia-container-toolkit
    uris: https://nvidia.github.io/libnvidia-container/stable/deb/$(ARCH)
    suites: /
    key: "{{ lookup('ansible.builtin.file', 'nvidia.asc') }}"
    fingerprints: "{{ nvidia_fingerprint }}"
"""

RETURN = r"""
fetched:
  description: Whether the key was fetched from O(key_url).
  returned: success
  type: bool
keyring:
  description: The file that holds the key.
  returned: success
  type: str
  sample: /etc/apt/keyrings/docker.gpg
removed:
  description: The entries that were taken out of other files, each with its file.
  returned: success
  type: list
  elements: str
  sample: ["/etc/apt/sources.list.d/docker.list: deb https://download.docker.com/linux/debian trixie stable"]
backup_files:
  description: Copies of the files that were changed or removed and are not this module's own.
  returned: success
  type: list
  elements: str
"""

import os
import platform
import re
import tempfile
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.iopaint.fleet.plugins.module_utils.apt_sources import SourceError, clean, unwanted
from ansible_collections.iopaint.fleet.plugins.module_utils.files import make_folder
from ansible_collections.iopaint.fleet.plugins.module_utils.openpgp import KeyFormatError, plain_fingerprint, read_keys

CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
MARK = "# Written by iopaint.fleet.apt_source\n"


class Source:
    """The repository as the host has it and as it should be."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.options = module.params
        root, name = module.params["root"], module.params["name"]
        self.path = f"{root}/sources.list.d/{name}.sources"
        self.keyring = f"{root}/keyrings/{name}.gpg"
        self.proxy_path = f"{root}/apt.conf.d/90{name}-proxy"
        self.result = {"changed": False, "fetched": False, "keyring": self.keyring, "removed": [], "backup_files": [], "diff": []}

    def option(self, name: str) -> str:
        """What the user knows the option by."""
        return self.options["variables"].get(name, name)

    def fail(self, message: str) -> None:
        self.module.fail_json(msg=f"{message} Nothing was changed.", **self.result)

    def present(self) -> None:
        """Know everything before the first file is written."""
        for name in ("uris", "suites", "fingerprints"):
            if not self.options[name]:
                self.fail(f"{self.option(name)} is empty, and the repository {self.options['name']} needs it.")
        key = self.key()
        cleaned = self.leftovers()
        self.write(self.keyring, key)
        self.write(self.proxy_path, self.proxies())
        for path, text in cleaned.items():
            self.write(path, text, backup=True)
        own = (read(self.path) or MARK.encode()).startswith(MARK.encode())
        self.write(self.path, self.stanza(), backup=not own)

    def absent(self) -> None:
        """Remove this module's own files."""
        for path in (self.path, self.keyring, self.proxy_path):
            self.write(path, b"")

    # --- The key

    def key(self) -> bytes:
        """The keyring's content: the one that is there where it is good, else what is given or fetched."""
        try:
            wanted = [plain_fingerprint(text) for text in self.options["fingerprints"]]
        except KeyFormatError as error:
            self.fail(f"{self.option('fingerprints')} {error}.")
        if self.options["key"]:
            return self.checked(self.options["key"].encode(), wanted, self.option("key"))
        have = read(self.keyring)
        if have:
            try:
                if {key.fingerprint for key in read_keys(have)} == set(wanted):
                    return have
            except KeyFormatError:
                pass  # it is fetched anew
        if not self.options["key_url"]:
            self.fail(
                f"Neither {self.option('key')} nor {self.option('key_url')} is given, and {self.keyring} holds no wanted key."
            )
        self.result["fetched"] = True
        data = self.fetch()
        return self.checked(data, wanted, self.options["key_url"]) if data else b"(not fetched in check mode)\n"

    def checked(self, data: bytes, wanted: list[str], origin: str) -> bytes:
        try:
            keys = read_keys(data)
        except KeyFormatError as error:
            self.fail(f"The key of the repository {self.options['name']}, from {origin}, {error}.")
        good = {key.fingerprint: key.data for key in keys if key.fingerprint in wanted}
        if not good:
            self.fail(
                f"The key of the repository {self.options['name']}, from {origin}, has the fingerprint "
                f"{' and '.join(key.fingerprint for key in keys) or '(none)'}, and {self.option('fingerprints')} wants "
                f"{' or '.join(wanted)}. Find out from the vendor which one is right, and trust neither before that."
            )
        return b"".join(good[fingerprint] for fingerprint in sorted(good))

    def fetch(self) -> bytes:
        """The key's file; nothing in check mode on a host that has no certificates yet."""
        url = self.options["key_url"]
        if self.options["proxy"]:
            os.environ.update(http_proxy=self.options["proxy"], https_proxy=self.options["proxy"])
        try:
            return open_url(url, timeout=30, http_agent="iopaint.fleet").read(2**20)
        except HTTPError as error:
            reason = f"HTTP {error.code} {error.reason}"
        except URLError as error:
            reason = str(error.reason)
        except (OSError, ValueError) as error:
            reason = str(error)
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            if self.module.check_mode and not os.path.exists(CERTIFICATES):
                self.module.warn(f"{url} is not fetched, as ca-certificates is not installed yet.")
                return b""
            advice = "Install ca-certificates, or make the host trust your proxy or mirror (update-ca-certificates)."
        else:
            advice = (
                f"Name a mirror that the host reaches ({self.option('key_url')}), a proxy ({self.option('proxy')}), "
                f"or give the key itself ({self.option('key')})."
            )
        self.fail(f"The key of the repository {self.options['name']} can't be had from {url}: {reason.rstrip('.')}. {advice}")
        raise AssertionError  # fail does not return

    # --- The files

    def stanza(self) -> bytes:
        lists = {
            "Types": self.options["types"],
            "URIs": self.options["uris"],
            "Suites": self.options["suites"],
            "Components": self.options["components"],
            "Architectures": self.options["architectures"],
            "Signed-By": [self.keyring],
        }
        return (MARK + "".join(f"{name}: {' '.join(words)}\n" for name, words in lists.items() if words)).encode()

    def proxies(self) -> bytes:
        if not self.options["proxy"]:
            return b""
        hosts = sorted({urlsplit(uri).hostname or "" for uri in self.options["uris"]} - {""})
        lines = [
            f'Acquire::{scheme}::Proxy::{host} "{self.options["proxy"]}";\n' for host in hosts for scheme in ("http", "https")
        ]
        return "".join(lines).encode()

    def leftovers(self) -> dict[str, bytes]:
        """The other source files that have to change, with what stays of them; an empty text removes the file."""
        architecture = self.architecture()
        unwanted_here = unwanted(self.options["uris"], self.options["suites"], self.options["replaces"], architecture)
        changed = {}
        for path in self.other_files():
            text = (read(path) or b"").decode("utf-8", "surrogateescape")
            try:
                cleaned = clean(path, text, unwanted_here, architecture)
            except SourceError as error:
                self.fail(str(error))
            if cleaned.removed:
                changed[path] = b"" if cleaned.empty else cleaned.text.encode("utf-8", "surrogateescape")
                self.result["removed"] += [f"{path}: {entry}" for entry in cleaned.removed]
        return changed

    def other_files(self) -> list[str]:
        folder = f"{self.options['root']}/sources.list.d"
        names = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
        parts = [f"{folder}/{name}" for name in names if re.fullmatch(r"[\w.-]+\.(list|sources)", name)]
        return [path for path in [f"{self.options['root']}/sources.list", *parts] if os.path.isfile(path) and path != self.path]

    def architecture(self) -> str:
        dpkg = self.module.get_bin_path("dpkg")
        rc, out, _ = self.module.run_command([dpkg, "--print-architecture"]) if dpkg else (1, "", "")
        return out.strip() if rc == 0 else {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())

    def write(self, path: str, content: bytes, backup: bool = False) -> None:
        """Make the file hold the content, or be gone where that is empty."""
        before = read(path)
        if (before or b"") == content:
            return
        self.result["changed"] = True
        self.result["diff"].append(
            {"before_header": path, "after_header": path, "before": readable(before or b""), "after": readable(content)}
        )
        if self.module.check_mode:
            return
        if backup and before is not None:
            self.result["backup_files"].append(self.module.backup_local(path))  # apt passes names that end in ~ over
        if not content:
            os.unlink(path)
            return
        make_folder(os.path.dirname(path))
        descriptor, candidate = tempfile.mkstemp(dir=self.module.tmpdir)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.chmod(candidate, 0o644)  # apt reads keys as a user of its own
        self.module.atomic_move(candidate, path)


def read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def readable(content: bytes) -> str:
    """A file for the diff; of a keyring, the fingerprints."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        try:
            return "".join(f"{key.fingerprint}\n" for key in read_keys(content))
        except KeyFormatError as error:
            return f"(not shown: {error})\n"


def main() -> None:
    words = {"type": "list", "elements": "str"}
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "types": {**words, "choices": ["deb", "deb-src"], "default": ["deb"]},
            "uris": {**words, "default": []},
            "suites": {**words, "default": []},
            "components": {**words, "default": []},
            "architectures": {**words, "default": []},
            "fingerprints": {**words, "default": []},
            "key_url": {"type": "str", "default": "", "no_log": False},
            "key": {"type": "str", "default": "", "no_log": False},
            "proxy": {"type": "str", "default": ""},
            "replaces": {**words, "default": []},
            "variables": {"type": "dict", "default": {}},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "root": {"type": "path", "default": "/etc/apt"},
        },
        supports_check_mode=True,
    )
    password = urlsplit(module.params["proxy"]).password
    if password:
        module.no_log_values.add(password)
    source = Source(module)
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", module.params["name"]):
        source.fail(f"name is {module.params['name']!r}, and may hold letters, digits, _, . and - only.")
    try:
        getattr(source, module.params["state"])()
    except OSError as error:
        module.fail_json(msg=f"{error}. The task may need become.", **source.result)
    module.exit_json(**source.result)


if __name__ == "__main__":
    main()
