"""Processes of JAX: the global arrays made of their shares are those of one process."""

import json
import socket
import sys
from contextlib import ExitStack
from importlib.util import find_spec

import pytest
from ranks.launching import PROGRAMS, TIMEOUT_SECONDS, launched

pytestmark = [
    pytest.mark.skipif(find_spec('jax') is None, reason='needs jax'),
    pytest.mark.timeout(300),
]


def free_port():
    with socket.socket() as bound:
        bound.bind(('localhost', 0))
        return bound.getsockname()[1]


def steps(folder, n_processes, n_devices):
    """The steps that each of so many processes, with so many devices, has printed."""
    address = f'localhost:{free_port()}'
    flags = {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': f'--xla_force_host_platform_device_count={n_devices}'}
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                launched([sys.executable, PROGRAMS / 'arrays_of_jax.py', address, n_processes, number], folder, **flags)
            )
            for number in range(n_processes)
        ]
        printed = [process.communicate(timeout=TIMEOUT_SECONDS) for process in processes]
        assert all(process.returncode == 0 for process in processes), printed
        return [json.loads(out.splitlines()[-1]) for out, _ in printed]


def test_the_global_arrays_of_two_processes_are_those_of_one(tmp_path):
    [expected] = steps(tmp_path, 1, 1)
    assert [step['shapes'] for step in expected] == [[[8], [8, 3]]] * 5
    for n_devices in 1, 2:
        for of_process in steps(tmp_path, 2, n_devices):
            assert [step['sum'] for step in of_process] == pytest.approx([step['sum'] for step in expected])
            for step, other in zip(of_process, expected, strict=True):
                assert step['values'] == other['values']
                assert step['shapes'] == other['shapes']
