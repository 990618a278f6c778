"""Tar files in an object store, a server of S3 in this process."""

import json
import threading
from collections import Counter
from itertools import chain

import pytest
from files.writing import KINDS, write_files

from pipekit import apply, combine_batches, pipeline, prefetch, read_tar, retry, rows, threads

s3fs = pytest.importorskip('s3fs')
moto_server = pytest.importorskip('moto.server')
serving = pytest.importorskip('werkzeug.serving')

pytestmark = pytest.mark.filterwarnings('ignore')  # of packages that these packages use

LENGTHS = [6, 9, 12, 5, 8, 10]


class Store:
    """A server that counts what is got of each file, and is busy as often as it is told to be."""

    def __init__(self):
        self.app = moto_server.DomainDispatcherApplication(moto_server.create_backend_app)
        self.server = serving.make_server('127.0.0.1', 0, self, threaded=True)
        self.url = f'http://127.0.0.1:{self.server.port}'
        self.got, self.busy = Counter(), 0

    def __call__(self, environ, start_response):
        path = environ['PATH_INFO']
        if environ['REQUEST_METHOD'] == 'GET' and path.endswith('.tar'):
            if self.busy:
                self.busy -= 1
                start_response('503 Slow Down', [('Content-Type', 'text/xml')])
                return [b'<Error><Code>SlowDown</Code><Message>reduce your request rate</Message></Error>']
            self.got[path.rpartition('/')[2]] += 1
        return self.app(environ, start_response)


@pytest.fixture(scope='module')
def store():
    made = Store()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


@pytest.fixture
def options(store):
    return {
        'key': 'key',
        'secret': 'secret',
        'endpoint_url': store.url,
        'client_kwargs': {'region_name': 'eu-west-1'},
        'config_kwargs': {'retries': {'max_attempts': 1}},
    }


@pytest.fixture
def urls(store, options, tmp_path, request):
    files, _ = write_files(KINDS['tar'], tmp_path, LENGTHS)
    system = s3fs.S3FileSystem(**options)
    bucket = request.node.name.replace('_', '-')[:60].strip('-')
    system.mkdir(bucket)
    for file in files:
        system.put(file, f'{bucket}/{file.rpartition("/")[2]}')
    store.got.clear()
    return [f's3://{bucket}/{file.rpartition("/")[2]}' for file in files]


def test_it_goes_on_inside_a_tar_file(store, urls, options):
    read = read_tar(storage_options=options)
    assert read.lengths(urls) == LENGTHS
    assert s3fs.S3FileSystem(**options).exists(f'{urls[0]}.index')

    def batches():
        source = rows(urls, LENGTHS, window=4, lanes=2, batch_size=4, seed=0)
        return pipeline(source, apply(read, workers=threads(2)), combine_batches(4, list), prefetch(5))

    with batches() as some:
        list(some)
        state = json.loads(json.dumps(some.state_dict()))
        following = list(some)
    store.got.clear()
    with batches() as again:
        again.load_state_dict(state)
        assert list(again) == following
    ahead = 4 * 4  # samples of batches that are made ahead, and those in the threads
    assert sum(store.got.values()) <= 5 * 4 + ahead  # one request for each sample


def test_a_rank_opens_the_files_of_its_lanes(store, urls, options):
    read = read_tar(storage_options=options)
    lengths = read.lengths(urls)
    opened = []
    for rank in range(2):
        store.got.clear()
        share = combine_batches(4, list, rank=rank, world_size=2)
        source = rows(urls, lengths, lanes=2, batch_size=4, passes=1, seed=0)
        samples = list(chain(*pipeline(source, apply(read), share)))
        assert sum(store.got.values()) == len(samples) == 25
        opened.append(len(store.got))
    assert max(opened) <= 4
    assert sum(opened) <= 7  # each file on one rank, but for the one at the border


def test_a_passing_503_is_retried(store, urls, options, monkeypatch):
    monkeypatch.setattr(s3fs.S3FileSystem, 'retries', 1)
    read = read_tar(storage_options=options)
    lengths = read.lengths(urls)
    source = rows(urls, lengths, passes=1, shuffle=False)
    store.busy = 2
    samples = list(pipeline(source, apply(read, on_error=retry(3, OSError))))
    assert store.busy == 0
    assert samples == [KINDS['tar'].expected(number) for number in range(sum(LENGTHS))]
    store.busy = 100
    with pytest.raises(OSError, match='reduce your request rate'):
        list(pipeline(source, apply(read)))
    store.busy = 0
