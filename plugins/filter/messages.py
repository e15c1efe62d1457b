# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters: what an operator reads when a deploy has failed."""

from __future__ import annotations

from ansible_collections.iopaint.fleet.plugins.module_utils.text import plain

DOCUMENTATION = r"""
name: failure_report
short_description: Says per instance what failed and what serves now
version_added: 0.1.0
description:
  - One paragraph for each instance that failed, with the reason, what became of its release, and what answers on its port.
  - A last line names the instances of the host whose releases are current and proven.
options:
  _input:
    description:
      - The failures. C(instance) is an entry of iopaint.fleet.release, C(reason) a text.
      - C(previous) is the ID of the release that was reverted to, empty where there is none. C(reverted) says whether it was
        proven, C(unreverted) why not.
    type: list
    elements: dict
    required: true
  asked:
    description: Results of M(ansible.builtin.uri) for the instances that were not reverted, with C(item) the failure.
    type: list
    elements: dict
    required: true
  instances:
    description: All instances of the run, as iopaint.fleet.release returned them.
    type: list
    elements: dict
    required: true
author: iopaint.fleet contributors (@iopaint)
"""

EXAMPLES = r"""
report: "{{ outcomes | iopaint.fleet.failure_report(asked.results, prepared.instances) }}"
"""

RETURN = r"""
_value:
  description: The report, as one text.
  type: str
"""

ADVICE = "`docker compose ls` on the host shows what runs; iopaint.fleet.rollback goes to a release of your choice."


def plain_text(lines):
    """Return lines, or one text, without terminal escapes and control characters, as one text without outer white space."""
    return plain(lines if isinstance(lines, str) else "\n".join(lines)).strip()


def failure_reason(result):
    """Return why a task failed, in a rescue: the messages of its result, or of those items of a loop that failed."""
    items = result.get("results") or [result]
    said = [str(item.get("msg") or "") for item in items if item.get("failed") or len(items) == 1]
    return " ".join(text.strip() for text in said if text.strip()) or "the host does not answer"


def became(failure):
    """Return what became of the release of an instance that failed, as a sentence."""
    instance, previous = failure["instance"], failure["previous"]
    name, release = instance["name"], instance["id"]
    if not instance["new"]:
        return f"{name}: its release {release} was restarted once and still fails; its files stay as they are."
    if not previous and failure["unreverted"]:
        return f"{name}: {release} failed, and the previous release could not be restored: {failure['unreverted']}"
    if not previous:
        return f"{name}: there is no previous release to revert to; {release} is recorded as failed."
    if failure["reverted"]:
        return f"{name}: reverted to the previous release {previous}, which is proven; {release} is recorded as failed."
    return f"{name}: reverted to the previous release {previous}, which does not serve either: {failure['unreverted']}"


def answers(result, url):
    """Return what a result of the module uri says of the address, as a sentence."""
    status = result.get("status", -1)
    if status == 200:
        return f"{url} answers, but the release behind it is not proven."
    if status and status > 0:
        return f"{url} answers with status {status}, so it does not serve."
    return f"Nothing serves on {url}: {plain_text(str(result.get('msg', 'no answer')))}"


def failure_report(outcomes, asked, instances):
    """Return the report."""
    replies = {result["item"]["instance"]["name"]: result for result in asked if "item" in result}
    paragraphs = []
    for failure in outcomes:
        name, url = failure["instance"]["name"], failure["instance"]["url"]
        lines = [failure["reason"], became(failure)]
        if not failure["reverted"]:
            lines.append(f"{answers(replies.get(name, {}), url)} {ADVICE}")
        paragraphs.append("\n".join(lines))
    failed = {failure["instance"]["name"] for failure in outcomes}
    proven = [f"{item['name']} ({item['id']})" for item in instances if item["name"] not in failed]
    return "\n".join(paragraphs + [f"Current and proven: {', '.join(proven)}."] * bool(proven))


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Return name and function of each."""
        return {"failure_reason": failure_reason, "failure_report": failure_report, "plain_text": plain_text}
