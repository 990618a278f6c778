"""Training-data pipelines made of small pure functions; a background thread makes batches ahead of their use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .batches.batch_iterator import BatchIterator
from .batches.prefetch import prefetch
from .compat import make_infinite_batch_iter
from .composition import pipeline
from .describing.descriptions import described
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
from .files.columns import read_hdf5, read_zarr
from .files.json_lines import read_json_lines
from .files.npy import read_npy
from .files.parquet import read_parquet
from .files.rows import rows
from .files.sequence import Row
from .files.tar import read_tar
from .plans.pipeline import Pipeline, Stage
from .stages.arrays import arrays
from .stages.batching import combine_batches
from .stages.combiners import combine_pad, combine_to_arrays, combine_to_tuples
from .stages.functions import apply_at, multiply, random_apply, sample_args, unpack_args, zip_apply
from .stages.mapping import apply, flatten, keep, unpack
from .stages.ordering import expiration_pool, repeat, shard, shuffle, take
from .stages.seeding import reseeded, seeded
from .stages.sources import load_by_random_id, mix, sample
from .streams.failures import Failure
from .streams.on_error import replace, retry, skip
from .workers.kinds import executor, processes, threads
from .workers.resources import per_worker

if TYPE_CHECKING:
    from . import testing as testing
    from .reports.show import show

    __version__: str

__all__ = [
    'BatchIterator',
    'Closed',
    'Exhausted',
    'Failure',
    'NotResumable',
    'PipekitError',
    'Pipeline',
    'RemoteError',
    'Row',
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
    'executor',
    'expiration_pool',
    'flatten',
    'keep',
    'load_by_random_id',
    'make_infinite_batch_iter',
    'mix',
    'multiply',
    'per_worker',
    'pipeline',
    'prefetch',
    'processes',
    'random_apply',
    'read_hdf5',
    'read_json_lines',
    'read_npy',
    'read_parquet',
    'read_tar',
    'read_zarr',
    'repeat',
    'replace',
    'reseeded',
    'retry',
    'rows',
    'sample',
    'sample_args',
    'seeded',
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

_WINGS = ['batches', 'describing', 'files', 'memory', 'plans', 'reports', 'stages', 'streams', 'workers']


def __getattr__(name: str) -> Any:
    # What takes a while to load is loaded on first use.
    if name in ('reports', 'testing'):
        return import_module(f'.{name}', __name__)
    if name == 'show':
        return import_module('.reports.show', __name__).show
    if name == '__version__':
        return import_module('.reports.measurements', __name__).VERSION
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted([*__all__, *_WINGS, '__version__', 'testing'])


for _name in set(__all__) - {'show'}:  # so that pickles and error messages name pipekit itself
    globals()[_name].__module__ = __name__
