#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: a base image, from the host, a registry or the distribution's packages."""

from __future__ import annotations

DOCUMENTATION = r"""
module: image_base
short_description: Provide the base image of a build from the host, a registry, an archive or Debian packages
version_added: 1.0.0
description:
  - Takes the image that the host has; else pulls it; else makes one from the distribution's packages with mmdebstrap.
options:
  name:
    description: The wanted base image, for example C(debian:bookworm-slim).
    type: str
    required: true
  source:
    description:
      - V(auto) tries host, registry and bootstrap in this order; V(pull) never bootstraps; V(bootstrap) never pulls.
      - Where it has to bootstrap and mmdebstrap is not installed, RV(how) is V(missing) and the module does no more.
    type: str
    choices: [auto, pull, bootstrap]
    default: auto
  suite:
    description: Debian suite of the bootstrapped image.
    type: str
    default: bookworm
  archive:
    description:
      - Archive on the host, as C(docker save) writes it, that holds the image and no other one. With it nothing is pulled
        or bootstrapped.
      - An archive keeps no digests, so one in O(name) doesn't count then.
      - Where neither the image nor this file is on the host, RV(how) is V(unloaded) and the module does no more.
    type: path
  recorded:
    description:
      - Whether a base that is no longer on the host will do, if an image on the host was built from it. RV(how) is V(recorded)
        then. Its ID tells whether a build is needed; a build itself needs the image.
      - C(docker system prune --all) removes base images, as no container runs them.
    type: bool
    default: false
  refresh:
    description:
      - Whether an image that is on the host is taken anew. One that has a tag is pulled again, one that was made from packages
        is made again, and one from an archive is loaded again. An image that is named by its digest never changes.
      - With O(source=auto), the image of the host stays if it can't be pulled, and RV(reason) says why.
      - An image that is made again takes the place of the present one only if its packages differ.
      - In check mode nothing is asked, and the image of the host counts.
    type: bool
    default: false
  mirror:
    description: Debian mirror for the bootstrap, which may hold a password; empty for mmdebstrap's own default.
    type: str
    default: ""
  proxies:
    description: C(http_proxy), C(https_proxy) and C(no_proxy) of the bootstrap's downloads; they may hold passwords.
    type: dict
    default: {}
  ca_bundle:
    description: PEM file on the host with the CAs that the bootstrap trusts.
    type: str
    default: ""
extends_documentation_fragment: iopaint.fleet.names
attributes:
  check_mode:
    support: full
    description: Reports whether an image would be pulled or made.
requirements: [docker, mmdebstrap (for the bootstrap)]
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Have the base image
  iopaint.fleet.image_base:
    name: debian:bookworm-slim
  register: base
"""

RETURN = r"""
image:
  description: Name to build from.
  type: str
  returned: success
  sample: iopaint-base:bookworm
id:
  description: The image's ID.
  type: str
  returned: success, unless the image is not there (check mode, or RV(how=missing))
how:
  description:
    - Where it came from (V(host), V(pulled), V(loaded) or V(bootstrapped)), or V(missing), V(unloaded) or V(recorded).
  type: str
  returned: success
  sample: host
reason:
  description: Why the image could not be pulled, in the engine's words; empty where it was not tried.
  type: str
  returned: success
"""

import hashlib
import os
import tarfile
import tempfile

from ansible_collections.iopaint.fleet.plugins.module_utils import archives
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import Docker
from ansible_collections.iopaint.fleet.plugins.module_utils.files import write
from ansible_collections.iopaint.fleet.plugins.module_utils.images import recorded_base
from ansible_collections.iopaint.fleet.plugins.module_utils.names import named
from ansible_collections.iopaint.fleet.plugins.module_utils.network import keep_secret
from ansible_collections.iopaint.fleet.plugins.module_utils.quiet import QuietModule

STATUS = "./var/lib/dpkg/status"
LABEL = "io.iopaint.fleet.dpkg-status"  # SHA-256 of it, of an image that was made here

# As Debian's own slim images: no recommended packages, no documentation but the licences, no translations.
SLIM = [
    '--aptopt=APT::Install-Recommends "false"',
    *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "groff", "info", "lintian", "linda", "locale", "man")),
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--dpkgopt=path-include=/usr/share/locale/locale.alias",
    # What merges /usr has done its work by then; 45 MB of Perl come with it.
    '--customize-hook=chroot "$1" apt-get purge -y -qq --autoremove usrmerge "perl-modules-*" "libperl5*" libtext-glob-perl >&2',
]


# What is the bootstrap's alone goes: a password in the mirror's address, the place of the CA bundle.
FORGET = r"""--customize-hook=for file in "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*; do
  if [ -f "$file" ]; then sed -i -E 's#://[^/@ ]+@#://#' "$file"; fi
done
sed -i -E '/CAInfo|Proxy/d' "$1"/etc/apt/apt.conf.d/99mmdebstrap"""

PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy")
SITES = ("Acquire::http::Proxy", "Acquire::https::Proxy")  # by which the host's own apt asks


def apt_settings(module):
    """Return the host's own proxies of apt as lines of an apt configuration; mmdebstrap reads none of the host's."""
    apt_config = module.get_bin_path("apt-config")
    rc, out, _err = module.run_command([apt_config, "dump", "--format", "%f %v%n"]) if apt_config else (1, "", "")
    found = [line.partition(" ") for line in out.splitlines()] if rc == 0 else []
    return "".join(
        f'{name} "{value}";\n' for name, _space, value in found if name.startswith(SITES) and value and '"' not in value
    )


def status_digest(archive):
    """Return the SHA-256 (hex) of dpkg's record of the packages in an archive of a root file system."""
    with tarfile.open(archive) as tar:
        return hashlib.sha256(tar.extractfile(STATUS).read()).hexdigest()


def bootstrap(module, docker, name, present):
    """Make the image `name` from packages and give its ID; fail the module with mmdebstrap's last words.

    present: the engine's document of the image that has the name now, or None. It stays where its packages are the same.
    """
    with tempfile.TemporaryDirectory(dir=module.tmpdir) as folder:
        archive = os.path.join(folder, "rootfs.tar")
        command = [
            "mmdebstrap",
            "--quiet",
            "--variant=minbase",
            "--include=ca-certificates,usr-is-merged",
            # As in Docker's own images of Debian: a build that a power cut ends is made anew, so dpkg needn't wait for the disk.
            "--dpkgopt=force-unsafe-io",
            *SLIM,
        ]
        params = module.params
        asked = {name: value for name, value in params["proxies"].items() if value}
        # Proxies of the host's environment have no part in it.
        environment = {**dict.fromkeys([name for each in PROXIES for name in (each, each.upper())], ""), **asked}
        settings = apt_settings(module)
        if settings and not asked:
            file = os.path.join(folder, "apt.conf")  # not as an option, as a password would stand in the process list
            write(file, settings, 0o600)
            command.append(f"--aptopt={file}")
        if params["ca_bundle"]:
            command.append(f'--aptopt=Acquire::https::CAInfo "{params["ca_bundle"]}"')
        command += [FORGET, params["suite"], archive]
        # By standard input, as a password would stand in the process list.
        source = {"data": f"deb {params['mirror']} {params['suite']} main"} if params["mirror"] else {}
        # Whatever the host's umask is, the image's folders are readable.
        rc, out, err = module.run_command(command + (["-"] if source else []), environ_update=environment, umask=0o022, **source)
        if rc != 0:
            module.fail_json(
                msg=f"The base image could not be made from the distribution's packages ({named(module, 'suite')}="
                f"{params['suite']}, {named(module, 'mirror')}={params['mirror'] or 'default'}): "
                f"{(err or out).strip()[-800:]} Name a mirror that the host reaches and a suite that it has, or set "
                f"{named(module, 'source')} to pull."
            )
        digest = status_digest(archive)
        if present and ((present.get("Config") or {}).get("Labels") or {}).get(LABEL) == digest:
            return present["Id"]
        changes = ("--change", 'CMD ["bash"]', "--change", f"LABEL {LABEL}={digest}")
        rc, out, err = docker.run("import", *changes, archive, name)
        if rc != 0:
            module.fail_json(msg=f"docker import of the bootstrapped base image failed: {err.strip()}")
    return out.strip()


def load(module, docker, name):
    """Load the archive, which has to hold the image of this name; return the image's ID."""
    archive = module.params["archive"]
    base, where = f"base image {name} ({named(module, 'name')})", f"the archive ({named(module, 'archive')})"
    rest = f"Name the image that the archive holds, or an archive that `docker save {name}` wrote. Nothing was loaded."
    try:
        held = archives.names(archive, module.get_bin_path)
    except archives.ArchiveError as error:
        module.fail_json(msg=f"The {base} can't be loaded from {where}: {error}. {rest}")
    if archives.short(name) not in held:
        there = ", ".join(sorted(held)) or "no image with a name"
        module.fail_json(msg=f"The {base} can't be loaded from {where}: it holds {there}. {rest}")
    others = sorted(held - {archives.short(name)})
    if others:
        module.fail_json(
            msg=f"Besides the {base}, {where} holds {', '.join(others)}, and would replace what "
            f"the host has under these names. Name an archive that `docker save {name}` wrote. Nothing was loaded."
        )
    rc, out, err = docker.run("load", "--quiet", "--input", archive)
    image = docker.image(name)
    if rc != 0 or image is None:
        module.fail_json(msg=f"The {base} can't be loaded from {where}: docker load says: {(err or out).strip()}")
    return image["Id"]


def finish(module, before, **result):
    """End the module with the image that is there now. before: the engine's document of the one that was there, or None."""
    if before is not None and before["Id"] == result["id"]:
        module.exit_json(changed=False, **{**result, "how": "host"})
    module.exit_json(changed=True, **result)


def main():
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "source": {"type": "str", "choices": ["auto", "pull", "bootstrap"], "default": "auto"},
            "suite": {"type": "str", "default": "bookworm"},
            "archive": {"type": "path"},
            "recorded": {"type": "bool", "default": False},
            "refresh": {"type": "bool", "default": False},
            "mirror": {"type": "str", "default": ""},
            "proxies": {"type": "dict", "default": {}},
            "ca_bundle": {"type": "str", "default": ""},
            "names": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    keep_secret(module, [module.params["mirror"], *module.params["proxies"].values()])
    name, source = module.params["name"], module.params["source"]
    if module.params["archive"]:
        name = name.partition("@")[0]
    made = f"iopaint-base:{module.params['suite']}"
    docker = Docker(module)
    candidates = [name] if module.params["archive"] else {"auto": [name, made], "pull": [name], "bootstrap": [made]}[source]

    found = next(((candidate, image) for candidate in candidates if (image := docker.image(candidate))), None)
    anew = module.params["refresh"] and not module.check_mode
    if found and (not anew or "@sha256:" in found[0]):  # what is named by its digest never changes
        module.exit_json(changed=False, image=found[0], id=found[1]["Id"], how="host", reason="")
    recorded = recorded_base(docker, candidates) if module.params["recorded"] and not anew else None
    if recorded:
        module.exit_json(changed=False, image=recorded[0], id=recorded[1], how="recorded", reason="")
    before = found[1] if found else None

    if module.params["archive"]:
        if module.check_mode:
            module.exit_json(changed=True, image=name, how="loaded", reason="")
        if not os.path.exists(module.params["archive"]):
            module.exit_json(changed=False, image=name, how="unloaded", reason="")
        finish(module, before, image=name, id=load(module, docker, name), how="loaded", reason="")

    if module.check_mode:
        image, how = (made, "bootstrapped") if source == "bootstrap" else (name, "pulled")
        module.exit_json(changed=True, image=image, how=how, reason="")

    reason = ""
    if source != "bootstrap" and not (found and found[0] == made):
        rc, _dummy, err = docker.run("pull", "--quiet", name)
        if rc == 0:
            finish(module, before, image=name, id=docker.image(name)["Id"], how="pulled", reason="")
        reason = err.strip()
        if source == "pull":
            module.fail_json(
                msg=f"The base image {name} ({named(module, 'name')}) could not be pulled: {reason} "
                f"Name a mirror, or set {named(module, 'source')} to auto or bootstrap."
            )
        if before:
            finish(module, before, image=name, id=before["Id"], how="host", reason=reason)
    if not module.get_bin_path("mmdebstrap"):
        module.exit_json(changed=False, image=made, how="missing", reason=reason)
    made_id = bootstrap(module, docker, made, before)
    finish(module, before, image=made, id=made_id, how="bootstrapped", reason=reason)


if __name__ == "__main__":
    main()
