"""Make `ansible_collections.iopaint.fleet` importable from the checkout, as Ansible itself would."""

from pathlib import Path

from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

ROOT = Path(__file__).resolve().parents[2]

# `make env` links the checkout to build/collections/ansible_collections/iopaint/fleet.
_AnsibleCollectionFinder(paths=[str(ROOT / "build" / "collections")])._install()
