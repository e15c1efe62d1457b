# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: round_trips
type: aggregate
short_description: Counts what a play costs on the way to its hosts
description:
  - Prints at the end, for each host, how many modules were executed and how often the connection was used to run a command
    or to move a file. Each use of the connection is at least one round trip, so this is the figure that grows with distance.
  - Tasks that run on the control node (assert, set_fact, include and the like) cost none and are not counted. Neither is what
    is delegated to the control node itself.
  - Off unless it is enabled, for example by E(ANSIBLE_CALLBACK_PLUGINS=tests/callback) with
    E(ANSIBLE_CALLBACKS_ENABLED=round_trips).
author:
  - iopaint.fleet contributors (@iopaint)
"""

import functools
import os
import tempfile
from collections import Counter, defaultdict

from ansible.executor.task_executor import TaskExecutor
from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase

METHODS = {"exec_command": "exec", "put_file": "put", "fetch_file": "fetch"}


class Log:
    """Where the workers, which are processes of their own, leave one line for each event."""

    def __init__(self):
        handle, self.path = tempfile.mkstemp(prefix="ansible-round-trips-")
        os.close(handle)

    def add(self, host, event):
        # one short write in append mode is not torn apart by another process
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(handle, f"{host}\t{event}\n".encode())
        finally:
            os.close(handle)

    def counts(self):
        found = defaultdict(Counter)
        with open(self.path, encoding="utf-8") as file:
            for line in file:
                host, _separator, event = line.rstrip("\n").partition("\t")
                found[host][event] += 1
        os.unlink(self.path)
        return dict(sorted(found.items()))


def counted(method, log, host, event):
    @functools.wraps(method)
    def wrapper(*args, **kwargs):
        log.add(host, event)
        return method(*args, **kwargs)

    return wrapper


def watch_connections(log):
    """Count the uses of every connection that a task gets, on behalf of the host whose task it is."""
    plain = TaskExecutor._get_connection

    @functools.wraps(plain)
    def get_connection(self, *args, **kwargs):
        connection = plain(self, *args, **kwargs)
        if connection.transport != "local" and not hasattr(connection, "counted_for"):
            connection.counted_for = self._host.name
            for method, event in METHODS.items():
                setattr(connection, method, counted(getattr(connection, method), log, self._host.name, event))
        return connection

    TaskExecutor._get_connection = get_connection


def watch_modules(log):
    """Count the modules that action plugins execute over such a connection."""
    plain = ActionBase._execute_module

    @functools.wraps(plain)
    def execute_module(self, *args, **kwargs):
        if hasattr(self._connection, "counted_for"):
            log.add(self._connection.counted_for, "modules")
        return plain(self, *args, **kwargs)

    ActionBase._execute_module = execute_module


class CallbackModule(CallbackBase):
    """Prints the counts after the recap."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "round_trips"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.log = Log()
        watch_connections(self.log)
        watch_modules(self.log)

    def v2_playbook_on_stats(self, stats):
        counts = self.log.counts()
        self._display.banner("ROUND TRIPS")
        for host, events in counts.items():
            trips = sum(events[event] for event in METHODS.values())
            parts = ", ".join(f"{event} {events[event]}" for event in METHODS.values())
            self._display.display(f"{host:<26} : module executions {events['modules']:<4} round trips {trips:<4} ({parts})")
