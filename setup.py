from pathlib import Path

from setuptools import find_packages, setup

setup(
    name='pipekit-batches',
    version='0.1.0',
    description='Training data from small pure functions: sampled, loaded, combined before the network asks',
    long_description=Path(__file__).with_name('README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='MIT',
    keywords='data loading, batches, pipeline, neural networks, reproducibility',
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'Programming Language :: Python :: 3',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Programming Language :: Python :: 3.14',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Typing :: Typed',
    ],
    packages=find_packages(include=['pipekit', 'pipekit.*']),
    package_data={'pipekit': ['py.typed', '*.pyi', '*/*.pyi']},
    python_requires='>=3.11',
    install_requires=['numpy>=2.0', 'toolz>=0.12', 'more-itertools>=10'],
    extras_require={
        'processes': ['cloudpickle>=3', 'tblib>=3.2'],
        'plot': ['matplotlib'],
        'progress': ['tqdm'],
        'examples': ['mlxtend', 'matplotlib', 'tqdm'],
        'tests': [
            'pytest',
            'pytest-timeout',
            'pytest-xdist',
            'hypothesis',
            'nbclient',
            'ipykernel',
            'loky',
            'dask[distributed]',
            'cloudpickle>=3',
            'tblib>=3.2',
        ],
        'types': ['mypy', 'pyright[nodejs]', 'types-tqdm'],
        'lint': ['ruff'],
        'docs': ['sphinx', 'myst-nb', 'furo'],
    },
)
