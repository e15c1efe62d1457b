# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters of the role gateway: which instances a gateway serves from, and what is wrong with its certificate and users."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Mapping

from ansible.errors import AnsibleFilterError
from ansible_collections.iopaint.fleet.plugins.filter.instances import HOST_NAME, instances
from ansible_collections.iopaint.fleet.plugins.module_utils.haproxy import CANDIDATE
from ansible_collections.iopaint.fleet.plugins.module_utils.network import reached_at
from ansible_collections.iopaint.fleet.plugins.plugin_utils import devices
from ansible_collections.iopaint.fleet.plugins.plugin_utils.specification import specification

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")
USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9@._+-]{0,63}")
# crypt(3)'s own forms: sha256, sha512, bcrypt, yescrypt. DES and MD5 are broken.
HASH = re.compile(r"\$(5|6|2[aby]|y)\$[A-Za-z0-9./$=,]{20,120}")
# What HAProxy or an instance needs under these names, and the gateway would take away.
TAKEN_HEADERS = {"authorization", "connection", "content-length", "cookie", "host", "origin", "transfer-encoding", "upgrade"}
# A server that is not in maintenance, by the measures for Prometheus.
IN_SERVICE = re.compile(r'haproxy_server_status\{proxy="[^"]+",server="([^"]+)",state="MAINT"\} 0')
UNTOUCHED = "The running gateway was not touched."


def setting(variables, name):
    """Return a variable of a host, or the default of the role that it belongs to."""
    role = "iopaint_common" if name in specification("iopaint_common") else "iopaint"
    return variables.get(name, specification(role)[name].get("default"))


def wanted_on(host, variables, early):
    """Return the completed instances of one host; raise AnsibleFilterError where they are wrong or depend on unknown GPUs.

    early: whether GPUs may be unknown, as before a host is provisioned. An instance for each of them then is one.
    """
    found = variables.get("nvidia_container_toolkit_result")
    gpus = found.get("devices") if isinstance(found, Mapping) else None
    defaults = {key: setting(variables, f"iopaint_{key}") for key in ("model", "bind_address", "memory")}
    try:
        done = instances(setting(variables, "iopaint_instances"), {"variant": "cpu", "token": True, **defaults}, gpus=gpus)
    except AnsibleFilterError as error:
        raise AnsibleFilterError(f"{host}: {error} {UNTOUCHED}") from None
    if gpus is None and not early and any(instance.get("devices") == devices.AUTO for instance in done):
        raise AnsibleFilterError(
            f"{host} has an instance for each of its GPUs, and this run did not look at them. Run the playbook without -l, "
            f"or list devices in iopaint_instances of the host. {UNTOUCHED}"
        )
    return done


def server(host, instance, variables, gateway):
    """Return one server of a pool. address is empty where the gateway can't reach the instance."""
    published = instance["published"]["address"]
    parsed = ipaddress.ip_address(published)
    if host == gateway:
        address = reached_at(published).strip("[]")  # HAProxy takes what follows the last colon as the port
    elif parsed.is_loopback:
        address = ""
    elif parsed.is_unspecified:
        address = str(variables.get("iopaint_address") or variables.get("ansible_host") or host)
    else:
        address = published
    name = f"{host}:{instance['name']}"
    return {
        "name": re.sub(r"[^A-Za-z0-9_.:-]", "-", name),
        "cookie": hashlib.sha256(name.encode()).hexdigest()[:16],  # tells nobody the name of a host
        "host": host,
        "instance": instance["name"],
        "variant": instance["variant"],
        "labels": [str(label) for label in instance.get("labels") or []],
        "published": published,
        "address": address,
        "port": instance["port"],
    }


def check_pools(pools):
    """Raise AnsibleFilterError where names of pools are wrong or used twice."""
    for index, pool in enumerate(pools):
        where = f"gateway_pools[{index}]"
        if not NAME.fullmatch(str(pool["name"])):
            raise AnsibleFilterError(
                f"{where}: name {pool['name']!r} must begin with a lower-case letter or digit and go on with these, - and _ "
                f"(41 characters at most). {UNTOUCHED}"
            )
        if not HOST_NAME.fullmatch(str(pool["host"])):
            raise AnsibleFilterError(
                f"{where}: host {pool['host']!r} must be a host name, as gpu.paint.example.com, without scheme and port. "
                + UNTOUCHED
            )
    for key in ("name", "host"):
        values = [str(pool[key]).lower() for pool in pools]
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise AnsibleFilterError(
                f"gateway_pools: {key} {', '.join(twice)} is used by more than one pool. Give each pool its own. {UNTOUCHED}"
            )


def gateway_pools(wanted, hostvars, groups, gateway, name, *, early=False):
    """Return the pools of a gateway with their servers; raise AnsibleFilterError with the entry's place on what is wrong.

    wanted: gateway_pools. groups: hosts by group. gateway: inventory name of the gateway. name: gateway_name, for the only pool.
    early: whether the hosts' GPUs may be unknown.
    """
    if not wanted and not HOST_NAME.fullmatch(str(name)):
        raise AnsibleFilterError(
            f"gateway_name is {name!r}, and must be a host name, as paint.example.com, without scheme and port. {UNTOUCHED}"
        )
    pools = list(wanted) or [{"name": "paint", "host": name}]
    check_pools(pools)
    hosts = list(dict.fromkeys([*groups.get("gpu_hosts", []), *groups.get("cpu_hosts", [])]))
    servers = [
        server(host, instance, hostvars[host], gateway) for host in hosts for instance in wanted_on(host, hostvars[host], early)
    ]
    done = []
    labels = {label for each in servers for label in each["labels"]}
    for index, pool in enumerate(pools):
        where = f"gateway_pools[{index}] ({pool['name']})" if wanted else "gateway_pools"
        asked = {str(label) for label in pool.get("labels") or []}
        strange = sorted(asked - labels)
        if strange:
            raise AnsibleFilterError(
                f"{where}: no instance has the label {', '.join(strange)}; there are {', '.join(sorted(labels)) or 'none'}. "
                f"Correct it, or add it to labels of an instance in iopaint_instances. {UNTOUCHED}"
            )
        unknown = sorted(set(pool.get("groups") or []) - set(groups))
        if unknown:
            raise AnsibleFilterError(f"{where}: the inventory has no group {', '.join(unknown)}. {UNTOUCHED}")
        members = {host for group in pool.get("groups") or [] for host in groups[group]}
        chosen = [
            each
            for each in servers
            if (not pool.get("groups") or each["host"] in members)
            and pool.get("variant") in (None, "", each["variant"])
            and asked <= set(each["labels"])
            and (not pool.get("instances") or each["instance"] in pool["instances"])
        ]
        if not chosen:
            raise AnsibleFilterError(
                f"{where} has no instance: none of {', '.join(each['name'] for each in servers) or 'the inventory'} fits its "
                f"groups, variant, labels and instances. {UNTOUCHED}"
            )
        hidden = [each for each in chosen if not each["address"]]
        if hidden:
            raise AnsibleFilterError(
                f"{where}: the gateway {gateway} can't reach {', '.join(each['name'] for each in hidden)}, published on "
                f"{', '.join(sorted({each['published'] for each in hidden}))} of another host. Set iopaint_bind_address (or "
                f"bind_address of the instance) to an address of that host which the gateway reaches. {UNTOUCHED}"
            )
        done.append({"name": str(pool["name"]), "host": str(pool["host"]).lower(), "servers": chosen})
    return done


def candidates_served(asked, prefix, names=None):
    """Return pairs of a gateway and a candidate of the host's instances that it serves from.

    asked: results of asking each gateway (item) for its measures (content). prefix: what the names of the host's servers begin
    with, which the candidates' names come without. names: of the instances, None for all.
    """
    wanted = None if names is None else {f"{prefix}{name}{CANDIDATE}" for name in names}
    return [
        [result["item"], server.removeprefix(prefix)]
        for result in asked
        for server in sorted(set(IN_SERVICE.findall(result.get("content") or "")))
        if (server in wanted if wanted is not None else server.startswith(prefix) and server.endswith(CANDIDATE))
    ]


def is_covered(name, names):
    """Return whether one of a certificate's names is for this name; names: as DNS:*.example.com and IP Address:192.0.2.1."""
    name = name.lower()
    parent = name.partition(".")[2]
    for each in names:
        kind, value = each.partition(":")[::2]
        if kind.startswith("IP"):
            try:
                if ipaddress.ip_address(value) == ipaddress.ip_address(name):
                    return True
            except ValueError:
                continue
        elif value.lower() in {name, f"*.{parent}"}:
            return True
    return False


def certificate_faults(certificate, key, names):
    """Return what is wrong with a certificate, a sentence each.

    certificate: of community.crypto.x509_certificate_info. key: of openssl_privatekey_info. names: host names that users ask for.
    """
    faults = []
    if certificate["public_key_fingerprints"]["sha256"] != key["public_key_fingerprints"]["sha256"]:
        faults.append("It does not fit the key.")
    if certificate["expired"]:
        faults.append(f"It ended at {certificate['not_after']}.")
    has = certificate.get("subject_alt_name") or []
    missing = [name for name in names if not is_covered(name, has)]
    if missing:
        faults.append(f"It is not for {', '.join(missing)}; it is for {', '.join(has) or 'no name'}.")
    return faults


def user_faults(users):
    """Return what is wrong with gateway_users, a sentence each; it has no password and no hash in it."""
    faults = []
    for index, user in enumerate(users):
        where = f"gateway_users[{index}]"
        if not USER.fullmatch(str(user.get("name", ""))):
            faults.append(f"{where}: name {user.get('name')!r} must be of letters, digits and @ . _ + - (64 at most).")
            continue
        where = f"{where} ({user['name']})"
        given = [key for key in ("password", "hash") if user.get(key)]
        if len(given) != 1:
            faults.append(f"{where} has {' and '.join(given) or 'neither password nor hash'}; give one of the two.")
        elif given == ["hash"] and not HASH.fullmatch(str(user["hash"])):
            faults.append(f"{where}: hash is none of crypt(3) that HAProxy reads; `openssl passwd -6` makes one.")
        elif given == ["password"] and len(str(user["password"])) < 8:
            faults.append(f"{where}: password has fewer than 8 characters.")
    names = [str(user.get("name")) for user in users]
    faults += [f"gateway_users has {name} more than once." for name in sorted({n for n in names if names.count(n) > 1})]
    return faults


def network_faults(networks, name):
    """Return what is wrong with a list of networks, a sentence each; name: of the variable."""
    faults = []
    for index, network in enumerate(networks):
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            faults.append(f"{name}[{index}] is no network as 192.0.2.0/24 or 2001:db8::/64: {error}.")
    return faults


def sso_faults(header, addresses):
    """Return what is wrong with gateway_sso_header and gateway_sso_addresses, a sentence each."""
    faults = network_faults(addresses, "gateway_sso_addresses")
    if bool(header) != bool(addresses) or not re.fullmatch(r"[A-Za-z0-9-]*", header):
        faults.append(
            f"gateway_sso_header is '{header}' and gateway_sso_addresses '{', '.join(map(str, addresses))}'. Give the name of a "
            "header and the addresses that may send it, or neither."
        )
    elif header.lower() in TAKEN_HEADERS:
        faults.append(f"gateway_sso_header is {header}, which has a meaning of its own. Name another one, as X-Remote-User.")
    return faults


def limit_faults(limits, values):
    """Return which numbers are out of their limits, a sentence each.

    limits: by name, the least and the most. values: of these names, in their order.
    """
    return [
        f"{name} is {value}, which must be from {least} to {most}."
        for (name, (least, most)), value in zip(limits.items(), values)
        if not least <= int(value) <= most
    ]


def in_network(interfaces, network):
    """Return interface and address of a host in the network of an address; None where it has none there.

    interfaces: as `ip -json address` lists them. network: an address with its prefix, as 192.0.2.10/24.
    """
    wanted = ipaddress.ip_interface(network)
    for interface in interfaces:
        for each in interface.get("addr_info", []):
            address = ipaddress.ip_address(each["local"])
            if address in wanted.network and address != wanted.ip:
                return {"interface": interface["ifname"], "address": str(address)}
    return None


def virtual_address_fault(interfaces, network, gateways):
    """Return what is wrong with gateway_virtual_address, as a sentence, or an empty text.

    interfaces: of the host, as `ip -json address` lists them. gateways: names of all gateways.
    """
    if not network:
        return ""
    where = f"gateway_virtual_address is {network}"
    try:
        wanted = ipaddress.ip_interface(network)
    except ValueError:
        return f"{where}, which is no address with its network, as 192.0.2.10/24."
    if "/" not in network or wanted.network.prefixlen == wanted.max_prefixlen:
        return f"{where}. Give the length of its network as well, as in 192.0.2.10/24."
    if len(gateways) < 2:
        return f"{where}, and {gateways[0]} is the only host of the group gateways. Name another one, or leave the address out."
    if not in_network(interfaces, network):
        has = [each["local"] for interface in interfaces for each in interface.get("addr_info", [])]
        return f"{where}, and the host has no address in that network; it has {', '.join(has)}."
    return ""


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Return name and function."""
        return {
            "gateway_pools": gateway_pools,
            "certificate_faults": certificate_faults,
            "user_faults": user_faults,
            "network_faults": network_faults,
            "sso_faults": sso_faults,
            "limit_faults": limit_faults,
            "in_network": in_network,
            "candidates_served": candidates_served,
            "virtual_address_fault": virtual_address_fault,
        }
