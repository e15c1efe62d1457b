# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters: what an operator reads when a deploy has failed."""

from __future__ import annotations

from ansible_collections.iopaint.fleet.plugins.module_utils.text import plain

ADVICE = "`docker compose ls` on the host shows what runs; iopaint.fleet.rollback goes to a release of your choice."


def plain_text(lines):
    """Return lines, or one text, without terminal escapes and control characters, as one text without outer white space."""
    return plain(lines if isinstance(lines, str) else "\n".join(lines)).strip()


def failure_reason(result):
    """Return why a task failed, in a rescue: the messages of its result, or of those items of a loop that failed."""
    items = result.get("results") or [result]
    said = [str(item.get("msg") or "") for item in items if item.get("failed") or len(items) == 1]
    return " ".join(text.strip() for text in said if text.strip()) or "the host does not answer"


def outcomes(group, reason, back, unreverted="", restarted=True):
    """Return what a failed switch of a group of instances came to, one entry for each instance whose release is not in place.

    group: as iopaint.fleet.release returned it. back: the result of its state V(back). restarted: whether a release that is not
    new was restarted.
    """
    started = {item["name"]: item["id"] for item in back.get("instances", [])}
    new = [item for item in group["instances"] if item["new"]]
    found = []
    for item in new or group["instances"]:
        untouched = not back.get("begun", True) if item["new"] else not restarted
        previous = (item["before"] or "" if untouched else started.get(item["name"], "")) if item["new"] else ""
        again = [{"name": each["name"], "id": each["id"]} for each in group["give_way"] if each["name"] in started]
        failure = {"instance": item, "reason": reason, "previous": previous, "again": again, "untouched": untouched}
        served = bool(previous or again) and not unreverted
        found.append({**failure, "reverted": served, "unreverted": unreverted})
    return found


def untouched(name, release, failure):
    """Return that what ran before a failure still runs, as a sentence."""
    if not failure["instance"]["new"]:
        return f"{name}: the check itself failed, so its release {release} was neither restarted nor changed."
    was = f"the release {failure['previous']} was not touched" if failure["previous"] else "nothing was started"
    return f"{name}: {release} failed before the switch and is recorded as failed; {was}."


def became(failure):
    """Return what became of the release of an instance that failed, as a sentence."""
    instance, previous = failure["instance"], failure["previous"]
    name, release = instance["name"], instance["id"]
    if failure["untouched"]:
        return untouched(name, release, failure)
    if not instance["new"]:
        return f"{name}: its release {release} was restarted once and still fails; its files stay as they are."
    if not previous and failure["unreverted"]:
        return f"{name}: {release} failed, and the previous release could not be restored: {failure['unreverted']}"
    if not previous and failure["again"]:
        names = ", ".join(f"{each['name']} ({each['id']})" for each in failure["again"])
        return f"{name}: {release} is recorded as failed; what had given way to it serves again and is proven: {names}."
    if not previous:
        return f"{name}: there is no previous release to revert to; {release} is recorded as failed."
    serves = (
        f"is proven; {release} is recorded as failed."
        if failure["reverted"]
        else f"does not serve either: {failure['unreverted']}"
    )
    return f"{name}: reverted to the previous release {previous}, which {serves}"


def answers(result, url, failure):
    """Return what a result of the module instance_answer says of the address, as a sentence."""
    status = result.get("status", -1)
    if status == 200 and failure["untouched"]:
        return f"{url} answers."
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
        if failure["untouched"] or not failure["reverted"]:
            lines.append(f"{answers(replies.get(name, {}), url, failure)} {ADVICE}")
        paragraphs.append("\n".join(lines))
    failed = {failure["instance"]["name"] for failure in outcomes}
    proven = [f"{item['name']} ({item['id']})" for item in instances if item["name"] not in failed]
    return "\n".join(paragraphs + [f"Current and proven: {', '.join(proven)}."] * bool(proven))


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Return name and function of each."""
        return {
            "failure_reason": failure_reason,
            "failure_report": failure_report,
            "outcomes": outcomes,
            "plain_text": plain_text,
        }
