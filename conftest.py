"""Which modules have examples that can be run: those that need an extra are left out where it is not installed."""

from importlib.util import find_spec

NEEDED = {'pipekit/files/parquet.py': ['pyarrow'], 'pipekit/files/columns.py': ['h5py', 'zarr']}

collect_ignore = [path for path, packages in NEEDED.items() if not all(map(find_spec, packages))]
