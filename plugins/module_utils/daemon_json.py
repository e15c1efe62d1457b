# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Edit Docker's daemon.json by key, and tell what an edit asks of the engine that reads it.

An edit replaces the letters of what it changes and no others, so numbers, escapes, order and layout survive as the
user wrote them.
"""

from __future__ import annotations

import json
import math
import os.path
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Callable, NamedTuple

# Docker's documentation, "Configuration reload behavior". It lists `features` too, but the engine reads
# `features.cdi` and `features.containerd-snapshotter` only when it starts.
RELOADED = {
    "allow-nondistributable-artifacts",
    "authorization-plugins",
    "debug",
    "default-runtime",
    "insecure-registries",
    "labels",
    "live-restore",
    "max-concurrent-downloads",
    "max-concurrent-uploads",
    "max-download-attempts",
    "registry-mirrors",
    "runtimes",
    "shutdown-timeout",
}

# A reload leaves a key that is gone from the file at its running value; only these fall back to their default.
RESET_BY_RELOAD = {
    "authorization-plugins",
    "max-concurrent-downloads",
    "max-concurrent-uploads",
    "max-download-attempts",
}

# Keys whose objects are one value; dockerd lifts the members of any other object (`proxies`) to the top.
WHOLE = {
    "builder",
    "cluster-store-opts",
    "default-network-opts",
    "default-ulimits",
    "features",
    "log-opts",
    "runtimes",
}

# Flags that go by another name in the file. `--add-runtime` is not among them: dockerd merges it with `runtimes`.
KEY_OF_FLAG = {
    "authorization-plugin": "authorization-plugins",
    "cdi-spec-dir": "cdi-spec-dirs",
    "cluster-store-opt": "cluster-store-opts",
    "default-address-pool": "default-address-pools",
    "default-network-opt": "default-network-opts",
    "default-ulimit": "default-ulimits",
    "dns-opt": "dns-opts",
    "exec-opt": "exec-opts",
    "feature": "features",
    "host": "hosts",
    "host-gateway-ip": "host-gateway-ips",
    "insecure-registry": "insecure-registries",
    "label": "labels",
    "log-opt": "log-opts",
    "node-generic-resource": "node-generic-resources",
    "registry-mirror": "registry-mirrors",
    "storage-opt": "storage-opts",
}

SHORT_FLAGS = {
    "D": "debug",
    "G": "group",
    "H": "host",
    "b": "bridge",
    "l": "log-level",
    "p": "pidfile",
    "s": "storage-driver",
}

SPACE = " \t\r\n"
_SPACES = re.compile(f"[{SPACE}]*")
MAX_DEPTH = 100


class ConfigError(ValueError):
    """What is wrong, where, and what to do about it: whole sentences, for the person who reads them at night."""


# --- Reading -----------------------------------------------------------------------------------------------------


class Number(NamedTuple):
    """A number as it is spelt, which neither int nor float would keep."""

    literal: str

    def means(self, wanted: float) -> bool:
        """Return whether two numbers are equal; an integer is never a float, as the engine tells 1 from 1.0."""
        if isinstance(wanted, int):
            return self.literal == str(wanted)
        return not self.literal.lstrip("-").isdigit() and float(self.literal) == wanted


class Node(NamedTuple):
    """A value and where it stands in the text."""

    value: Any  # dict of Node, list of Node, str, bool, None or Number
    begin: int  # of the key in an object, else the same as start
    start: int
    end: int


def where(text: str, offset: int) -> str:
    return f"line {text.count(chr(10), 0, offset) + 1}, column {offset - text.rfind(chr(10), 0, offset)}"


def decode(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        sound = data[: error.start].decode()
        raise ConfigError(
            f"{where(sound, len(sound))}: byte 0x{data[error.start]:02x} is not UTF-8. Save the file as UTF-8."
        ) from error


def parse(text: str) -> Node:
    """Read a whole document, as strictly as RFC 8259 and with unique keys."""
    if text.startswith("\ufeff"):
        raise ConfigError("line 1, column 1: a byte order mark. Save the file as UTF-8 without one.")
    root = _value(text, _skip(text, 0))
    rest = _skip(text, root.end)
    if rest < len(text):
        raise _unexpected(text, rest, "the end of the file")
    if not isinstance(root.value, dict):
        raise ConfigError(
            f"{where(text, root.start)}: {_kind(root.value)} where the object with the engine's options should be. "
            "Put the options between { and }, or empty the file."
        )
    return root


def document(text: str) -> dict[str, Any]:
    """Return the options in a file's text; an empty file has none."""
    return _plain(parse(text)) if text.strip(SPACE) else {}


def _plain(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {key: _plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(child) for child in node.value]
    return node.value


def _no_constant(name: str) -> None:
    raise ValueError(name)  # NaN and the infinities are Python's, not JSON's


_SCALARS = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=_no_constant)


def _skip(text: str, offset: int) -> int:
    return _SPACES.match(text, offset).end()


def _value(text: str, start: int, begin: int | None = None, depth: int = 0) -> Node:
    begin = start if begin is None else begin
    if text[start : start + 1] in ("{", "["):
        if depth == MAX_DEPTH:
            raise ConfigError(f"{where(text, start)}: nested more than {MAX_DEPTH} deep. This is no engine configuration.")
        return _container(text, start, begin, depth)
    value, end = _scalar(text, start, "a value")
    return Node(value, begin, start, end)


def _scalar(text: str, start: int, expected: str) -> tuple[Any, int]:
    try:
        return _SCALARS.raw_decode(text, start)
    except json.JSONDecodeError as error:
        if text[start : start + 1] == '"':
            problem = re.sub(r"( starting)? at$", "", error.msg)
            raise ConfigError(f"{where(text, error.pos)}: {problem}. Look for a quote or backslash amiss.") from error
        raise _unexpected(text, start, expected) from error
    except ValueError as error:
        raise _unexpected(text, start, expected) from error


def _container(text: str, start: int, begin: int, depth: int) -> Node:
    members: Any = {} if text[start] == "{" else []
    closing = "}" if text[start] == "{" else "]"
    offset = _skip(text, start + 1)
    if text[offset : offset + 1] == closing:
        return Node(members, begin, start, offset + 1)
    while True:
        if isinstance(members, dict):
            key, value_start = _key(text, offset, members)
            child = members[key] = _value(text, value_start, offset, depth + 1)
        else:
            child = _value(text, offset, depth=depth + 1)
            members.append(child)
        offset = _skip(text, child.end)
        if text[offset : offset + 1] == closing:
            return Node(members, begin, start, offset + 1)
        if text[offset : offset + 1] != ",":
            raise _unexpected(text, offset, f"a comma or {closing}")
        offset = _skip(text, offset + 1)


def _key(text: str, start: int, seen: dict[str, Node]) -> tuple[str, int]:
    if text[start : start + 1] != '"':
        raise _unexpected(text, start, "a key in double quotes")
    key, end = _scalar(text, start, "a key")
    if key in seen:
        raise ConfigError(
            f'{where(text, start)}: the key "{key}" is there twice, first at {where(text, seen[key].begin)}. '
            "Remove one of the two."
        )
    colon = _skip(text, end)
    if text[colon : colon + 1] != ":":
        raise _unexpected(text, colon, "a colon")
    return key, _skip(text, colon + 1)


def _unexpected(text: str, offset: int, expected: str) -> ConfigError:
    found = text[offset : offset + 1]
    if not found:
        problem = f"the file ends where {expected} should be. Complete it."
    elif found == "#" or text.startswith(("//", "/*"), offset):
        problem = "a comment, for which JSON has no place. Remove it."
    elif found in "}]":
        problem = f"{found} where {expected} should be. Look for a comma too many before it."
    else:
        problem = f"{found} where {expected} should be. Correct or remove it."
    return ConfigError(f"{where(text, offset)}: {problem}")


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    return "a list" if isinstance(value, list) else "a plain value"


# --- Editing -----------------------------------------------------------------------------------------------------


def merge(text: str, settings: dict[str, Any], absent: Sequence[str] = (), lists: str = "replace") -> str:
    """Return the text with the settings and without the absent keys; the very same text if nothing changes."""
    _check_values(settings)
    for dotted in absent:
        if find(settings, dotted):
            raise ConfigError(f'"{dotted}" is both in settings and in absent. Remove it from one of the two.')
    base = text if text.strip(SPACE) else "{}\n"
    root = parse(base)
    unit = _member_indent(base, root) if root.value else "  "
    edits = _edits(base, root, settings, lists == "union", unit)
    merged = base
    for start, end, new in sorted(edits, reverse=True):  # from the end, so that the offsets hold
        merged = merged[:start] + new + merged[end:]
    for dotted in absent:
        while keys := find(document(merged), dotted):  # with dots in keys, one name can lead to several
            merged = _without(merged, keys)
    return text if merged == base else merged


def find(tree: Any, dotted: str) -> tuple[str, ...]:
    """Return the keys that a dotted path leads along, empty where there is none; keys may have dots of their own."""
    if not isinstance(tree, dict):
        return ()
    if dotted in tree:
        return (dotted,)
    for key, value in tree.items():
        rest = find(value, dotted[len(key) + 1 :]) if dotted.startswith(f"{key}.") else ()
        if rest:
            return (key, *rest)
    return ()


def same(node: Node, wanted: Any) -> bool:
    """Return whether the file's value means what is wanted."""
    have = node.value
    if isinstance(wanted, dict):
        return (
            isinstance(have, dict)
            and have.keys() == wanted.keys()
            and all(same(child, wanted[key]) for key, child in have.items())
        )
    if isinstance(wanted, list):
        return isinstance(have, list) and len(have) == len(wanted) and all(map(same, have, wanted))
    if isinstance(wanted, (int, float)) and not isinstance(wanted, bool):
        return isinstance(have, Number) and have.means(wanted)
    return isinstance(wanted, type(have)) and have == wanted


class Edit(NamedTuple):
    start: int
    end: int
    new: str


def _edits(text: str, node: Node, wanted: dict[str, Any], union: bool, unit: str | None) -> Iterator[Edit]:
    fresh = {}
    for key, value in wanted.items():
        have = node.value.get(key)
        if have is None:
            fresh[key] = value
        elif have.value is None:
            yield Edit(have.start, have.end, _dump(value, unit, _line_indent(text, have.start)))
        elif _kind(have.value) != _kind(value):
            raise ConfigError(
                f'{where(text, have.start)}: "{key}" is {_kind(have.value)} here and {_kind(value)} in settings. '
                "Correct the one that is wrong."
            )
        elif isinstance(value, dict):
            yield from _edits(text, have, value, union, unit)
        elif isinstance(value, list) and union:
            distinct = {_dump(item): item for item in value}.values()
            missing = [item for item in distinct if not any(same(old, item) for old in have.value)]
            if missing:
                yield _growth(text, have, missing, unit)
        elif not same(have, value):
            unit_here = unit if "\n" in text[have.start : have.end] else None
            yield Edit(have.start, have.end, _dump(value, unit_here, _line_indent(text, have.start)))
    if fresh:
        yield _growth(text, node, fresh, unit)


def _growth(text: str, node: Node, extra: dict[str, Any] | list[Any], unit: str | None) -> Edit:
    """Return the text to append for new members of an object or a list, laid out like its other members."""
    if not node.value:
        return Edit(node.start, node.end, _dump(extra, unit, _line_indent(text, node.start)))
    indent = _member_indent(text, node)
    lead, unit = (" ", None) if indent is None else (f"\n{indent}", unit)
    if isinstance(extra, dict):
        members = [f"{_dump(key)}: {_dump(value, unit, indent)}" for key, value in extra.items()]
    else:
        members = [_dump(value, unit, indent) for value in extra]
    end = _children(node)[-1].end
    return Edit(end, end, "".join(f",{lead}{member}" for member in members))


def _without(text: str, keys: tuple[str, ...]) -> str:
    """Return the text without the member that the keys lead to, and without the comma it needed."""
    parent = parse(text)
    for key in keys[:-1]:
        parent = parent.value[key]
    members = _children(parent)
    index = list(parent.value).index(keys[-1])
    if len(members) == 1:
        start, end = parent.start + 1, parent.end - 1
    elif index == 0:
        start, end = members[0].begin, members[1].begin
    else:
        start, end = members[index - 1].end, members[index].end
    return text[:start] + text[end:]


def _dump(value: Any, unit: str | None = None, indent: str | None = None) -> str:
    return json.dumps(value, indent=unit, ensure_ascii=False).replace("\n", f"\n{indent or ''}")


def _children(node: Node) -> list[Node]:
    return list(node.value.values()) if isinstance(node.value, dict) else node.value


def _line_indent(text: str, offset: int) -> str:
    line = text[text.rfind("\n", 0, offset) + 1 : offset]
    return line[: len(line) - len(line.lstrip(SPACE))]


def _member_indent(text: str, node: Node) -> str | None:
    """Return the indentation of the first member, none where it follows its bracket on the same line."""
    gap = text[node.start + 1 : _children(node)[0].begin]
    return gap[gap.rindex("\n") + 1 :] if "\n" in gap else None


def _check_values(value: Any, name: str = "settings") -> None:
    if isinstance(value, dict):
        for key, member in value.items():
            if member is None:
                raise ConfigError(f"{name}.{key} is null. Give it a value, or remove the key by naming it in absent.")
            _check_values(member, f"{name}.{key}")
    elif isinstance(value, list):
        for index, member in enumerate(value):
            _check_values(member, f"{name}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} is {value}, which JSON has no word for. Give it a number.")


# --- What the engine makes of it ---------------------------------------------------------------------------------


def actions(before: dict[str, Any], after: dict[str, Any]) -> dict[str, str]:
    """Return each top-level key that differs, with what makes the engine take it up: a reload or a restart."""
    changed = [key for key in {**before, **after} if key not in before or key not in after or before[key] != after[key]]
    return {key: "reload" if key in (RELOADED if key in after else RESET_BY_RELOAD) else "restart" for key in changed}


class Word(NamedTuple):
    text: str
    source: str  # the file it stands in


class Flag(NamedTuple):
    name: str
    value: str
    source: str


def check(options: dict[str, Any], flags: Sequence[Flag] = ()) -> None:
    """Refuse what `dockerd --validate` lets pass and what then keeps the engine from starting."""
    runtimes = options.get("runtimes")
    runtimes = runtimes if isinstance(runtimes, dict) else {}
    if "runc" in runtimes:
        raise ConfigError('"runtimes" has an entry "runc", a name the engine keeps for its own. Choose another name.')
    known = {*runtimes, *(flag.value.partition("=")[0] for flag in flags if flag.name == "add-runtime")}
    default = options.get("default-runtime")
    if isinstance(default, str) and default not in {"", *known} and not _built_in(default):
        raise ConfigError(
            f'"default-runtime" is "{default}", which "runtimes" does not define '
            f"(it has: {', '.join(sorted(known)) or 'nothing'}). Add it to runtimes, or choose another default."
        )
    keys = {name for key, value in options.items() for name in (value if isinstance(value, dict) and key not in WHOLE else [key])}
    conflicts = {
        f'"{key}" is also given as --{flag.name} in {flag.source}'
        for flag in flags
        for key in {flag.name, KEY_OF_FLAG.get(flag.name, flag.name)} & keys
    }
    if conflicts:
        raise ConfigError(
            f"{'; '.join(sorted(conflicts))}. The engine does not start with an option in both places: "
            "take the key out of the file, or the flag out of the unit with a drop-in."
        )


def _built_in(runtime: str) -> bool:
    # containerd finds a shim by a dotted name (io.containerd.runc.v2); the engine allows no paths here
    return runtime == "runc" or ("." in runtime[1:] and not runtime.startswith(".") and "/" not in runtime)


def command_line(listing: str, read: Callable[[str], str]) -> list[Word]:
    """Return dockerd's arguments in `systemctl cat`'s listing of a unit and its drop-ins.

    `read` returns the text of an EnvironmentFile, an empty one where there is none.
    """
    source = ""
    commands: list[Word] = []
    environment: dict[str, Word] = {}
    environment_files: list[str] = []
    for line in re.sub(r"\\\n(?:[ \t]*[#;].*\n)*", " ", listing).splitlines():
        header = re.fullmatch(r"# (/.+\.(?:service|conf))", line)
        source = header[1] if header else source
        name, _separator, value = (part.strip() for part in line.partition("="))
        # an empty assignment takes back what came before
        if name == "ExecStart":
            commands = [*commands, Word(value, source)] if value else []
        elif name == "Environment":
            environment = {**environment, **_variables(_split(value), source)} if value else {}
        elif name == "EnvironmentFile":
            environment_files = [*environment_files, value.lstrip("-")] if value else []
    for file in environment_files:
        environment.update(_variables(read(file).splitlines(), file))
    words = [word for command in commands for word in _expanded(command, environment)]
    program = next((index for index, word in enumerate(words) if os.path.basename(word.text) == "dockerd"), len(words))
    return words[program + 1 :]


def _expanded(command: Word, environment: dict[str, Word]) -> Iterator[Word]:
    unset = Word("", command.source)
    for text in _split(command.text):
        if re.fullmatch(r"\$\w+", text):  # systemd splits the value of $NAME, and of ${NAME} not
            variable = environment.get(text[1:], unset)
            yield from (Word(part, variable.source) for part in _split(variable.text))
        else:
            yield Word(re.sub(r"\$\{(\w+)\}", lambda m: environment.get(m[1], unset).text, text), command.source)


def parse_flags(words: Sequence[Word]) -> list[Flag]:
    """Return the flags among a command line's words; `--opt value` and `--opt=value` alike."""
    found = []
    for (text, source), (following, _source) in zip(words, [*words[1:], Word("", "")]):
        if text.startswith("--"):
            name, given, value = text[2:].partition("=")
            found.append(Flag(name, value if given else following, source))
        elif text.startswith("-"):
            letters = text[1:]
            while letters[:1] == "D":  # the one short flag without a value, so others may follow it
                found.append(Flag("debug", "", source))
                letters = letters[1:]
            if letters[:1] in SHORT_FLAGS:
                value = letters[1:].lstrip("=") or following
                found.append(Flag(SHORT_FLAGS[letters[0]], value, source))
    return found


def _variables(assignments: Iterable[str], source: str) -> dict[str, Word]:
    pairs = (line.strip().partition("=") for line in assignments if "=" in line and line.strip()[0] not in "#;")
    return {name: Word(" ".join(_split(value)), source) for name, _sign, value in pairs}


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # an unbalanced quote; the words are good enough to look for flags in
        return text.split()
