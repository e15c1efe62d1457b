#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: images between a host's engine and a registry, under the names that they were built with."""

from __future__ import annotations

DOCUMENTATION = r"""
module: registry_image
short_description: Push images to a registry, and pull them by digest under the names that they were built with
version_added: 1.0.0
description:
  - On a host an image always has the name that it was built with; what the registry calls it is its digest. So nothing else
    has to know whether an image was built here or pulled.
  - An image that is there is not asked for again, so that a registry that is down is in nobody's way.
  - One call does what takes a login, a pull and several tags otherwise, and needs no Python package on the host.
options:
  state:
    description:
      - V(here) asks no network. It points the tags at the images that are there and names those that are missing.
      - V(pulled) pulls the missing ones as well.
      - V(pushed) pushes those whose digest in the repository is not known yet, and with O(again) all of them.
    type: str
    choices: [here, pulled, pushed]
    required: true
  repository:
    description: Where the images lie, as C(registry.example.com:5000/team/iopaint).
    type: str
    required: true
  images:
    description:
      - The images. C(image) is the name that it was built with, whose tag is that in the repository too, C(tags) are further
        names on the host, C(digest) is its digest in the repository (without one V(pulled) goes by the tag), C(aliases) are
        further tags that V(pushed) gives it there. All but the first may be left out; what else an entry holds is handed on.
    type: list
    elements: dict
    required: true
  optional:
    description: "V(pulled): an image that the registry does not have is no error, it stays missing."
    type: bool
    default: false
  again:
    description: "V(pushed): whether the registry is asked for what it is known to have had. It may have lost it."
    type: bool
    default: false
notes:
  - The login is that of the docker command line, from C(config.json) in the folder that the environment's C(DOCKER_CONFIG) names.
  - O(names) may also hold C(ca), C(login) and C(proxy), for advice on the certificate, the login and the engine's proxy.
extends_documentation_fragment: iopaint.fleet.names
attributes:
  check_mode:
    support: full
    description: Reports what would be pulled, pushed or tagged, by what the host has.
requirements: [docker]
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
- name: Push the image
  iopaint.fleet.registry_image:
    state: pushed
    repository: registry.example.com:5000/team/iopaint
    images: [{image: "iopaint:cpu-61a759fb3f33-9d2f0c11aa42"}]
  environment:
    DOCKER_CONFIG: /run/iopaint/registry
  register: pushed

- name: Pull the image
  iopaint.fleet.registry_image:
    state: pulled
    repository: registry.example.com:5000/team/iopaint
    images: "{{ pushed.images }}"
"""

RETURN = r"""
images:
  description:
    - The images as given, each with C(digest) in the repository (none where it is not known), C(how) (V(here), V(pulled),
      V(pushed) or V(missing)) and C(seconds) that it took.
    - C(id) and C(size) of those that are on the host.
  type: list
  elements: dict
  returned: success
missing:
  description: Names of the images that the host does not have.
  type: list
  elements: str
  returned: success
"""

import re
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import Docker
from ansible_collections.iopaint.fleet.plugins.module_utils.registry import digest_of, explain, is_unknown


class Steps:
    """The states, one image at a time."""

    def __init__(self, module):
        """Take the module that runs."""
        self.module, self.params = module, module.params
        self.docker, self.repository = Docker(module), module.params["repository"]
        self.changed = False

    def fail(self, what, output):
        """Fail the module; nothing that runs was touched by a pull or a push."""
        root = self.docker.info("{{.DockerRootDir}}")
        self.module.fail_json(
            msg=f"{what}: {explain(output, self.repository, root, self.params['names'])} Nothing that runs was touched."
        )

    def tag(self, image, names):
        """Point names at an image."""
        for name in names:
            current = self.docker.image(name)
            if current is None or current["Id"] != image["Id"]:
                self.changed = True
                if not self.module.check_mode:
                    self.docker.run("tag", image["Id"], name, check_rc=True)

    def pull(self, name, optional=False):
        """Pull by tag or digest; return whether the registry has it."""
        rc, out, err = self.docker.run("pull", "--quiet", name)
        if rc == 0:
            return True
        if not (optional and is_unknown(err)):
            self.fail(f"The image {name} could not be pulled", err or out)
        return False

    def by_digest(self, digest):
        """Let the engine know an image by its digest alone, as every host does: a tag of the registry would never be pruned."""
        self.pull(f"{self.repository}@{digest}")

    def fetch(self, wanted):
        """Pull one image that the host does not have; return the engine's document, None where the registry has none either."""
        if wanted["digest"]:
            self.by_digest(wanted["digest"])
            return self.docker.image(f"{self.repository}@{wanted['digest']}")
        name = f"{self.repository}:{tag_of(wanted['image'])}"
        if not self.pull(name, self.params["optional"]):
            return None
        digest = digest_of(self.docker.image(name), self.repository)
        self.tag(self.docker.image(name), [wanted["image"]])  # so that it stays without the registry's tag
        self.docker.run("image", "rm", name, check_rc=True)
        self.by_digest(digest)
        return self.docker.image(wanted["image"])

    def push(self, wanted, image):
        """Push one image under its tags; return its digest."""
        digest, tags = None, [tag_of(wanted["image"]), *wanted["aliases"]]
        for name in (f"{self.repository}:{tag}" for tag in tags):
            self.docker.run("tag", image["Id"], name, check_rc=True)
            rc, out, err = self.docker.run("push", name)
            if rc != 0:
                self.docker.run("image", "rm", name)
                self.fail(f"The image {wanted['image']} could not be pushed to {name}", err or out)
            self.changed = self.changed or bool(re.search(r": (Pushed|Mounted from)", out)) or not wanted["digest"]
            digest = re.search(r"digest: (sha256:[0-9a-f]{64})", out)[1]
        for tag in tags:
            self.docker.run("image", "rm", f"{self.repository}:{tag}", check_rc=True)
        self.by_digest(digest)
        return digest

    def step(self, given):
        """Do what the state asks of one image, and return what is known of it then."""
        state, start, how = self.params["state"], time.monotonic(), "here"
        given = {"tags": [], "aliases": [], "digest": None, **given}
        image = self.docker.image(given["image"])
        wanted = {**given, "digest": given["digest"] or (digest_of(image, self.repository) if image else None)}
        if image is None and state == "pulled":
            how = "pulled"
            if self.module.check_mode:
                self.changed = not self.params["optional"]
            else:
                image = self.fetch(given)
                self.changed = self.changed or image is not None
        if image is not None and state == "pushed" and (self.params["again"] or not digest_of(image, self.repository)):
            how = "pushed"
            if self.module.check_mode:
                self.changed = self.changed or not wanted["digest"]
            else:
                wanted["digest"] = self.push(wanted, image)
        if image is None:
            return {**wanted, "how": "missing", "seconds": 0.0}
        self.tag(image, [wanted["image"], *wanted["tags"]])
        if not self.module.check_mode:
            wanted["digest"] = wanted["digest"] or digest_of(self.docker.image(wanted["image"]), self.repository)
        seconds = 0.0 if how == "here" else round(time.monotonic() - start, 1)
        return {**wanted, "how": how, "seconds": seconds, "id": image["Id"], "size": image["Size"]}


def tag_of(name):
    """Return the tag of an image's name."""
    return name.rpartition(":")[2]


def main():
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["here", "pulled", "pushed"], "required": True},
            "repository": {"type": "str", "required": True},
            "images": {"type": "list", "elements": "dict", "required": True},
            "optional": {"type": "bool", "default": False},
            "again": {"type": "bool", "default": False},
            "names": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    steps = Steps(module)
    images = [steps.step(each) for each in module.params["images"]]
    missing = [each["image"] for each in images if each["how"] == "missing"]
    module.exit_json(changed=steps.changed, images=images, missing=missing)


if __name__ == "__main__":
    main()
