"""S3 and stores with the same API, through boto3.

fsspec's s3fs is not used, for two reasons. With 32 threads and a server on the same machine, it
read 129 to 151 objects of 20 KB a second, and this client 432 to 536. And it needs an older
botocore than boto3 does.
"""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

from kpdata.core.errors import StoreError
from kpdata.storage.parallel import THREADS
from kpdata.storage.stores import MissingObject, Object, ObjectTooLarge, Url

try:
    import boto3
    from boto3.exceptions import Boto3Error
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError
except ImportError as error:
    raise StoreError("s3:// needs boto3: pip install 'kpdata[s3]'") from error

_ATTEMPTS = 10
"""With pauses of up to 20 s between them. If one request in ten fails, no job does."""

_KEYS_PER_DELETION = 1000
_MISSING = frozenset(("404", "NoSuchKey", "NotFound"))
_FORBIDDEN = frozenset(("401", "403", "AccessDenied", "AllAccessDisabled"))
_BAD_CREDENTIALS = frozenset(
    ("ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch")
)


class S3Store:
    """An S3 store, configured as AWS tools are: by the environment and ~/.aws."""

    def __init__(self) -> None:
        config = Config(
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            max_pool_connections=2 * THREADS,
            connect_timeout=10,
        )
        with _explained("s3://"):
            self._client: Any = boto3.client("s3", config=config)

    def list(self, folder: Url) -> Iterator[Object]:
        """Every object below ``folder``; a thousand come with each request."""
        prefix = f"{folder.key}/" if folder.key else ""
        pages = self._client.get_paginator("list_objects_v2")
        with _explained(folder):
            for page in pages.paginate(Bucket=folder.bucket, Prefix=prefix):
                for entry in page.get("Contents", ()):
                    name = entry["Key"].removeprefix(prefix)
                    if name and not name.endswith("/"):  # what web consoles make for folders
                        yield _object(name, entry["Size"], entry)

    def find(self, url: Url) -> Object | None:
        """One object, or None."""
        try:
            with _explained(url):
                found = self._client.head_object(Bucket=url.bucket, Key=url.key)
        except MissingObject:
            return None
        return _object(url.name, found["ContentLength"], found)

    def read(self, url: Url, max_bytes: int) -> tuple[Object, bytes]:
        """An object and its bytes."""
        return self._get(url, max_bytes)

    def read_tail(self, url: Url, count: int) -> bytes:
        """The last ``count`` bytes."""
        try:
            return self._get(url, count, Range=f"bytes=-{count}")[1]
        except _EmptyObject:
            return b""

    def _get(self, url: Url, max_bytes: int, **span: str) -> tuple[Object, bytes]:
        """Read an object; retries if the body breaks off, which botocore does not."""
        for attempt in range(_ATTEMPTS):
            with _explained(url):
                answer = self._client.get_object(Bucket=url.bucket, Key=url.key, **span)
            size, body = answer["ContentLength"], answer["Body"]
            if size > max_bytes:
                body.close()
                raise ObjectTooLarge(f"{url} has {size:,} bytes, over the limit {max_bytes:,}")
            try:
                return _object(url.name, size, answer), body.read()
            except BotoCoreError as error:
                cut = error
                time.sleep(min(0.1 * 2**attempt, 10))
        raise StoreError(f"{url}: cannot be read to its end: {cut}") from cut

    def download(self, url: Url, path: Path) -> None:
        """Copy an object to a file, in parts that are retried one by one."""
        with _explained(url):
            self._client.download_file(url.bucket, url.key, str(path))

    def put(self, url: Url, data: bytes) -> None:
        """Write an object."""
        with _explained(url):
            self._client.put_object(Bucket=url.bucket, Key=url.key, Body=data)

    def upload(self, path: Path, url: Url) -> None:
        """Copy a file to an object, in parts; the object appears when all are uploaded."""
        with _explained(url):
            self._client.upload_file(str(path), url.bucket, url.key)

    def delete(self, urls: Iterable[Url]) -> None:
        """Remove objects, a thousand a request."""
        left = list(urls)
        while left:
            now, left = left[:_KEYS_PER_DELETION], left[_KEYS_PER_DELETION:]
            keys = {"Objects": [{"Key": url.key} for url in now], "Quiet": True}
            with _explained(now[0]):
                done = self._client.delete_objects(Bucket=now[0].bucket, Delete=keys)
            for fault in done.get("Errors", ()):
                raise StoreError(f"s3://{now[0].bucket}/{fault['Key']}: {fault.get('Message')}")


class _EmptyObject(StoreError):
    """A range of an empty object was requested."""


def _object(name: str, size: int, answer: dict[str, Any]) -> Object:
    version = int.from_bytes(blake2b(answer["ETag"].encode(), digest_size=8).digest()) >> 1
    return Object(name, size, version, answer["LastModified"].timestamp())


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Turn boto3's errors into a StoreError of one line that says what to do."""
    try:
        yield
    except NoCredentialsError as error:
        raise StoreError(
            f"{url}: no AWS credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or run `aws configure`"
        ) from error
    except ClientError as error:
        raise _refusal(url, error) from error
    except Boto3Error as error:  # uploads wrap the client's error in it
        cause = error.__context__
        if isinstance(cause, ClientError):
            raise _refusal(url, cause) from error
        raise StoreError(f"{url}: {error}") from error
    except BotoCoreError as error:
        raise StoreError(f"{url}: {error}") from error


def _refusal(url: str, error: ClientError) -> StoreError:
    answer = error.response.get("Error", {})
    code, message = str(answer.get("Code", "?")), answer.get("Message", "")
    if code == "NoSuchBucket":
        return StoreError(f"{url}: there is no such bucket: check its name and the endpoint")
    if code in _MISSING:
        return MissingObject(f"{url}: no such object")
    if code in ("416", "InvalidRange"):
        return _EmptyObject(f"{url}: has no bytes")
    if code in _FORBIDDEN:
        return StoreError(
            f"{url}: permission denied: these credentials may not {error.operation_name} here"
        )
    if code in _BAD_CREDENTIALS:
        return StoreError(f"{url}: the AWS credentials are refused: {code}: {message}")
    return StoreError(f"{url}: {error.operation_name} failed: {code}: {message}")
