import numpy as np
import pytest

from pipekit import combine_batches, pipeline, sample, take


def draw(value, rng):
    return rng.random()


def test_a_short_tail_is_kept():
    assert list(combine_batches(2, list)('abc')) == [['a', 'b'], ['c']]


def test_a_short_tail_is_dropped_on_request():
    assert list(combine_batches(2, list, drop_last=True)('abc')) == [['a', 'b']]


def test_batches_are_arrays_in_the_structure_of_a_sample():
    ((images, labels),) = combine_batches(2)([(np.zeros((3, 4)), 1), (np.ones((3, 4)), 2)])
    assert images.shape == (2, 3, 4)
    assert labels.tolist() == [1, 2]


def test_an_adaptive_batch_begins_with_what_did_not_fit():
    stage = combine_batches(lambda chunk, sample: sum(chunk) + sample <= 5, list)
    assert list(stage([1, 2, 2, 4, 9, 1])) == [[1, 2, 2], [4], [9], [1]]


def test_the_last_adaptive_batch_is_dropped_on_request():
    assert list(combine_batches(lambda chunk, sample: len(chunk) < 2, list, drop_last=True)('abc')) == [['a', 'b']]


def test_samples_that_differ_in_a_batch_are_named():
    with pytest.raises(ValueError, match=r'sample\[0\] is float64\[2\] in sample 0 .* float64\[3\] in sample 1'):
        list(combine_batches(2)([(np.zeros(2), 0), (np.zeros(3), 0)]))


def test_an_endless_stream_is_combined_lazily():
    assert next(iter(pipeline(sample('ab', seed=0), combine_batches(3, ''.join)))) == 'aab'


@pytest.mark.parametrize(
    ('make', 'error', 'message'),
    [
        (lambda: combine_batches(2, draw), TypeError, 'combine cannot be random, got draw, which takes rng'),
        (
            lambda: combine_batches(2, take(2)),
            TypeError,
            'combine must be a function of a list of samples, got the stage',
        ),
        (lambda: combine_batches(2, drop_last='no'), TypeError, "drop_last must be True or False, got 'no'"),
        (lambda: combine_batches(0), ValueError, 'batch_size must be a positive int or a function, got 0'),
        (lambda: combine_batches(2.5), ValueError, 'batch_size must be a positive int or a function, got 2.5'),
        (lambda: combine_batches(True), TypeError, 'batch_size must be a positive int or a function, got True'),
        (lambda: combine_batches('2'), TypeError, "batch_size must be a positive int or a function, got '2'"),
        (lambda: combine_batches(2, 'list'), TypeError, "combine must be a function of a list of samples, got 'list'"),
    ],
)
def test_a_bad_argument_is_an_error_when_the_stage_is_made(make, error, message):
    with pytest.raises(error, match=message):
        make()
