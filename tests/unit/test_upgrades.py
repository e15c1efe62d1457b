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
        [host("one", "upgraded", gap=3.96), host("two", "put back", after="0001-a", reason="no\n\n\u0007health"), host("three")]
    ).splitlines()
    assert cells(heading)[:5] == ["host", "instance", "before", "after", "outcome"]
    assert cells(one) == ["one", "cpu", "0001-a", "0002-b", "upgraded", "12.3", "4.0", "s", "-"]
    assert cells(two) == ["two", "cpu", "0001-a", "0001-a", "put", "back", "12.3", "-", "no", "health"]
    assert cells(three) == ["three", "cpu", "0001-a", "0001-a", "not", "reached", "-", "-", "-"]
    assert heading.index("outcome") == one.index("upgraded") == two.index("put back") == three.index("not reached")


def test_a_first_deploy_has_nothing_before():
    (_heading, line) = FILTERS["upgrade_table"]([host("one", "upgraded", before=None)]).splitlines()
    assert cells(line)[2:4] == ["-", "0002-b"]


def test_a_long_reason_is_cut():
    (_heading, line) = FILTERS["upgrade_table"]([host("one", "failed", reason="word " * 60)]).splitlines()
    assert line.endswith("…")
    assert len(line) < 200


def test_hosts_that_failed_or_were_put_back_count():
    hosts = [host("one", "upgraded"), host("two", "put back"), host("three", "failed"), host("four", "unchanged"), host("five")]
    assert FILTERS["upgrade_failures"](hosts) == 2


def test_an_instance_that_was_not_released_stays_at_its_former_one():
    released = [{"name": "b", "id": "0003-b", "without_service_s": 2.0}, {"name": "c", "id": "0001-c"}]
    listed = [{"name": "a", "proven": "0001-a"}, {"name": "b", "proven": "0002-b"}]
    assert FILTERS["upgraded_instances"](released, listed) == [
        {"name": "a", "before": "0001-a", "after": "0001-a", "without_service_s": None},
        {"name": "b", "before": "0002-b", "after": "0003-b", "without_service_s": 2.0},
        {"name": "c", "before": None, "after": "0001-c", "without_service_s": None},
    ]
