"""Training data from small pure functions: sampled, loaded, combined before the network asks."""

from .arrays import arrays
from .batch_iterator import BatchIterator
from .batching import combine_batches
from .combiners import combine_pad, combine_to_arrays, combine_to_tuples
from .compat import make_infinite_batch_iter
from .composition import pipeline
from .descriptions import described
from .errors import (
    Closed,
    Exhausted,
    NotResumable,
    PipekitError,
    RemoteError,
    StateMismatch,
    TooManyFailures,
    WorkerCrashed,
)
from .failures import Failure
from .figures import show
from .functions import apply_at, multiply, random_apply, sample_args, unpack_args, zip_apply
from .pipelines import Pipeline, Stage
from .policies import replace, retry, skip
from .prefetch import prefetch
from .sources import load_by_random_id, mix, sample
from .stages import apply, expiration_pool, flatten, keep, repeat, shard, shuffle, take, unpack
from .workers.kinds import processes, threads

__all__ = [
    'BatchIterator',
    'Closed',
    'Exhausted',
    'Failure',
    'NotResumable',
    'PipekitError',
    'Pipeline',
    'RemoteError',
    'Stage',
    'StateMismatch',
    'TooManyFailures',
    'WorkerCrashed',
    'apply',
    'apply_at',
    'arrays',
    'combine_batches',
    'combine_pad',
    'combine_to_arrays',
    'combine_to_tuples',
    'described',
    'expiration_pool',
    'flatten',
    'keep',
    'load_by_random_id',
    'make_infinite_batch_iter',
    'mix',
    'multiply',
    'pipeline',
    'prefetch',
    'processes',
    'random_apply',
    'repeat',
    'replace',
    'retry',
    'sample',
    'sample_args',
    'shard',
    'show',
    'shuffle',
    'skip',
    'take',
    'threads',
    'unpack',
    'unpack_args',
    'zip_apply',
]
