"""Conversions from and to a real S3 API: moto's server on the loopback, made to fail at will."""

import contextlib
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import fsspec
import msgspec
import pytest
from click.testing import CliRunner
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

import kpdata
from kpdata.checks.verify import verify
from kpdata.cli.main import cli
from kpdata.core.errors import DatasetError, JobError, KpdataError, StoreError
from kpdata.core.progress import Progress
from kpdata.pipelines import conversion
from kpdata.pipelines.output import lock
from kpdata.pipelines.output.notes import ProgressNote
from kpdata.pipelines.output.remote import RemoteWorkspace
from kpdata.pipelines.run import worker_count
from kpdata.shards.manifest import read_manifest
from kpdata.storage import fsspec_store, stores
from kpdata.storage.fsspec_store import FsspecStore
from kpdata.storage.image_files import Stamp
from kpdata.storage.image_objects import StampListing
from kpdata.storage.stores import Store, Url, store_of

BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Server:
    """moto's S3, behind a door that counts requests, and turns some of them away.

    Attributes:
        failing: the share of requests that are answered with 503, drawn from a seed.
        forbidden: methods that are answered with 403.
        requests, errors: how many came, and how many of them were answered with 503.
    """

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.reset()
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def reset(self) -> None:
        self.failing, self.forbidden = 0.0, frozenset[str]()
        self.requests = self.errors = 0
        self._draw = random.Random(0)
        self._lock = threading.Lock()

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        with self._lock:
            self.requests += 1
            fails = self._draw.random() < self.failing
            self.errors += fails
        if environ["REQUEST_METHOD"] in self.forbidden:
            return self._refuse("403 Forbidden", DENIED, environ, start)
        if fails:
            return self._refuse("503 Slow Down", BUSY, environ, start)
        answer: Iterable[bytes] = self._app(environ, start)
        return answer

    def _refuse(
        self, status: str, body: bytes, environ: dict[str, Any], start: Callable[..., Any]
    ) -> Iterable[bytes]:
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def close(self) -> None:
        self._server.shutdown()


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    server = Server()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": server.url}.items():
            patch.setenv(name, value)
        stores._store.cache_clear()
        yield server
    stores._store.cache_clear()
    server.close()


@pytest.fixture
def server(running: Server) -> Server:
    running.reset()
    return running


@pytest.fixture(scope="module")
def client(running: Server) -> Any:
    return boto3.client("s3")


@pytest.fixture
def bucket(client: Any, server: Server, request: pytest.FixtureRequest) -> Url:
    """An empty bucket."""
    name = f"kp-{abs(hash(request.node.nodeid)):x}"
    client.create_bucket(Bucket=name)
    return Url(f"s3://{name}")


@pytest.fixture(scope="module")
def source(make_coco: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 pictures, two of them alike. Never write into their folder."""
    path = make_coco(tmp_path_factory.mktemp("source"), 30)
    first, second = sorted((path.parent / "images").iterdir())[:2]
    second.write_bytes(first.read_bytes())
    return path


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a conversion from disk to disk gives."""
    out = tmp_path_factory.mktemp("local") / "out"
    convert(source, source.parent / "images", out)
    return out


@pytest.fixture(scope="module")
def root_hash(whole: Path) -> str:
    """Of ``whole``."""
    return read_manifest(whole).root_hash


def put(client: Any, folder: Path, url: Url) -> Url:
    """Copy a folder to a store."""
    for path in folder.rglob("*"):
        if path.is_file():
            key = (url / path.relative_to(folder).as_posix()).key
            client.put_object(Bucket=url.bucket, Key=key, Body=path.read_bytes())
    return url


def get(url: Url, folder: Path) -> Path:
    """Copy a folder from a store."""
    folder.mkdir()
    for found in store_of(url).list(url):
        store_of(url).download(url / found.name, folder / found.name)
    return folder


def names(client: Any, url: Url) -> list[str]:
    """All keys below a place."""
    found = client.list_objects_v2(Bucket=url.bucket, Prefix=url.key and f"{url.key}/")
    return [entry["Key"] for entry in found.get("Contents", ())]


def run(*arguments: object) -> Any:
    """A command's JSON; what a library raises comes through."""
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    if result.exception:
        raise result.exception
    return json.loads(result.stdout)


def convert(annotations: object, images: object, out: object, *options: object) -> str:
    """Convert in this process, and return the root hash."""
    done = run(
        "convert", "coco", annotations, "--images", images, "--out", out, "--crop", 48,
        "--augment", 1, "--shards", 4, "--workers", 1, "--json", *options,
    )  # fmt: skip
    return str(done["root_hash"])


def assert_finished(client: Any, out: Url, root_hash: str) -> None:
    manifest, faults = verify(out)
    assert (manifest.root_hash, faults) == (root_hash, [])
    assert not [key for key in names(client, out) if ".kpdata" in key]


@pytest.mark.parametrize("where", ["annotations", "images", "out", "annotations images out"])
def test_any_mix_of_disk_and_store_gives_the_same_dataset(
    client: Any, bucket: Url, source: Path, root_hash: str, where: str, tmp_path: Path
) -> None:
    put(client, source.parent, bucket / "in")
    annotations = bucket / "in" / source.name if "annotations" in where else source
    images = bucket / "in/images" if "images" in where else source.parent / "images"
    out = bucket / "shards" if "out" in where else tmp_path / "out"
    assert convert(annotations, f"{images}/", f"{out}/") == root_hash
    _, faults = verify(out)
    assert faults == []
    if isinstance(out, Url):
        assert_finished(client, out, root_hash)
        assert run("inspect", out, "--json")["root_hash"] == root_hash
        assert run("verify", out, "--json")["faults"] == []


def test_worker_processes_read_from_the_store_and_write_to_it(
    client: Any, bucket: Url, source: Path, root_hash: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_count, "_SECONDS_WORTH_WORKERS", 0.0)
    images = put(client, source.parent / "images", bucket / "images")
    assert convert(source, images, bucket / "out", "--workers", 2) == root_hash
    assert_finished(client, bucket / "out", root_hash)


def test_a_dataset_on_a_store_is_read_as_one_on_a_disk(
    client: Any, bucket: Url, tiny_shards: Path
) -> None:
    url = put(client, tiny_shards, bucket / "shards")
    here, there = kpdata.open(tiny_shards), kpdata.open(f"{url}/")
    assert there.manifest == here.manifest
    for split in here.splits:
        pairs = zip(here[split], there[split], strict=True)
        assert all(a.key == b.key and a.image.data == b.image.data for a, b in pairs)


def test_shards_on_a_store_are_a_source(
    client: Any, bucket: Url, tiny_shards: Path, tmp_path: Path
) -> None:
    url = put(client, tiny_shards, bucket / "shards")
    results = [
        run("convert", "shards", place, "--out", tmp_path / name, "--json")["root_hash"]
        for name, place in (("a", tiny_shards), ("b", url))
    ]
    assert results[0] == results[1]


def test_a_deeplabcut_project_on_a_store_is_read_with_its_config(
    client: Any, bucket: Url, source: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mice"
    shutil.copytree(source.parent / "images", folder / "labeled-data/walk")
    rows = [f"labeled-data/walk/{number:06d}.jpg,{number},2" for number in range(1, 9)]
    text = "\n".join(["scorer,me,me", "bodyparts,nose,nose", "coords,x,y", *rows])
    (folder / "labeled-data/walk/CollectedData_me.csv").write_text(text)
    (folder / "config.yaml").write_text("Task: mice\nscorer: me\n")
    url = put(client, folder, bucket / "mice")
    results = [
        run("convert", "deeplabcut", place, "--images", place, "--out", tmp_path / name, "--json")
        for name, place in (("a", folder), ("b", url))
    ]
    assert results[0]["root_hash"] == results[1]["root_hash"]
    assert kpdata.open(tmp_path / "b").skeleton.name == "mice"


def test_json_files_on_a_store_pair_with_images_on_it(
    client: Any, bucket: Url, source: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "labels"
    folder.mkdir()
    for number in range(1, 9):
        label = [{"box": [1, 1, 40, 40], "keypoints": [[9, 9, 2], [20, 20, 1]], "label": "boat"}]
        (folder / f"{number:06d}.json").write_text(json.dumps(label))
    (tmp_path / "boat.json").write_text('{"name": "boat", "keypoints": ["bow", "stern"]}')
    put(client, folder, bucket / "labels")
    images = put(client, source.parent / "images", bucket / "images")
    results = [
        run(
            "convert", "json", labels, "--images", pictures, "--out", tmp_path / name,
            "--skeleton", tmp_path / "boat.json", "--json",
        )["root_hash"]
        for name, labels, pictures in (
            ("a", folder, source.parent / "images"), ("b", bucket / "labels", images),
        )
    ]  # fmt: skip
    assert results[0] == results[1]


@pytest.mark.parametrize("workers", [1, 2])
def test_one_request_in_ten_may_fail(
    client: Any, server: Server, bucket: Url, source: Path, root_hash: str, whole: Path,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault_trial: Callable[..., None], workers: int,
) -> None:  # fmt: skip
    monkeypatch.setattr(worker_count, "_SECONDS_WORTH_WORKERS", 0.0)
    put(client, source.parent, bucket / "in")
    annotations, images, out = bucket / "in" / source.name, bucket / "in/images", bucket / "out"
    server.reset()
    server.failing = 0.1
    assert convert(annotations, images, out, "--workers", workers) == root_hash
    _, faults = verify(out)
    assert faults == []
    requests, errors = server.requests, server.errors
    server.reset()
    assert errors > 0.05 * requests > 5
    assert_finished(client, out, root_hash)
    moment = f"{errors} of {requests} requests, {workers} workers"
    fault_trial("503 from a store", moment, get(out, tmp_path / "copy"), whole)


def test_names_that_lead_out_and_images_that_are_not_there_are_quarantined_as_on_a_disk(
    client: Any, bucket: Url, source: Path, tmp_path: Path
) -> None:
    content = json.loads(source.read_text())
    bad = ["../secret.jpg", "/etc/passwd", "a/../../b.jpg", "gone.jpg", "empty.jpg", "cut.jpg"]
    for image, name in zip(content["images"], bad, strict=False):
        image["file_name"] = name
    content["images"][6]["file_name"] = "./000007.jpg"
    images = tmp_path / "in" / "images"
    images.mkdir(parents=True)
    for path in (source.parent / "images").iterdir():
        (images / path.name).write_bytes(path.read_bytes())
    (images / "empty.jpg").write_bytes(b"")
    (images / "cut.jpg").write_bytes((images / "000006.jpg").read_bytes()[:-50])
    annotations = tmp_path / "in" / "annotations.json"
    annotations.write_text(json.dumps(content))
    put(client, tmp_path / "in", bucket / "in")
    client.put_object(Bucket=bucket.bucket, Key="in/secret.jpg", Body=b"secret")
    there = bucket / "in/images"
    here = convert(annotations, images, tmp_path / "out", "--max-quarantine", 50)
    assert convert(annotations, there, bucket / "out", "--max-quarantine", 50) == here
    quarantine = run("inspect", bucket / "out", "--json")["quarantine"]
    assert quarantine["unsafe path"] == 3
    assert {"image missing", "image empty"} < set(quarantine)
    assert sum(quarantine.values()) == 6


def test_an_image_that_is_replaced_between_plan_and_write_is_refused(
    client: Any, bucket: Url, source: Path, convert_to: Callable[..., Any]
) -> None:
    images = put(client, source.parent / "images", bucket / "images")

    class Replacing(Progress):
        def begin(self, step: str, total: int | None = None, unit: str = "images") -> None:
            if step != "writing":
                return
            data = (source.parent / "images/000009.jpg").read_bytes()
            client.put_object(Bucket=bucket.bucket, Key="images/000003.jpg", Body=data)

    outcome = convert_to(
        bucket / "out", source, images=images, max_quarantine=50, progress=Replacing(), shards=2
    )
    assert outcome.manifest.quarantine == {"image changed": 1}


def test_images_cost_one_listing_and_one_request_each(
    client: Any, server: Server, bucket: Url, source: Path, tmp_path: Path
) -> None:
    images = put(client, source.parent / "images", bucket / "images")
    server.reset()
    with StampListing(images) as listing:
        assert isinstance(listing.stamp(f"{images}/000001.jpg"), Stamp)
    assert server.requests == 1
    server.reset()
    convert(source, images, tmp_path / "out", "--split", "train=100", "--shards", 1)
    assert server.requests <= 30 + 2 + 30 + 2  # images, listings, and tails of those of one size


# What is left of a conversion that died


def test_a_killed_driver_leaves_what_the_next_run_can_finish(
    client: Any, bucket: Url, source: Path, tmp_path: Path, fault_trial: Callable[..., None]
) -> None:
    images = put(client, source.parent / "images", bucket / "images")
    options = ("--crop", 128, "--augment", 40, "--shards", 12, "--workers", 1, "--json")
    command = ["convert", "coco", source, "--images", images, "--out"]
    process = subprocess.Popen(
        [sys.executable, "-c", "from kpdata.cli.main import main; main()"]
        + [str(word) for word in (*command, bucket / "out", *options)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    _wait_for(lambda: len([k for k in names(client, bucket / "out") if "reports/" in k]) > 1)
    process.send_signal(signal.SIGSTOP)  # else it may come to its end before the second begins
    second = CliRunner().invoke(cli, [str(w) for w in (*command, bucket / "out", *options)])
    assert isinstance(second.exception, DatasetError)
    assert f"another conversion is writing to this folder: process {process.pid} on" in str(
        second.exception
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = names(client, bucket / "out")
    assert not any(key.endswith("kpdata.json") for key in left)
    assert any("/.kpdata/claims/" in key for key in left)
    kept = _versions(client, bucket / "out", "reports/")
    assert kept
    with pytest.raises(DatasetError, match="holds the unfinished conversion of other annotations"):
        convert(source, images, bucket / "out", "--crop", 64)
    assert _versions(client, bucket / "out", "reports/") == kept
    done = run(*command, bucket / "out", *options)
    assert done["written_samples"] < 30
    assert done["root_hash"] == run(*command, tmp_path / "out", *options)["root_hash"]
    assert_finished(client, bucket / "out", done["root_hash"])
    moment = f"{len(kept)} of 12 shards whole"
    copy = get(bucket / "out", tmp_path / "copy")
    fault_trial("kill -9 of the driver, output on a store", moment, copy, tmp_path / "out")


def _wait_for(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to this point"
        time.sleep(0.05)


def _versions(client: Any, url: Url, part: str) -> dict[str, str]:
    found = client.list_objects_v2(Bucket=url.bucket, Prefix=f"{url.key}/")["Contents"]
    return {entry["Key"]: entry["LastModified"] for entry in found if part in entry["Key"]}


@pytest.mark.parametrize("fault", ["cut", "gone", "report damaged"])
def test_a_shard_that_is_not_what_its_report_says_is_written_again(
    client: Any, bucket: Url, source: Path, root_hash: str, monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:  # fmt: skip
    out = bucket / "out"
    with monkeypatch.context() as patched:
        patched.setattr(conversion, "seal", _fail)
        with pytest.raises(JobError, match="power cut"):
            convert(source, source.parent / "images", out)
    shard = min(name for name in names(client, out) if name.startswith("out/train-"))
    report = f"out/.kpdata/reports/{shard.rpartition('/')[2]}.json"
    assert report in names(client, out)
    if fault == "gone":
        client.delete_object(Bucket=out.bucket, Key=shard)
    else:
        key = shard if fault == "cut" else report
        data = client.get_object(Bucket=out.bucket, Key=key)["Body"].read()
        client.put_object(Bucket=out.bucket, Key=key, Body=data[: len(data) // 2])
    done = run(
        "convert", "coco", source, "--images", source.parent / "images", "--out", out,
        "--crop", 48, "--augment", 1, "--shards", 4, "--workers", 1, "--json",
    )  # fmt: skip
    assert 0 < done["written_samples"] < 30
    assert_finished(client, out, root_hash)


def test_a_runner_that_asks_for_a_shard_again_has_nothing_uploaded(
    client: Any, bucket: Url, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, out = conversion.execution.run, bucket / "out"

    def twice(planned: Any, *others: Any, **options: Any) -> None:
        real(planned, *others, **options)
        time.sleep(1)  # the store tells time in whole seconds
        before = _versions(client, out, "")
        real(replace(planned, pending=planned.pending[:1]), *others, **options)
        assert _versions(client, out, "") == before

    monkeypatch.setattr(conversion.execution, "run", twice)
    convert(source, source.parent / "images", out)
    assert verify(out)[1] == []


def test_a_shard_whose_report_was_not_written_does_not_bar_its_folder(
    client: Any, bucket: Url, source: Path, root_hash: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, out = source.parent / "images", bucket / "out"
    real = type(store_of(out)).upload

    def no_reports(store: Any, path: Path, url: Url) -> None:
        if "/reports/" in url:
            raise StoreError("power cut")
        real(store, path, url)

    with monkeypatch.context() as patched:
        patched.setattr(type(store_of(out)), "upload", no_reports)
        with pytest.raises(JobError, match="power cut"):
            convert(source, images, out)
    assert any(name.endswith(".tfrecord") for name in names(client, out))
    with pytest.raises(KpdataError):  # a run that fails before it has planned
        convert(source, bucket / "nowhere", out)
    with monkeypatch.context() as patched:
        patched.setattr(conversion, "make_plan", _fail)
        with pytest.raises(JobError, match="power cut"):
            convert(source, images, out)
    assert convert(source, images, out) == root_hash
    assert_finished(client, out, root_hash)


def _fail(*_: Any) -> None:
    raise JobError("power cut")


def test_the_same_conversion_again_does_nothing_and_another_is_refused(
    client: Any, bucket: Url, source: Path, root_hash: str
) -> None:
    images = source.parent / "images"
    assert convert(source, images, bucket / "out") == root_hash
    before = _versions(client, bucket / "out", "")
    assert convert(source, images, bucket / "out") == root_hash
    assert _versions(client, bucket / "out", "") == before
    with pytest.raises(DatasetError, match=r"s3://.*/out already holds another dataset"):
        convert(source, images, bucket / "out", "--seed", 5)
    client.put_object(Bucket=bucket.bucket, Key="other/notes.txt", Body=b"mine")
    with pytest.raises(DatasetError, match=r"is not empty \(it holds 'notes.txt'\)"):
        convert(source, images, bucket / "other")
    assert names(client, bucket / "other") == ["other/notes.txt"]


def test_a_conversion_that_is_refused_leaves_nothing(
    client: Any, bucket: Url, source: Path
) -> None:
    with pytest.raises(KpdataError, match="image missing"):
        convert(source, put(client, source.parent, bucket / "in"), bucket / "out")
    assert names(client, bucket / "out") == []


# The claim


def claim_of(**changes: Any) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(lock._this_process(), **changes))


def put_claim(client: Any, out: Url, claim: bytes) -> Url:
    url = out / ".kpdata/claims/other.json"
    client.put_object(Bucket=url.bucket, Key=url.key, Body=claim)
    return url


def test_a_living_claim_is_respected_and_its_holder_named(
    client: Any, bucket: Url, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_LONGEST_PAUSE", 0.05)
    put_claim(client, bucket / "out", claim_of(machine="another", host="far-away", pid=77))
    with pytest.raises(DatasetError, match=r"process 77 on far-away, since 20\d\d-.* \d+ s ago"):
        convert(source, source.parent / "images", bucket / "out")
    assert names(client, bucket / "out") == ["out/.kpdata/claims/other.json"]


def test_a_claim_of_a_process_that_is_gone_is_taken_over_at_once(
    client: Any, bucket: Url, source: Path, root_hash: str
) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    put_claim(client, bucket / "out", claim_of(pid=gone.pid))
    assert convert(source, source.parent / "images", bucket / "out") == root_hash
    put_claim(client, bucket / "again", claim_of(began="1"))  # this very id, but long ago
    assert convert(source, source.parent / "images", bucket / "again") == root_hash
    assert_finished(client, bucket / "again", root_hash)


def test_a_claim_that_nobody_renews_runs_out_and_one_that_is_renewed_does_not(
    client: Any, bucket: Url, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("RENEWED_EVERY", 0.3), ("DEAD_AFTER", 2.0), ("_LONGEST_PAUSE", 0.05)):
        monkeypatch.setattr(lock, name, seconds)
    put_claim(client, bucket / "out", claim_of(machine="another"))
    held = lock.FolderLock(bucket / "held")
    held.take()
    held.keep()
    time.sleep(3.2)  # the store tells time in whole seconds
    lock.FolderLock(bucket / "out").take()
    with pytest.raises(DatasetError, match="another conversion is writing"):
        lock.FolderLock(bucket / "held").take()
    held.release()
    lock.FolderLock(bucket / "held").take()


def test_a_claim_that_a_slow_request_brings_back_is_given_up(
    client: Any, bucket: Url, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the network is down for a minute while a claim is being renewed."""
    for name, seconds in (("RENEWED_EVERY", 0.1), ("DEAD_AFTER", 1.0)):
        monkeypatch.setattr(lock, name, seconds)
    real = type(store_of(bucket)).put
    held = lock.FolderLock(bucket / "out")
    held.take()

    def slow(store: Any, url: Url, data: bytes) -> None:
        if url == held.url:
            client.delete_object(Bucket=url.bucket, Key=url.key)
            put_claim(client, bucket / "out", claim_of(machine="another"))
            time.sleep(0.6)
        real(store, url, data)

    monkeypatch.setattr(type(store_of(bucket)), "put", slow)
    held.keep()
    assert held._thread
    held._thread.join(10)
    assert names(client, bucket / "out") == ["out/.kpdata/claims/other.json"]


def test_a_process_that_may_not_be_looked_at_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where /proc is mounted with hidepid, and the process is another user's."""
    claim = lock._this_process()
    monkeypatch.setattr(lock, "_beginning", lambda pid: "")
    assert not claim.seen_dead


def test_of_many_that_come_together_never_two_hold_the_folder(
    client: Any, bucket: Url, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_LONGEST_PAUSE", 0.2)
    trials, winners = 12, 0

    def take(out: Url) -> bool:
        with contextlib.suppress(DatasetError):
            lock.FolderLock(out).take()
            return True
        return False

    with ThreadPoolExecutor(3) as threads:
        for trial in range(trials):
            took = sum(threads.map(take, [bucket / f"{trial}"] * 3))
            assert took <= 1
            winners += took
    print(f"{trials} trials of 3 at once: one held the folder in {winners}, never two")
    assert winners > trials / 2


def test_a_conversion_whose_claim_is_taken_away_stops_before_it_writes_or_seals(
    client: Any, bucket: Url, source: Path, convert_to: Callable[..., Any]
) -> None:
    class Robbed(Progress):
        def begin(self, step: str, total: int | None = None, unit: str = "images") -> None:
            if step != "writing":
                return
            for key in names(client, bucket / "out/.kpdata/claims"):
                client.delete_object(Bucket=bucket.bucket, Key=key)

            client.put_object(Bucket=bucket.bucket, Key="out/.kpdata/plan/theirs", Body=b"plan")

    with pytest.raises(JobError, match="another conversion has taken this one for dead"):
        convert_to(bucket / "out", source, progress=Robbed())
    assert "out/.kpdata/plan/theirs" in names(client, bucket / "out")
    assert not [key for key in names(client, bucket / "out") if ".kpdata" not in key]


# What goes wrong


def test_a_damaged_shard_on_a_store_is_named_by_its_url(
    client: Any, bucket: Url, tiny_shards: Path
) -> None:
    out = put(client, tiny_shards, bucket / "shards")
    shard = next(key for key in names(client, out) if "train-00000" in key)
    data = bytearray(client.get_object(Bucket=out.bucket, Key=shard)["Body"].read())
    data[len(data) // 2] ^= 1
    client.put_object(Bucket=out.bucket, Key=shard, Body=bytes(data))
    client.delete_object(Bucket=out.bucket, Key=next(k for k in names(client, out) if "val" in k))
    client.put_object(Bucket=out.bucket, Key="shards/train-00009-of-00009.tfrecord", Body=b"x")
    client.delete_object(Bucket=out.bucket, Key="shards/quarantine.jsonl")
    with pytest.raises(DatasetError, match=f"{out} has no split 'other'"):
        kpdata.open(out)["other"]
    with pytest.raises(DatasetError, match=f"s3://{out.bucket}/{shard}: record "):
        list(kpdata.open(out)["train"])
    told = "\n".join(verify(out)[1])
    assert f"s3://{out.bucket}/{shard}: record " in told
    assert f"{out}/val-00000-of-00001.tfrecord is missing" in told
    assert f"{out}/train-00009-of-00009.tfrecord is not in the manifest" in told
    assert f"{out}/quarantine.jsonl is missing" in told
    assert "/tmp" not in told


def error(*arguments: object) -> str:
    """The one line in which a command ends."""
    result = CliRunner().invoke(cli, list(map(str, arguments)))
    assert isinstance(result.exception, KpdataError), result.exception
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_what_a_user_gets_wrong_is_said_in_one_line(
    client: Any, server: Server, bucket: Url, source: Path, tmp_path: Path
) -> None:
    def said(annotations: object, images: object, out: object) -> str:
        return error("convert", "coco", annotations, "--images", images, "--out", out)

    images, out = source.parent / "images", tmp_path / "out"
    nowhere = Url("s3://kp-nowhere/a")
    assert "s3://kp-nowhere/a: there is no such bucket" in said(nowhere, images, out)
    assert "there is no such bucket" in said(source, nowhere, out)
    assert "there is no such bucket" in said(source, images, nowhere)
    assert f"{bucket}/a.json: no such file or folder" in said(bucket / "a.json", images, out)
    assert f"{bucket}/a: holds nothing: give --images" in said(source, bucket / "a", out)
    put(client, source.parent, bucket / "in")
    assert "is a folder" in said(bucket / "in", images, out)
    assert "give --images too" in error("convert", "coco", bucket / "in/a.json", "--out", out)
    assert "ftp://a/b: kpdata knows local paths" in said("ftp://a/b", images, out)
    assert "s3://: names no bucket" in said(source, images, "s3://")
    told = error("convert", "coco", source, "--to", "coco", "--out", bucket / "out")
    assert "coco is written from folder to folder" in told
    client.put_object(Bucket=bucket.bucket, Key="bad.json", Body=b"{")
    assert f"{bucket}/bad.json: " in said(bucket / "bad.json", images, out)
    assert f"{bucket}/none is not a dataset" in error("verify", bucket / "none")
    assert "copy them to a local folder first" in error("audit", bucket / "none")
    server.forbidden = frozenset({"PUT"})
    assert "permission denied: these credentials may not PutObject" in said(
        source, images, bucket / "out"
    )


def test_missing_credentials_and_a_missing_extra_are_said_in_one_line(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    code = "from kpdata.cli.main import main; main()"
    for env, before, says in (
        ({"AWS_ENDPOINT_URL": server.url, "AWS_EC2_METADATA_DISABLED": "true"}, "", "no AWS cred"),
        (CREDENTIALS, "import sys; sys.modules['boto3'] = None;", "pip install 'kpdata[s3]'"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", f"{before}{code}", "verify", "s3://bucket/shards"],
            env={**home, **env}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 2
        assert says in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_workers_trouble_with_the_store_reaches_the_user(
    client: Any, bucket: Url, tmp_path: Path
) -> None:
    remote = RemoteWorkspace(tmp_path, bucket / "out", bucket / "out/.kpdata/claims/a.json")
    remote.note_failure("train-00000-of-00001.tfrecord", "permission denied")
    assert remote.failures() == ["permission denied"]


def test_progress_notes_add_up_across_workers(bucket: Url, tmp_path: Path) -> None:
    remote = RemoteWorkspace(tmp_path, bucket / "out", bucket / "claim")
    for shard, samples, size in (("a", 3, 500), ("b", 4, 100)):
        url = remote.work / "progress" / shard
        with ProgressNote(lambda note, url=url: store_of(url).put(url, note)) as progress:
            progress.advance(samples, size)
    assert remote.progress_so_far() == (7, 600)


# The contract of a store


@pytest.fixture
def fsspec_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], FsspecStore]:
    """``fsspec_on(kind)``: the store of gs://, az:// and hdfs:// on fsspec's ``kind`` instead."""

    def begin(kind: str) -> FsspecStore:
        if kind == "local":
            local = fsspec.filesystem("file", auto_mkdir=True)
            system = fsspec.filesystem("dir", path=str(tmp_path / "store"), fs=local)
        else:
            system = fsspec.filesystem("memory", skip_instance_cache=True)
            system.store.clear()
        monkeypatch.setattr(fsspec_store, "_file_system", lambda url: system)
        store = FsspecStore()
        monkeypatch.setattr(stores, "_store", lambda scheme: store)
        return store

    return begin


@pytest.fixture(params=["S3Store", "memory", "local"])
def store(request: pytest.FixtureRequest) -> Store:
    """Ours for s3://, and the one for all others."""
    if request.param == "S3Store":
        request.getfixturevalue("server")
        return store_of("s3://")
    begun: Store = request.getfixturevalue("fsspec_on")(request.param)
    return begun


@pytest.mark.parametrize("kind", ["memory", "local"])
def test_a_conversion_through_fsspec_gives_the_same_dataset(
    fsspec_on: Callable[[str], FsspecStore], source: Path, root_hash: str, kind: str
) -> None:
    store = fsspec_on(kind)
    images = Url("gs://bucket/images")
    for path in (source.parent / "images").iterdir():
        store.upload(path, images / path.name)
    assert convert(source, images, Url("gs://bucket/out")) == root_hash
    assert convert(source, images, Url("gs://bucket/out")) == root_hash
    assert verify(Url("gs://bucket/out"))[1] == []
    there = {one.name for one in store.list(Url("gs://bucket/out"))}
    assert not [name for name in there if name.startswith(".kpdata/")]


def test_what_fsspec_needs_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(StoreError, match=r"pip install 'kpdata\[gcs\]'"):
        FsspecStore().find(Url("gs://bucket/a"))


@pytest.mark.parametrize(
    "time", ["2026-01-31T12:00:00Z", 1769860800000, 1769860800, datetime(2026, 1, 31, 12)]
)
def test_every_way_of_telling_the_time_is_understood(time: object) -> None:
    assert fsspec_store._seconds(time) == 1769860800


def test_every_store_does_what_is_asked_of_it(
    store: Store, client: Any, bucket: Url, tmp_path: Path
) -> None:
    folder = bucket / "a"
    assert list(store.list(folder)) == []
    assert store.find(folder / "none") is None
    for call in (
        lambda: store.read(folder / "none", 10),
        lambda: store.read_tail(folder / "none", 10),
        lambda: store.download(folder / "none", tmp_path / "none"),
    ):
        with pytest.raises(stores.MissingObject):
            call()
    store.put(folder / "b/c.bin", b"0123456789")
    store.put(bucket / "ab.bin", b"beside")
    store.put(folder / "empty", b"")
    assert [(o.name, o.size) for o in store.list(folder)] == [("b/c.bin", 10), ("empty", 0)]
    found = store.find(folder / "b/c.bin")
    assert found
    assert (found.name, found.size) == ("c.bin", 10)
    assert abs(found.modified - time.time()) < 60
    assert store.read(folder / "b/c.bin", 10) == (found, b"0123456789")
    assert store.read_tail(folder / "b/c.bin", 4) == b"6789"
    assert store.read_tail(folder / "b/c.bin", 99) == b"0123456789"
    assert store.read_tail(folder / "empty", 4) == b""
    with pytest.raises(stores.ObjectTooLarge, match="10 bytes, over the limit 9"):
        store.read(folder / "b/c.bin", 9)
    (tmp_path / "file").write_bytes(bytes(range(256)) * 40_000)  # more than one part
    store.upload(tmp_path / "file", folder / "file")
    store.download(folder / "file", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "file").read_bytes()
    store.delete([folder / "b/c.bin", folder / "empty", folder / "none", folder / "file"])
    assert list(store.list(folder)) == []


def test_an_upload_that_fails_half_way_leaves_no_object(
    client: Any, server: Server, bucket: Url, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(bytes(20 << 20))
    server.forbidden = frozenset({"PUT"})  # the parts; beginning and ending are POST
    with pytest.raises(StoreError, match="permission denied"):
        store_of(bucket).upload(tmp_path / "file", bucket / "file")
    server.reset()
    assert names(client, bucket) == []
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket.bucket)


def test_a_body_that_breaks_off_is_read_again(
    server: Server, bucket: Url, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.exceptions import IncompleteReadError

    store = store_of(bucket)
    store.put(bucket / "a", b"whole")
    real, breaks = store._client.get_object, iter([True, True, False])  # type: ignore[attr-defined]

    def broken(**request: Any) -> Any:
        told = real(**request)
        if next(breaks):
            told["Body"] = SimpleNamespace(read=_break(IncompleteReadError), close=lambda: None)
        return told

    monkeypatch.setattr(store._client, "get_object", broken)  # type: ignore[attr-defined]
    assert store.read(bucket / "a", 10)[1] == b"whole"


def _break(kind: type[Exception]) -> Callable[[], bytes]:
    def read() -> bytes:
        raise kind(actual_bytes=2, expected_bytes=5)  # type: ignore[call-arg]

    return read


@pytest.mark.parametrize("name", ["../up.json", "a/../../up.json", "/abs.json", "a//b.json"])
def test_an_objects_name_cannot_lead_out_of_the_temporary_folder(
    client: Any, bucket: Url, name: str
) -> None:
    client.put_object(Bucket=bucket.bucket, Key=f"labels/{name}", Body=b"{}")
    with (
        pytest.raises(StoreError, match="its name is no file's"),
        stores.local_copy(bucket / "labels", frozenset({".json"})),
    ):
        pass
