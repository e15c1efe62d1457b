# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What others wrote: files, JSON, answers of servers and of programs, which may be damaged, hostile, endless or slow.

Every module that reads what this collection did not write goes through here, so that each limit is kept in one place.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
from http.client import HTTPException
from urllib.error import HTTPError

MIB = 2**20
PIECE = 2**16
DEPTH = 100  # levels of lists and objects
AGAIN = 1  # seconds after which an expired deadline is raised once more, where a library swallowed the first


class ForeignError(ValueError):
    """Something that others wrote can't be used; the message says why, in the middle of a sentence."""


def read_file(path, limit=MIB):
    """Return the content of a regular file in bytes; raise ForeignError for other kinds of files and for more than limit bytes.

    A FIFO or a device is refused without waiting for it. Other faults are OSErrors.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ForeignError("it is not a regular file")
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            content = stream.read(limit + 1)
    finally:
        os.close(descriptor)
    if len(content) > limit:
        raise ForeignError(f"it has more than {limit} bytes")
    return content


def read_text(path, limit=MIB):
    """Return the text of a regular file; raise ForeignError where read_file does, and for bytes that are not UTF-8."""
    return decode(read_file(path, limit))


def decode(content):
    """Return bytes as text, or raise ForeignError."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ForeignError(f"byte {error.start} is not UTF-8") from None


def parse_json(text, kind=object):
    """Return the JSON document in a text; raise ForeignError where there is none, and where it is not of this kind.

    kind: a type or a tuple of types, as isinstance takes it. Text that can't be written again (half a surrogate pair) and
    more than DEPTH levels count as none, since what handles a document later would fail on them.
    """
    try:
        document = json.loads(text, parse_constant=_no_number)
        if "\\ud" in text.lower():
            json.dumps(document, ensure_ascii=False).encode()
    except RecursionError:
        raise ForeignError("its JSON is nested too deeply") from None
    except UnicodeEncodeError:
        raise ForeignError("its JSON has half a character (an unpaired surrogate)") from None
    except ValueError as error:
        raise ForeignError(f"it is not JSON ({error})") from None
    if not isinstance(document, kind):
        raise ForeignError(f"its JSON is {_called(document)}, which is not expected there")
    if text.count("[") + text.count("{") > DEPTH and _is_deep(document):
        raise ForeignError("its JSON is nested too deeply")
    return document


def _is_deep(document):
    level = [document]
    for _depth in range(DEPTH):
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))]
        level = [item for items in inner for item in items]
        if not level:
            return False
    return True


def _no_number(constant):
    raise ValueError(f"{constant} is no number of JSON")


def _called(document):
    return {dict: "an object", list: "a list", str: "a string", bool: "a truth value", type(None): "null"}.get(
        type(document), "a number"
    )


def read_stream(stream, limit):
    """Return what a stream has up to its end, in bytes; raise ForeignError beyond limit bytes.

    The time it takes is the affair of deadline().
    """
    pieces, size = [], 0
    while piece := stream.read(min(PIECE, limit + 1 - size)):
        pieces.append(piece)
        size += len(piece)
        if size > limit:
            raise ForeignError(f"it has more than {limit} bytes")
    return b"".join(pieces)


def ask(session, method, url, *, seconds, limit, data=None):
    """Return status, reason, headers and body of a server's answer, which has to be there in full after these seconds.

    session: a Request of ansible.module_utils.urls. Raise ForeignError for a body of more than limit bytes; that of an error
    is cut.
    """
    with deadline(seconds):
        try:
            with session.open(method, url, data=data, decompress=False) as response:
                return response.status, response.reason, response.headers, read_stream(response, limit)
        except HTTPError as error:
            try:
                body = error.read(min(limit, PIECE))
            except (OSError, HTTPException):  # the status says enough
                body = b""
            return error.code, str(error.reason), error.headers, body


@contextlib.contextmanager
def deadline(seconds):
    """Raise TimeoutError in the block once it has taken this long, whatever it waits for. For the main thread.

    The timeout of a socket begins anew with each byte; this does not.
    """

    def expired(_signal, _frame):
        raise TimeoutError(f"not done within {seconds:g} s")

    previous = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
