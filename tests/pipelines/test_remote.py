"""Clusters from the user's side: are they there, why did a job end, and how to end one."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from kpdata.core.errors import JobError
from kpdata.pipelines.run import beam_job
from kpdata.pipelines.run.clusters import cancel_on_flink, check_reachable, explain


@pytest.fixture
def nobody() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def somebody() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--job_endpoint", "127.0.0.1:{}"),
        ("--flink_master", "127.0.0.1:{}"),
        ("--flink_master", "http://127.0.0.1:{}/"),
        ("--spark_master_url", "spark://127.0.0.1:{}"),
    ],
)
@pytest.mark.parametrize("words", ["{}={}", "{} {}"])
def test_an_address_where_nobody_listens_is_named_at_once(
    option: str, value: str, words: str, nobody: int, somebody: int
) -> None:
    def options(port: int) -> list[str]:
        return ["--parallelism=2", *words.format(option, value.format(port)).split(" ")]

    check_reachable(options(somebody))
    started = time.monotonic()
    with pytest.raises(JobError, match=f"^{option}=127.0.0.1:{nobody}: nobody answers there"):
        check_reachable(options(nobody))
    assert time.monotonic() - started < 5


def test_a_host_that_does_not_exist_is_named() -> None:
    with pytest.raises(JobError, match=r"--flink_master=no-such-host\.invalid:8081: nobody"):
        check_reachable(["--flink_master=no-such-host.invalid:8081"])


def test_behind_a_job_server_masters_need_not_be_reachable_from_here(
    nobody: int, somebody: int
) -> None:
    check_reachable([f"--job_endpoint=127.0.0.1:{somebody}", f"--flink_master=127.0.0.1:{nobody}"])


@pytest.mark.parametrize(
    "option",
    [
        "--flink_master=[local]",
        "--flink_master=[auto]",
        "--spark_master_url=local[4]",
        "--spark_master_url=yarn",
        "--spark_master_url=spark://a:7077,b:7077",
        "--job_endpoint=embed",
        "--job_name=some:1",
        "--flink_master",
    ],
)
def test_what_is_no_single_address_is_left_to_the_runner(option: str) -> None:
    check_reachable([option])


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ImportError("No module named 'dask.bag'"), "pip install 'apache-beam[dask]'"),
        (FileNotFoundError(2, "No such file or directory", "java"), "install Java 17"),
        (ValueError("no such option"), "runner is DaskRunner: no such option"),
        (JobError("as it is"), "as it is"),
        (TimeoutError("Timed out trying to connect"), "the job failed: Timed out trying to"),
        (RuntimeError(), "the job failed: RuntimeError()"),
    ],
)
def test_every_error_becomes_one_line_with_what_to_do(error: Exception, says: str) -> None:
    line = explain("DaskRunner", error)
    assert says in line
    assert "\n" not in line


def test_of_a_traceback_through_two_languages_the_pythons_last_error_is_told() -> None:
    text = (
        "Pipeline BeamApp-1 failed in state FAILED: java.util.concurrent.ExecutionException: "
        "java.lang.RuntimeError: Error received from SDK harness: Traceback (most recent call "
        'last):\n  File "sdk_worker.py", line 1, in f\n    g()\nOSError: [Errno 28] No space left\n'
        "\n\tat org.apache.beam.Some.method(Some.java:1)\n\t... 3 more\n"
    )
    assert "the job failed: OSError: [Errno 28] No space left (" in explain(
        "FlinkRunner", RuntimeError(text)
    )


def test_workers_without_a_pool_are_what_a_refused_connection_means() -> None:
    error = RuntimeError(
        "Pipeline BeamApp-1_2-3 failed in state FAILED: java.net.ConnectException: finishConnect"
        "(..) failed: Connection refused"
    )
    line = explain("FlinkRunner", error)
    assert "the job failed: java.net.ConnectException: finishConnect(..) failed" in line
    assert "does a pool of Beam's workers listen at --environment_config" in line


def test_an_interrupt_cancels_the_job_where_it_runs() -> None:
    done: list[str] = []

    def wait() -> None:
        raise KeyboardInterrupt

    def cancel() -> None:
        done.append("cancelled")
        raise RuntimeError("the job server is gone: nobody is told")

    result = SimpleNamespace(wait_until_finish=wait, cancel=cancel)
    pipeline: Any = SimpleNamespace(run=lambda: result)
    with beam_job._Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
        beam_job._run(pipeline, interrupts)
    assert done == ["cancelled"]


@pytest.fixture
def flink() -> Iterator[tuple[int, list[str]]]:
    """The port of a Flink that runs two jobs, and what it was asked."""
    asked: list[str] = []

    class Rest(BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked.append(f"{self.command} {self.path}")
            jobs = [{"jid": "a1", "name": "ours"}, {"jid": "b2", "name": "theirs"}]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"jobs": jobs}).encode())

        do_GET = do_PATCH = answer

        def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - the base's name
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Rest) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server.server_port, asked
        server.shutdown()


def test_flink_is_asked_to_cancel_the_job_of_this_run_alone(flink: tuple[int, list[str]]) -> None:
    port, asked = flink
    cancel_on_flink([f"--flink_master=http://127.0.0.1:{port}"], "ours")
    assert asked == ["GET /jobs/overview", "PATCH /jobs/a1"]


def test_a_flink_that_is_gone_is_no_reason_to_complain(nobody: int) -> None:
    cancel_on_flink([f"--flink_master=127.0.0.1:{nobody}"], "ours")
    cancel_on_flink(["--flink_master=[local]"], "ours")
    cancel_on_flink([], "ours")


def test_an_answer_that_is_not_flinks_is_no_reason_to_complain() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")
            connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        cancel_on_flink([f"--flink_master=127.0.0.1:{server.getsockname()[1]}"], "ours")
        thread.join()
