# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action: the variables of this collection's roles, checked on the control node. Documented in plugins/modules."""

from __future__ import annotations

import datetime
import difflib

from ansible.errors import AnsibleError
from ansible.module_utils.common.parameters import DEFAULT_TYPE_VALIDATORS
from ansible.plugins.action import ActionBase
from ansible_collections.iopaint.fleet.plugins.module_utils.network import masked
from ansible_collections.iopaint.fleet.plugins.module_utils.text import is_one_line
from ansible_collections.iopaint.fleet.plugins.plugin_utils.specification import role_names, specification

CLOSE = 0.88  # difflib's ratio from which an unknown name counts as a misspelt one
KINDS = {
    "str": "text",
    "path": "a path",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a dictionary",
}
SCALARS = (str, int, float, bool)
# What YAML makes of text without quotes, and can't be undone.
MISREAD = (
    (bool, "YAML reads on, off, yes and no as true or false"),
    (float, "YAML reads 1.10 as the number 1.1"),
    (datetime.date, "YAML reads it as a date"),
    (int, "YAML drops the zeros that a number begins with"),
)
WORDS = (
    (dict, "a dictionary"),
    (list, "a list"),
    (str, "text"),
    (bool, "true or false"),
    ((int, float), "a number"),
    (type(None), "empty"),
)
OF_MANY_LINES = (  # keys and certificates, for a file each
    "docker_upstream_key",
    "docker_registry_cas",
    "iopaint_image_git_known_hosts",
    "iopaint_backup_ssh_key",
)
REPLACED = {  # by what; a setting that no longer counts must not be passed over in silence
    "iopaint_backup_target": "iopaint_backup_repository",
    "iopaint_backup_keep": "iopaint_backup_keep_daily, iopaint_backup_keep_weekly and iopaint_backup_keep_monthly",
    "iopaint_backup_mounted": "iopaint_backup_mount",
    "iopaint_backup_ssh": "iopaint_backup_ssh_key and iopaint_backup_ssh_known_hosts",
    "iopaint_backup_password": "iopaint_backup_environment",
    "iopaint_backup_rsync_options": "iopaint_backup_restic_options",
    "iopaint_restore_from": "iopaint_restore_snapshot",
}


def misread(name: str, value: object, option: dict) -> str:
    """Return why a text option can't be taken as it was given without quotes, or nothing.

    A whole number is what it looks like, except where it may begin with zeros: a commit or a secret.
    """
    if option.get("type", "str") not in ("str", "path") or option.get("choices"):
        return ""
    if isinstance(value, int) and not isinstance(value, bool) and name != "iopaint_image_ref" and not option.get("no_log"):
        return ""
    return next((reason for kind, reason in MISREAD if isinstance(value, kind)), "")


def described(value: object, kind: str) -> str:
    """Return a wrong value for a message; lists and dictionaries, which may hold secrets, are not shown."""
    if isinstance(value, datetime.date):
        return str(value)
    if kind in ("list", "dict") or not isinstance(value, (*SCALARS, type(None))):
        return next((word for types, word in WORDS if isinstance(value, types)), "something else")
    text = repr(masked(value, [value]) if isinstance(value, str) else value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def broken_texts(name: str, value: object) -> list[str]:
    """Return the places where a value has a control character; a line end would begin a line of its own in files and commands."""
    if name in OF_MANY_LINES:
        return []
    if isinstance(value, str):
        return [] if is_one_line(value) else [f"{name} has a line end or another control character, accepted: one line"]
    if isinstance(value, dict):
        keys = [text for key in value for text in broken_texts(f"A key of {name}", key)]
        return keys or [text for key, item in value.items() for text in broken_texts(f"{name}.{key}", item)]
    if isinstance(value, list):
        return [text for index, item in enumerate(value) for text in broken_texts(f"{name}[{index}]", item)]
    return []


def problems(name: str, value: object, option: dict) -> list[str]:  # noqa: PLR0911 - a case each
    """Return what is wrong with a value, one sentence each; name says where it stands, as in iopaint_instances[0].port."""
    kind = option.get("type", "str")
    shown = f"{name} is {described(value, kind)}"
    if option.get("no_log"):
        shown = f"{name} is wrong (its value is secret)"
    if reason := misread(name, value, option):
        return [f"{shown}, accepted: {KINDS[kind]} in quotes ({reason})"]
    if broken := broken_texts(name, value):
        return broken
    try:
        if kind in ("str", "path") and not isinstance(value, SCALARS):
            raise TypeError
        if kind in ("int", "float") and isinstance(value, bool):
            raise TypeError
        if kind in ("list", "dict") and isinstance(value, SCALARS):  # the validators would split text, roles do not
            raise TypeError
        parsed = DEFAULT_TYPE_VALIDATORS["str" if kind == "path" else kind](value)
    except (TypeError, ValueError):
        return [f"{shown}, accepted: {KINDS.get(kind, kind)}"]
    choices = option.get("choices")
    if kind == "list":
        element = {key: option.get(key) for key in ("options", "no_log")}
        element.update(type=option.get("elements", "raw"), choices=choices)
        return [text for index, item in enumerate(parsed) for text in problems(f"{name}[{index}]", item, element)]
    if choices and parsed not in choices:
        return [f"{shown}, accepted: {', '.join(map(str, choices))}"]
    if kind == "dict" and option.get("options"):
        return members(name, parsed, option["options"])
    return []


def members(name: str, value: dict, options: dict) -> list[str]:
    """Return what is wrong with the keys of a dictionary that has an option for each of them."""
    found = [f"{name} has no {key}, which it needs" for key, o in options.items() if o.get("required") and key not in value]
    for key, item in value.items():
        if key not in options:
            found.append(f"{name} has the unknown key {key}{nearest(str(key), options, 0.6)}, accepted: {', '.join(options)}")
        elif item is not None or options[key].get("required"):
            found += problems(f"{name}.{key}", item, options[key])
    return found


def nearest(word: str, known: list, cutoff: float) -> str:
    """Return a hint at the likeliest of the known names, or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return f" (nearest: {close[0]})" if close else ""


def misspelt(names: list, known: list) -> list[str]:
    """Return the names of ours that no role knows and that look like one it does."""
    unknown = sorted(name for name in names if name.startswith("iopaint_") and name not in known)
    hints = {name: nearest(name, known, CLOSE) for name in unknown}
    return [f"{name} is no variable of this collection{hint}" for name, hint in hints.items() if hint]


def is_result(value: object) -> bool:
    """Return whether a task registered it, as an earlier play of the same run may have done."""
    return isinstance(value, dict) and {"changed", "failed"} <= value.keys()


class ActionModule(ActionBase):
    """Runs on the control node alone."""

    TRANSFERS_FILES = False
    _requires_connection = False
    _VALID_ARGS = frozenset(("roles",))

    def run(self, tmp=None, task_vars=None):
        """Return the problems; failed where there is one."""
        result = super().run(tmp, task_vars)
        every_role = role_names()
        roles = {"type": "list", "elements": "str", "choices": every_role, "required": True}
        _result, arguments = self.validate_argument_spec({"roles": roles})
        found, known = [], {}
        for role in arguments["roles"]:
            known.update(specification(role))
        for name, option in known.items():
            if name not in task_vars:
                continue
            try:
                value = self._templar.template(task_vars[name])
            except AnsibleError as error:
                found.append(f"{name} can't be evaluated: {error}")
                continue
            if value is None:  # Ansible would hand on null, not the default
                kind = KINDS[option.get("type", "str")]
                found.append(f"{name} is empty, accepted: {kind} (without the line: {option.get('default')!r})")
            else:
                found += problems(name, value, option)
        found += [f"{old} was replaced by {new}" for old, new in REPLACED.items() if old in task_vars]
        found += misspelt(
            [name for name, value in task_vars.items() if name not in REPLACED and not is_result(value)],
            [name for role in every_role for name in specification(role)],
        )
        result.update(changed=False, problems=found)
        if found:
            result.update(failed=True, msg="Nothing was changed. " + "; ".join(found) + ".")
        return result
