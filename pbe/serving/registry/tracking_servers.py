"""Whether MLflow's server answers, and its failures as errors of one line."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from pbe.errors import UnavailableError, one_line

if TYPE_CHECKING:
    from mlflow.exceptions import MlflowException

ANSWER_WITHIN_S = 4.0

_DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


@contextmanager
def outages_reported(tracking_uri: str) -> Iterator[None]:
    """Raise UnavailableError for a failed request to the tracking server: MLflow's error has an OSError as context."""
    check_server(tracking_uri)
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if not (tracking_uri.startswith("http") and isinstance(error.__context__, OSError)):
            raise
        raise unavailable(tracking_uri, error) from None


@contextmanager
def store_errors_reported(what: str) -> Iterator[None]:
    """Raise UnavailableError in place of an error of S3: MLflow passes boto's errors on."""
    try:
        import botocore.exceptions as boto
        from boto3.exceptions import Boto3Error
    except ImportError:  # then no artifact is in S3
        yield
        return
    try:
        yield
    except (boto.BotoCoreError, boto.ClientError, Boto3Error) as error:
        raise UnavailableError(f"{what}: the store of its files fails: {one_line(error)}") from None


def says_missing(error: "MlflowException") -> bool:
    """Return whether MLflow's error says that a model, version or alias does not exist."""
    return error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")  # the latter for an alias


def check_server(tracking_uri: str) -> None:
    """Raise UnavailableError unless the tracking or database server answers; MLflow would try for minutes."""
    scheme = tracking_uri.partition(":")[0].partition("+")[0]
    if scheme in ("http", "https"):
        _check_tracking_server(tracking_uri)
    elif scheme in _DATABASE_PORTS:
        _check_database_server(tracking_uri, _DATABASE_PORTS[scheme])


def _check_tracking_server(tracking_uri: str) -> None:
    import http.client  # slow to import, and needed for a server alone
    import ssl
    import urllib.error
    import urllib.request

    address = _without_password(tracking_uri)
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/health", timeout=ANSWER_WITHIN_S):
            pass
    except urllib.error.HTTPError:
        return  # it answers
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(getattr(error, "reason", None), ssl.SSLError):
            return  # MLflow has its own settings for certificates
        raise unavailable(tracking_uri, error) from None


def _check_database_server(tracking_uri: str, usual_port: int) -> None:
    address = urlsplit(tracking_uri)
    try:
        if address.hostname:  # without a host name, the database is reached through a local socket
            socket.create_connection((address.hostname, address.port or usual_port), ANSWER_WITHIN_S).close()
    except (OSError, ValueError) as error:  # a ValueError is a port that is no number
        raise unavailable(tracking_uri, error) from None


def unavailable(tracking_uri: str, error: Exception) -> UnavailableError:
    return UnavailableError(f"MLflow at {_without_password(tracking_uri)} does not answer: {one_line(error)}")


def _without_password(tracking_uri: str) -> str:
    parts = urlsplit(tracking_uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
