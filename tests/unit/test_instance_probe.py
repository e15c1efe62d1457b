# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What answers at an instance's address, without trusting it: servers that are slow, endless, or none."""

import pytest
from ansible_collections.iopaint.fleet.plugins.modules import instance_probe


def head(status, length):
    return f"HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n".encode()


@pytest.mark.parametrize(
    ("begin", "status", "msg"),
    [
        (head(200, 16) + b'{"name": "lama"}', 200, '{"name": "lama"}'),
        (head(503, 4) + b"busy", 503, "busy"),
        (head(301, 0), 301, "(empty)"),
        (head(200, 7) + b"\x1b[31mred"[:7], 200, "re"),
    ],
)
def test_status_and_words_of_an_answer_are_returned(run_module, raw_server, begin, status, msg):
    result = run_module(instance_probe, url=raw_server(begin))
    assert (result["changed"], result["status"], result["msg"]) == (False, status, msg)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((head(200, 10**9), b"x", 0.2), "no complete answer within 1 s"),
        ((b"HTTP/1.1 200", b" ", 0.2), "no complete answer within 1 s"),
        ((head(200, 10**9), b"x" * 2**20), "it has more than 1048576 bytes"),
        ((b"SSH-2.0-OpenSSH",), "the connection broke"),
    ],
    ids=["a byte at a time", "headers", "endless", "another protocol"],
)
def test_an_answer_that_is_none_is_said(run_module, raw_server, arguments, words):
    result = run_module(instance_probe, url=raw_server(*arguments), timeout=1)
    assert result["status"] == -1
    assert words in result["msg"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://[", "http://127.0.0.1:99999", "nonsense"])
def test_an_address_where_nothing_is_gives_no_status(run_module, url):
    assert run_module(instance_probe, url=url)["status"] == -1
