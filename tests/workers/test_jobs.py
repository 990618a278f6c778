import pytest

from pipekit.workers.jobs import TARGET_GROUP_BYTES, Job, WorkItem, regrouped, take_items


def group_sizes(seconds, n_bytes, *, max_group_size=100, groups=8):
    """The sizes of groups of items that take so many seconds and bytes each."""
    job = Job(None, 0, (b'', []), max_group_size)
    for _ in range(groups):
        yield job.group_size
        job.update_group_size(job.group_size, seconds * job.group_size, n_bytes * job.group_size)


@pytest.mark.parametrize(
    ('seconds', 'n_bytes', 'expected'),
    [
        (0.001, 0, [1, 2, 4, 8, 10, 10, 10, 10]),
        (0.0, 0, [1, 2, 4, 8, 16, 32, 64, 100]),
        (0.0, TARGET_GROUP_BYTES // 3, [1, 2, 3, 3, 3, 3, 3, 3]),
        (1.0, 0, [1] * 8),
    ],
)
def test_groups_grow_until_they_take_10_ms_or_8_mib_or_are_the_largest(seconds, n_bytes, expected):
    assert list(group_sizes(seconds, n_bytes)) == expected


def broken():
    yield 'a'
    raise OSError('broken')


def test_items_are_taken_up_to_the_end_of_the_values():
    values = iter('abc')
    items, end = take_items(values, 2)
    assert ([item.value for item in items], end) == (['a', 'b'], None)
    items, end = take_items(values, 2)
    assert ([item.value for item in items], type(end)) == (['c'], StopIteration)
    items, end = take_items(broken(), 2)
    assert ([item.value for item in items], repr(end)) == (['a'], "OSError('broken')")


def numbered(*numbers):
    items = [WorkItem(None) for _ in numbers]
    for item, number in zip(items, numbers, strict=True):
        item.number = number
    return items


def test_after_a_crash_at_a_known_step_its_item_is_a_group_of_its_own():
    items = numbered(5, 6, 7, 8)
    groups, suspect, step = regrouped(items, 6, 3)
    assert groups == [items[:1], items[1:2], items[2:]]
    assert (suspect, step) == (items[1], 3)


@pytest.mark.parametrize(('number', 'step'), [(6, 0), (4, 1)], ids=['between two steps', 'before the first item'])
def test_after_a_crash_at_an_unknown_step_all_items_are_groups_of_their_own(number, step):
    items = numbered(5, 6, 7)
    assert regrouped(items, number, step) == ([[item] for item in items], None, 0)
    assert regrouped(items[:1], number, step) == ([items[:1]], items[0], 0)


def test_crashes_are_counted_as_long_as_they_are_at_the_same_step():
    item = WorkItem(1)
    assert [item.count_crash(step) for step in (1, 1, 2, 2, 2, 1)] == [1, 2, 1, 2, 3, 1]


def test_a_finished_item_has_a_result_or_an_error_and_no_value():
    item, failed = WorkItem(1), WorkItem(2)
    item.finish(3)
    assert (item.done, item.value, item.result, item.error) == (True, None, 3, None)
    error = OSError('broken')
    failed.finish(error=error)
    assert failed.take_error() is error
    assert (failed.done, failed.value, failed.error) == (True, None, None)
