"""Clusters: whether they can be reached, why a job failed, and how to cancel one."""

import contextlib
import json
import re
import socket
import urllib.request
from collections.abc import Iterator, Sequence
from itertools import pairwise

from kpdata.core.errors import JobError, KpdataError

_SECONDS_TO_ANSWER = 10.0
_MASTERS = ("--flink_master", "--spark_master_url")
_ADDRESS = re.compile(r"(?:https?://|spark://)?(?P<host>[^:/,\[\]]+):(?P<port>\d+)/?")
"""The address of a single host; ``[local]``, ``yarn`` and lists of masters do not match."""

_PREFIX = re.compile(r"^Pipeline \S+ failed in state \w+: ")
_PYTHON_ERROR = re.compile(r"^(?:\w+\.)*(?P<kind>\w+(?:Error|Exception|Interrupt)): (?P<text>.+)")
_JAVA_REFUSED = "java.net.ConnectException"
_NO_POOL = ": does a pool of Beam's workers listen at --environment_config on every worker's host?"
_LOGS = "(set KPDATA_BEAM_LOGS=1 to see the runner's log)"


def check_reachable(beam_options: Sequence[str]) -> None:
    """Check that a server listens at the job's address: Beam itself would wait for minutes.

    Args:
        beam_options: as they are passed to Beam.

    Raises:
        JobError: no server listens, or the host is unknown; the message names the option.
    """
    for option, host, port in _addresses(beam_options):
        try:
            socket.create_connection((host, port), _SECONDS_TO_ANSWER).close()
        except OSError as error:
            raise JobError(
                f"{option}={host}:{port}: nobody answers there ({error.strerror or error}): "
                "is the cluster running, and reachable from here?"
            ) from error


def _addresses(beam_options: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    """Yield (option, host, port) that this machine connects to: a job server, or else masters."""
    given = _given(beam_options)
    for option in ("--job_endpoint",) if "--job_endpoint" in given else _MASTERS:
        found = _ADDRESS.fullmatch(given.get(option, ""))
        if found:
            yield option, found["host"], int(found["port"])


def _given(beam_options: Sequence[str]) -> dict[str, str]:
    """Option → value, given as ``--option=value`` or as two words."""
    return dict(pairwise(word for option in beam_options for word in option.split("=", 1)))


def cancel_on_flink(beam_options: Sequence[str], job_name: str) -> None:
    """Cancel the jobs of this name through Flink's REST API: Beam's job server leaves them running.

    Failures are ignored: the caller is about to end.
    """
    address = _ADDRESS.fullmatch(_given(beam_options).get("--flink_master", ""))
    if address is None:
        return
    jobs_url = f"http://{address['host']}:{address['port']}/jobs"
    with contextlib.suppress(Exception):
        for job in json.loads(_ask(f"{jobs_url}/overview"))["jobs"]:
            if job["name"] == job_name:
                _ask(f"{jobs_url}/{job['jid']}", "PATCH")


def _ask(url: str, method: str = "GET") -> bytes:
    request = urllib.request.Request(url, method=method)
    with urllib.request.urlopen(request, timeout=_SECONDS_TO_ANSWER) as answer:
        content: bytes = answer.read()
    return content


def explain(runner: str, error: Exception) -> str:
    """One line that says why a job on ``runner`` failed with ``error``."""
    if isinstance(error, KpdataError):
        return str(error)
    if isinstance(error, ImportError) and runner == "DaskRunner":
        return f"runner is {runner}, which needs Dask: pip install 'apache-beam[dask]' ({error})"
    if isinstance(error, FileNotFoundError) and str(error.filename).endswith("java"):
        return (
            f"runner is {runner}, which starts Beam's job server with Java, but {error.filename} "
            "is not there: install Java 17, or name a running job server with --job_endpoint"
        )
    if isinstance(error, ValueError | ImportError | AttributeError):
        return f"runner is {runner}: {error}"
    hint = _NO_POOL if _JAVA_REFUSED in str(error) else ""
    return f"runner is {runner}: the job failed: {_essence(error)}{hint} {_LOGS}"


def _essence(error: Exception) -> str:
    """The line that names the cause in a traceback of Java and Python parts."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    pythons = [found for found in map(_PYTHON_ERROR.match, lines) if found]
    if pythons:
        return f"{pythons[-1]['kind']}: {pythons[-1]['text']}"
    return _PREFIX.sub("", lines[0]) if lines else repr(error)
