# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is secret in an address, and docker/build/with-network, which hands addresses to the tools of a build."""

import re
import subprocess
from pathlib import Path

import pytest
from ansible_collections.iopaint.fleet.plugins.module_utils.docker_cli import network_secret
from ansible_collections.iopaint.fleet.plugins.module_utils.network import masked, overlap, reached_at, secrets, shown

ROOT = Path(__file__).resolve().parents[2]

URL = "http://robot:p%40ss-word@mirror.example.com:3128/simple/"


@pytest.fixture
def with_network(tmp_path):
    """Runs with-network with these settings and gives the environment of the command."""

    def run(environment=None, **given):
        folder = tmp_path / "secrets"
        folder.mkdir(exist_ok=True)
        if "ca" in given:
            (folder / "ca").write_text(given.pop("ca"))
        (folder / "network").write_text(network_secret({name.upper(): value for name, value in given.items()}))
        base = {"PATH": "/usr/bin:/bin", "SECRETS": str(folder), "NPMRC": str(tmp_path / "npmrc"), **(environment or {})}
        command = ["/bin/sh", str(ROOT / "docker" / "build" / "with-network"), "env", "-0"]
        done = subprocess.run(command, env=base, capture_output=True, text=True, check=True)
        return dict(line.split("=", 1) for line in done.stdout.split("\0") if line)

    return run


def test_passwords_and_users_are_secret():
    assert secrets([URL, "http://mirror.example.com/", "", None]) == [
        "robot:p%40ss-word",
        "robot:p@ss-word",
        "p%40ss-word",
        "p@ss-word",
    ]


def test_a_token_without_a_user_is_secret():
    assert secrets(["https://ghp_0123@git.example.com/a@b"]) == ["ghp_0123"]


def test_texts_of_options_with_the_name_of_a_secret_are_secret():
    settings = {"log-opts": {"splunk-token": "t0k3n", "max-file": "3"}, "mirrors": [URL], "http": {"secrets": ["one"]}, "key": 1}
    assert secrets([settings]) == sorted({"t0k3n", "one", *secrets([URL])}, key=lambda text: (-len(text), text))


def test_a_text_is_masked():
    text = f"407 from {URL}, tried p@ss-word as robot"
    assert masked(text, [URL]) == "407 from http://***@mirror.example.com:3128/simple/, tried *** as robot"
    assert masked(text, ["http://mirror.example.com/"]) == text


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("0.0.0.0", "127.0.0.1"),
        ("10.0.0.5", "10.0.0.5"),
        ("::", "[::1]"),
        ("0::0", "[::1]"),
        ("::1", "[::1]"),
        ("2001:DB8:0::1", "[2001:db8::1]"),
        ("", ""),
    ],
)
def test_the_host_of_a_url_has_brackets_for_ipv6(address, host):
    assert reached_at(address) == host


def test_an_address_is_shown_with_its_port():
    assert (shown("127.0.0.1", 8080), shown("::1", 8080)) == ("127.0.0.1:8080", "[::1]:8080")


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (("127.0.0.1", 1), ("127.0.0.1", 1), True),
        (("127.0.0.1", 1), ("127.0.0.1", 2), False),
        (("127.0.0.1", 1), ("10.0.0.5", 1), False),
        (("0.0.0.0", 1), ("10.0.0.5", 1), True),
        (("::", 1), ("::1", 1), True),
        (("0:0::1", 1), ("::1", 1), True),
        (("::", 1), ("127.0.0.1", 1), False),
    ],
)
def test_ports_exclude_each_other_on_one_address_or_on_all(one, other, both):
    assert (overlap(one, other), overlap(other, one)) == (both, both)


def test_without_a_secret_nothing_is_set(with_network):
    assert set(with_network()) <= {"PATH", "SECRETS", "NPMRC", "PWD", "OLDPWD", "SHLVL", "_"}


def test_proxies_reach_tools_of_either_habit(with_network):
    env = with_network(http_proxy=URL, https_proxy="http://tunnel.example.com:3128")
    assert env["HTTP_PROXY"] == env["http_proxy"] == URL
    assert env["HTTPS_PROXY"] == env["https_proxy"] == "http://tunnel.example.com:3128"


def test_without_a_secret_the_client_s_own_proxy_counts(with_network):
    given = {"https_proxy": "http://tunnel.example.com:3128"}
    assert with_network(given, http_proxy=URL)["https_proxy"] == given["https_proxy"]


def test_hosts_that_need_no_proxy_reach_tools_of_either_habit(with_network):
    env = with_network(no_proxy="localhost,.example.com")
    assert env["NO_PROXY"] == env["no_proxy"] == "localhost,.example.com"


def test_a_value_is_taken_as_it_stands(with_network):
    odd = "http://u:$(id)'\\`x=@proxy:3128/?a=b="
    assert with_network(http_proxy=odd)["HTTP_PROXY"] == odd


def test_an_unknown_setting_is_refused_without_its_value(with_network):
    with pytest.raises(subprocess.CalledProcessError) as refused:
        with_network(pip_index="https://robot:secret@pypi.example.com")
    assert refused.value.returncode == 64
    assert "PIP_INDEX is no setting" in refused.value.stderr
    assert "secret@" not in refused.value.stderr


def test_index_and_extra_index_reach_uv_and_pip(with_network):
    env = with_network(python_index=URL, python_extra_index="http://extra.example.com/simple")
    assert env["UV_DEFAULT_INDEX"] == env["PIP_INDEX_URL"] == URL
    assert env["UV_INDEX"] == env["PIP_EXTRA_INDEX_URL"] == "http://extra.example.com/simple"
    assert env["UV_INDEX_STRATEGY"] == "unsafe-best-match"


def test_pip_takes_an_index_by_plain_http(with_network):
    assert "PIP_TRUSTED_HOST" not in with_network(python_index="https://robot:secret@pypi.example.com/simple")
    env = with_network(python_index=URL, python_extra_index="http://extra.example.com/simple")
    assert env["PIP_TRUSTED_HOST"] == "mirror.example.com:3128 extra.example.com"


def test_torch_for_the_cpu_has_an_index_of_its_own(with_network):
    step = {"OWN_INDEX": "https://torch.example.com/"}
    assert with_network(step, python_index=URL)["UV_DEFAULT_INDEX"] == "https://torch.example.com/"
    assert (
        with_network(step, torch_index="https://mirror.example.com/cpu")["UV_DEFAULT_INDEX"] == "https://mirror.example.com/cpu"
    )
    assert with_network(python_index=URL, torch_index="https://mirror.example.com/cpu")["UV_DEFAULT_INDEX"] == URL


def test_the_ca_reaches_every_tool(with_network, tmp_path):
    env = with_network(ca="-----BEGIN CERTIFICATE-----")
    for name in ("SSL_CERT_FILE", "PIP_CERT", "NODE_EXTRA_CA_CERTS"):
        assert env[name] == str(tmp_path / "secrets" / "ca")


def test_npm_gets_its_registry_and_password_by_a_file(with_network, tmp_path):
    env = with_network(npm_registry="https://robot:secret@npm.example.com/team/")
    assert env["NPM_CONFIG_USERCONFIG"] == str(tmp_path / "npmrc")
    assert (tmp_path / "npmrc").read_text() == (
        "registry=https://npm.example.com/team/\n//npm.example.com/team/:_auth=cm9ib3Q6c2VjcmV0\n"
    )
    assert (tmp_path / "npmrc").stat().st_mode & 0o777 == 0o600


def test_a_registry_without_a_password_is_all_that_npm_gets(with_network, tmp_path):
    with_network(npm_registry="https://npm.example.com")
    assert (tmp_path / "npmrc").read_text() == "registry=https://npm.example.com/\n"


def test_each_step_that_downloads_has_the_network_s_settings_and_the_ca():
    recipe = (ROOT / "docker" / "Dockerfile").read_text().replace("\\\n", "")
    steps = [line for line in recipe.splitlines() if re.search(r"^RUN .*(with-network |install-packages )", line)]
    assert len(steps) == 9
    for step in steps:
        assert {"network", "ca"} == set(re.findall(r"type=secret,id=(\S+)", step)), step


def test_the_front_end_is_built_without_secrets_and_network():
    """The scripts of npm's packages run in this step only."""
    recipe = (ROOT / "docker" / "Dockerfile").read_text().replace("\\\n", "")
    download, build = [line for line in recipe.splitlines() if line.startswith("RUN ") and " npm " in line]
    assert "npm ci --ignore-scripts" in download
    assert "npm run build" in build
    assert "--network=none" in build
    assert "type=secret" not in build


def test_no_address_is_an_argument_of_the_build():
    """buildx keeps the arguments of each bake in the user's home, and the builder those of each build."""
    recipe = (ROOT / "docker" / "docker-bake.hcl").read_text()
    assert [line.strip() for line in recipe.splitlines() if "NETWORK" in line] == [
        'variable "NETWORK" { default = "" }',
        'notequal("", NETWORK) ? "id=network,env=NETWORK" : "",',
    ]
    proxies = dict(re.findall(r"(\w+_(?:PROXY|proxy)) += (\S+)", recipe))
    assert len(proxies) == 10
    assert set(proxies.values()) == {'""'}
