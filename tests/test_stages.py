from pipekit import combine_batches


def test_a_short_tail_is_kept():
    assert list(combine_batches(2, list)('abc')) == [['a', 'b'], ['c']]
