# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What came of an upgrade: the table, the count of failures, before and after."""

from ansible_collections.iopaint.fleet.plugins.filter.upgrades import FilterModule

FILTERS = FilterModule().filters()


def host(name, outcome=None, before="0001-a", after="0002-b", reason="", gap=None, seconds=12.34):
    variables = {"inventory_hostname": name, "iopaint_listed": {"instances": [{"name": "cpu", "proven": before}]}}
    if outcome:
        instances = [{"name": "cpu", "before": before, "after": after, "without_service_s": gap}]
        result = {"outcome": outcome, "seconds": seconds, "reason": reason, "instances": instances}
        variables["iopaint_upgraded"] = result
    return variables


def cells(line):
    return line.split()


def test_the_table_has_a_line_for_each_host_and_instance():
    heading, one, two, three = FILTERS["upgrade_table"](
        [host("one", "upgraded", gap=3.96), host("two", "reverted", after="0001-a", reason="no\n\n\u0007health"), host("three")]
    ).splitlines()
    assert cells(heading)[:5] == ["host", "instance", "before", "after", "outcome"]
    assert cells(one) == ["one", "cpu", "0001-a", "0002-b", "upgraded", "12.3", "4.0", "s", "-"]
    assert cells(two) == ["two", "cpu", "0001-a", "0001-a", "reverted", "12.3", "-", "no", "health"]
    assert cells(three) == ["three", "cpu", "0001-a", "0001-a", "not", "reached", "-", "-", "-"]
    assert heading.index("outcome") == one.index("upgraded") == two.index("reverted") == three.index("not reached")


def test_a_first_deploy_has_nothing_before():
    (_heading, line) = FILTERS["upgrade_table"]([host("one", "upgraded", before=None)]).splitlines()
    assert cells(line)[2:4] == ["-", "0002-b"]


def test_a_long_reason_is_cut():
    (_heading, line) = FILTERS["upgrade_table"]([host("one", "failed", reason="word " * 60)]).splitlines()
    assert line.endswith("…")
    assert len(line) < 200


def test_hosts_that_failed_or_were_reverted_count():
    hosts = [host("one", "upgraded"), host("two", "reverted"), host("three", "failed"), host("four", "unchanged"), host("five")]
    assert FILTERS["upgrade_failures"](hosts) == 2


def test_an_instance_that_was_not_released_stays_at_its_previous_release():
    released = [{"name": "b", "id": "0003-b", "new": True, "without_service_s": 2.0}, {"name": "c", "id": "0001-c"}]
    listed = [{"name": "a", "proven": "0001-a"}, {"name": "b", "proven": "0002-b"}]
    assert FILTERS["upgraded_instances"](released, listed) == [
        {"name": "a", "before": "0001-a", "after": "0001-a", "without_service_s": None},
        {"name": "b", "before": "0002-b", "after": "0003-b", "without_service_s": 2.0, "outcome": "upgraded"},
        {"name": "c", "before": None, "after": "0001-c", "without_service_s": None, "outcome": "unchanged"},
    ]


def test_the_first_plan_decides_how_many_hosts_go_at_a_time():
    plan = {"iopaint_upgrade_plan": {"batches": [1, "50%"], "max_failures": 0}}
    assert FILTERS["upgrade_batches"]({"localhost": {}, "one": plan, "two": {}}) == [1, "50%"]


def test_before_there_is_a_plan_it_is_one_host():
    assert FILTERS["upgrade_batches"]({}) == FILTERS["upgrade_batches"]({"one": {}}) == [1]


def test_each_instance_of_a_host_has_its_own_outcome():
    released = [{"name": "a", "id": "0002-a", "new": True}, {"name": "b", "id": "0001-b", "new": False}]
    failures = [{"instance": {"name": "c"}, "reverted": True, "reason": "c broke."}]
    listed = [{"name": name, "proven": f"0001-{name}"} for name in "abcd"]
    instances = FILTERS["upgraded_instances"](released, listed, failures)
    assert [each.get("outcome") for each in instances] == ["upgraded", "unchanged", "reverted", None]
    result = {"outcome": "failed", "seconds": 1.0, "reason": "c broke.", "instances": instances}
    _heading, a, b, c, d = FILTERS["upgrade_table"]([{"inventory_hostname": "one", "iopaint_upgraded": result}]).splitlines()
    assert (cells(a)[4], cells(b)[4], cells(c)[4], cells(d)[4]) == ("upgraded", "unchanged", "reverted", "failed")
    assert ["c broke." in line for line in (a, b, c, d)] == [False, False, True, True]
