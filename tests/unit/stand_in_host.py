# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A host for the actions whose module runs in the background: it answers from a script."""

from ansible_collections.iopaint.fleet.plugins.plugin_utils import background

JOB = {"ansible_job_id": "j1.2", "results_file": "/r/.ansible_async/j1.2"}


def seen(text="", offset=0, finished=False, running=True):
    """Return what the module job_log answers."""
    return {"text": text, "offset": offset, "finished": finished, "running": running}


def on_host(action, **arguments):
    """Return an action with a host that answers from a script, and with time that passes only while it sleeps."""

    class Host(action):
        def __init__(self, monkeypatch, answers, check=False, hosts=1, **args):
            self.now, self.said, self.calls = 0.0, [], []
            monkeypatch.setattr(background.time, "monotonic", lambda: self.now)
            monkeypatch.setattr(background.time, "sleep", lambda seconds: setattr(self, "now", self.now + seconds))
            monkeypatch.setattr(background.display, "display", self.said.append)
            task = {"args": {**arguments, **args}, "check_mode": check, "async_val": 0}
            self._task, self.answers, self.hosts = type("Task", (), task)(), iter(answers), hosts

        def module(self, args, task_vars, name="", **options):
            name = name or self.MODULE
            self.calls.append((name.rpartition(".")[2], args, self._task.async_val if options.get("wrap_async") else None))
            return dict(next(self.answers))

        def go(self, monkeypatch):
            monkeypatch.setattr(background.ActionBase, "run", lambda self, tmp, task_vars: {})
            return self.run(task_vars={"inventory_hostname": "gpu-1", "ansible_play_hosts": ["x"] * self.hosts})

    return Host
