"""Examples that need an extra are skipped where it is not installed."""

from importlib.util import find_spec

import pytest

NEEDED = {'pipekit.read_parquet': 'pyarrow', 'pipekit.read_hdf5': 'h5py', 'pipekit.read_zarr': 'zarr'}


def pytest_collection_modifyitems(items):
    for item in items:
        package = NEEDED.get(item.name)
        if package is not None and find_spec(package) is None:
            item.add_marker(pytest.mark.skip(reason=f'{package} is not installed'))
