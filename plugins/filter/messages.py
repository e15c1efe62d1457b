# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filters: the report on a failed deploy."""

from __future__ import annotations

from ansible_collections.iopaint.fleet.plugins.module_utils.text import plain

ADVICE = "`docker compose ls` on the host shows what runs; iopaint.fleet.rollback goes to a release of your choice."


def plain_text(lines):
    """Return lines, or a text, as one text without terminal escapes, control characters and outer white space."""
    return plain(lines if isinstance(lines, str) else "\n".join(lines)).strip()


def failure_reason(result):
    """Return why a task failed, in a rescue: the messages of its result, or of those items of a loop that failed."""
    items = result.get("results") or [result]
    messages = [str(item.get("msg") or "") for item in items if item.get("failed") or len(items) == 1]
    return " ".join(text.strip() for text in messages if text.strip()) or "the host does not answer"


def outcomes(group, reason, reverted, unreverted="", restarted=True):
    """Return the outcome of a failed switch, one entry for each instance of the group whose release is not in place.

    group: as iopaint.fleet.release returned it. reverted: the result of its state `reverted`. restarted: whether a release that
    is not new was restarted.
    """
    started = {item["name"]: item["id"] for item in reverted.get("instances", [])}
    new = [item for item in group["instances"] if item["new"]]
    found = []
    for item in new or group["instances"]:
        untouched = not reverted.get("begun", True) if item["new"] else not restarted
        previous = (item["before"] or "" if untouched else started.get(item["name"], "")) if item["new"] else ""
        again = [{"name": each["name"], "id": each["id"]} for each in group["displaced"] if each["name"] in started]
        failure = {"instance": item, "reason": reason, "previous": previous, "again": again, "untouched": untouched}
        serves = bool(previous or again) and not unreverted
        found.append({**failure, "reverted": serves, "unreverted": unreverted})
    return found


def untouched(name, release, failure):
    """Return a sentence that says what a failure left untouched."""
    if not failure["instance"]["new"]:
        return f"{name}: the check itself failed, so its release {release} was neither restarted nor changed."
    was = f"the release {failure['previous']} was not touched" if failure["previous"] else "nothing was started"
    return f"{name}: {release} failed before the switch and is recorded as failed; {was}."


def became(failure):
    """Return a sentence that says what became of the release of an instance that failed."""
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
        return f"{name}: {release} is recorded as failed; started again and proven in its place: {names}."
    if not previous:
        return f"{name}: there is no previous release to revert to; {release} is recorded as failed."
    serves = (
        f"is proven; {release} is recorded as failed."
        if failure["reverted"]
        else f"does not serve either: {failure['unreverted']}"
    )
    return f"{name}: reverted to the previous release {previous}, which {serves}"


def serving(result, url, failure):
    """Return a sentence that says what serves at the address; result: of the module instance_probe."""
    status = result.get("status", -1)
    if status == 200 and failure["untouched"]:
        return f"{url} answers."
    if status == 200:
        return f"{url} answers, but the release behind it is not proven."
    if status and status > 0:
        return f"{url} answers with status {status}, so it does not serve."
    return f"Nothing serves on {url}: {plain_text(str(result.get('msg', 'no answer')))}"


def failure_report(outcomes, probes, instances):
    """Return the report: a paragraph for each instance that failed, then the instances that are current and proven."""
    found = {result["item"]["instance"]["name"]: result for result in probes if "item" in result}
    paragraphs = []
    for failure in outcomes:
        name, url = failure["instance"]["name"], failure["instance"]["url"]
        lines = [failure["reason"], became(failure)]
        if failure["untouched"] or not failure["reverted"]:
            lines.append(f"{serving(found.get(name, {}), url, failure)} {ADVICE}")
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
