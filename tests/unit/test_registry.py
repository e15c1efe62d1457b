# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is said when a registry and an engine don't get on; the engine's words are those of Docker 26.1."""

import pytest
from ansible_collections.iopaint.fleet.plugins.module_utils.registry import digest_of, explain, is_unknown

REPOSITORY = "registry.example.com:5000/team/iopaint"
NAMES = {
    "repository": "iopaint_registry",
    "ca": "iopaint_registry_ca",
    "login": "iopaint_registry_username and iopaint_registry_password",
    "proxy": "docker_https_proxy",
}
GET = 'Error response from daemon: Get "https://registry.example.com:5000/v2/": '


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (GET + "tls: failed to verify certificate: x509: certificate signed by unknown authority", "iopaint_registry_ca"),
        (
            GET + "x509: certificate is valid for localhost, not registry.example.com",
            "iopaint_registry has to name registry.example.com:5000",
        ),
        (GET + "http: server gave HTTP response to HTTPS client", "iopaint.fleet.registry"),
        (GET + "unauthorized: authentication required", "iopaint_registry_username and iopaint_registry_password"),
        (GET + "Proxy Authentication Required", "Check the proxy's address, user and password (docker_https_proxy)"),
        (GET + "proxyconnect tcp: dial tcp: lookup proxy: no such host", "except registry.example.com:5000 from"),
        ("no basic auth credentials", "iopaint_registry_username and iopaint_registry_password"),
        (GET + "dial tcp 172.20.0.2:5000: connect: connection refused", "`curl https://registry.example.com:5000/v2/`"),
        (GET + "dial tcp: lookup registry.example.com on 127.0.0.11:53: no such host", "(iopaint_registry)"),
        ("error pulling image configuration: download failed after attempts=6: unexpected EOF", "See that the registry runs"),
        (
            "failed to register layer: write /usr/lib/x: no space left on device",
            "The disk is full where the engine keeps its data (/data)",
        ),
        (
            f"Error response from daemon: manifest for {REPOSITORY}@sha256:00 not found: manifest unknown: manifest unknown",
            "iopaint.fleet.build",
        ),
        ("Error response from daemon: unsupported: The operation is unsupported.", "garbage collection"),
    ],
)
def test_the_error_names_what_to_do(output, said):
    text = explain(f"Using default tag: latest\n{output}\n\n", REPOSITORY, "/data", NAMES)
    assert said in text
    assert text.startswith(output.removeprefix("Error response from daemon: ").rstrip("."))
    assert "{" not in text


def test_without_names_the_advice_names_the_engine_s_own_settings():
    assert "(/etc/docker/certs.d)" in explain("certificate signed by unknown authority", REPOSITORY, "/data", {})
    assert "Check the login (docker login)" in explain("denied", REPOSITORY, "/data", {})
    assert "5000 (repository)" in explain("no such host", REPOSITORY, "/data", {})


def test_an_engine_that_says_nothing_is_said():
    assert explain("\n", REPOSITORY, "/data", NAMES).startswith("the engine gave no reason. See that the registry runs")


@pytest.mark.parametrize(
    ("output", "unknown"),
    [
        (f"manifest for {REPOSITORY}:cpu-a not found: manifest unknown: manifest unknown", True),
        (f'failed to resolve reference "{REPOSITORY}:cpu-a": {REPOSITORY}:cpu-a: not found', True),
        ("name unknown: repository name not known to registry", True),
        (GET + "unauthorized: authentication required", False),
        (GET + "dial tcp: lookup registry.example.com on 127.0.0.11:53: no such host", False),
    ],
)
def test_an_image_that_is_missing_is_told_from_a_registry_that_is(output, unknown):
    assert is_unknown(output) is unknown


def test_the_digest_is_that_of_the_repository():
    image = {"RepoDigests": ["iopaint@sha256:1", f"{REPOSITORY}@sha256:2", f"{REPOSITORY}-other@sha256:3"]}
    assert digest_of(image, REPOSITORY) == "sha256:2"
    assert digest_of(image, "elsewhere/iopaint") is None
    assert digest_of({"RepoDigests": None}, REPOSITORY) is None
