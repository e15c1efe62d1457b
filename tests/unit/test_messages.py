# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What an operator reads after a failure: text without escapes, and per instance what failed and what serves."""

import pytest
from ansible_collections.iopaint.fleet.plugins.filter.messages import FilterModule
from hypothesis import given
from hypothesis import strategies as st

FILTERS = FilterModule().filters()
reason, report, outcomes, plain_text = (FILTERS[name] for name in ("failure_reason", "failure_report", "outcomes", "plain_text"))


def instance(name, new=True):
    return {"name": name, "id": f"0002-{name}", "new": new, "url": "http://127.0.0.1:8080"}


def failure(name="cpu", new=True, previous="", reverted=False, unreverted=""):
    known = {"reason": f"{name} broke.", "previous": previous, "reverted": reverted, "unreverted": unreverted}
    return {"instance": instance(name, new), "again": [], "untouched": False, **known}


def group(*members, displaced=()):
    return {"instances": [{**member, "before": f"0001-{member['name']}"} for member in members], "displaced": list(displaced)}


def became(found, status=200):
    """What the report says of each failure."""
    asked = [{"item": each, "status": status} for each in found if each["untouched"] or not each["reverted"]]
    return report(found, asked, [each["instance"] for each in found])


def test_a_reverted_group_has_an_outcome_for_each_new_release():
    reverted = {"begun": True, "instances": [{"name": name, "id": f"0001-{name}"} for name in ("a", "b", "c")]}
    found = outcomes(group(instance("a"), instance("b"), instance("c", new=False)), "it broke.", reverted)
    assert [(each["instance"]["name"], each["previous"], each["reverted"]) for each in found] == [
        ("a", "0001-a", True),
        ("b", "0001-b", True),
    ]
    assert "a: reverted to the previous release 0001-a, which is proven" in became(found)


def test_a_displaced_instance_is_named_when_it_serves_again():
    reverted = {"begun": True, "instances": [{"name": "cpu", "id": "0001-cpu"}]}
    found = outcomes(group(instance("main"), displaced=[{"name": "cpu", "id": "0001-cpu"}]), "it broke.", reverted)
    assert (found[0]["previous"], found[0]["reverted"]) == ("", True)
    text = "main: 0002-main is recorded as failed; started again and proven in its place: cpu (0001-cpu)."
    assert became(found).splitlines() == ["it broke.", text]


def test_a_displaced_instance_that_does_not_serve_is_no_revert():
    reverted = {"begun": True, "instances": [{"name": "cpu", "id": "0001-cpu"}]}
    found = outcomes(group(instance("main"), displaced=[{"name": "cpu", "id": "0001-cpu"}]), "it broke.", reverted, "no memory")
    assert found[0]["reverted"] is False
    assert "the previous release could not be restored: no memory" in became(found)


@pytest.mark.parametrize(("status", "says"), [(200, "http://127.0.0.1:8080 answers. "), (502, "answers with status 502")])
def test_a_failure_before_the_switch_names_the_release_that_was_not_touched(status, says):
    found = outcomes(group(instance("cpu")), "it broke.", {"begun": False, "instances": []})
    text = became(found, status)
    assert "cpu: 0002-cpu failed before the switch and is recorded as failed; the release 0001-cpu was not touched." in text
    assert says in text


def test_a_check_that_fails_itself_leaves_the_instance_alone():
    found = outcomes(group(instance("cpu", new=False)), "no Pillow.", {"begun": False, "instances": []}, restarted=False)
    text = became(found)
    assert "cpu: the check itself failed, so its release 0002-cpu was neither restarted nor changed." in text
    assert "http://127.0.0.1:8080 answers. " in text


def test_a_host_that_was_lost_is_neither_untouched_nor_reverted():
    """The result of the task has no instances then."""
    (found,) = outcomes(group(instance("cpu")), "lost.", {"unreachable": True}, "the host does not answer")
    assert (found["untouched"], found["reverted"], found["previous"]) == (False, False, "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\\\link", "\\link"),
        ("\x1b[?25lhidden\x1b[2K", "hidden"),
        ("a\x07b\x08c\x9b31md", "abcd"),
        (["one\ttab", "two \u202e"], "one\ttab\ntwo"),
        ("cr\r\nlf \\n stays", "cr\nlf \\n stays"),
    ],
)
def test_escapes_go_and_the_text_stays(text, expected):
    assert plain_text(text) == expected


@given(st.text(alphabet=st.one_of(st.characters(), st.sampled_from("\x1b[]\\\x07;m"))))
def test_nothing_that_a_terminal_acts_on_is_left(text):
    assert all(character in "\t\n" or character.isprintable() for character in plain_text(text))


def test_a_reverted_instance_names_both_releases_and_the_others():
    text = report([failure(previous="0001-cpu", reverted=True)], [], [instance("cpu"), instance("second")])
    assert text.splitlines() == [
        "cpu broke.",
        "cpu: reverted to the previous release 0001-cpu, which is proven; 0002-cpu is recorded as failed.",
        "Current and proven: second (0002-second).",
    ]


@pytest.mark.parametrize(
    ("outcome", "sentence"),
    [
        (failure(), "there is no previous release to revert to; 0002-cpu is recorded as failed."),
        (failure(new=False), "its release 0002-cpu was restarted once and still fails; its files stay as they are."),
        (
            failure(previous="0001-cpu", unreverted="no memory"),
            "the previous release 0001-cpu, which does not serve either: no memory",
        ),
    ],
)
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"status": 200}, "http://127.0.0.1:8080 answers, but"),
        ({"status": 500}, "http://127.0.0.1:8080 answers with status 500"),
        ({"status": -1, "msg": "Connection \x1b[1mrefused"}, "Nothing serves on http://127.0.0.1:8080: Connection refused"),
    ],
)
def test_nothing_serves_is_said_only_of_what_was_asked(outcome, sentence, answer, says):
    text = report([outcome], [{"item": outcome, **answer}], [outcome["instance"]])
    assert sentence in text
    assert says in text
    assert ("Nothing serves" in text) is (answer["status"] == -1)
    assert "iopaint.fleet.rollback" in text


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ({"failed": True, "msg": " no memory\n"}, "no memory"),
        ({"msg": "an undefined variable"}, "an undefined variable"),
        (
            {"results": [{"msg": "fine"}, {"failed": True, "msg": "a broke."}, {"failed": True, "msg": "b broke."}]},
            "a broke. b broke.",
        ),
        ({"unreachable": True}, "the host does not answer"),
        ({}, "the host does not answer"),
    ],
)
def test_the_reason_of_a_failure_is_what_its_tasks_said(result, text):
    assert reason(result) == text
