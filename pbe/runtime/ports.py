"""Ports on loopback: free ones, and who listens on one that is not."""

import socket

import psutil

from pbe.errors import UserError

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """Return a port of 127.0.0.1 that no process listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def require_free_port(port: int, option: str) -> None:
    """Raise UserError with the command line's `option` when a process listens on the port of 127.0.0.1."""
    listen(port, option).close()


def listen(port: int, option: str) -> socket.socket:
    """Return a socket bound to the port of 127.0.0.1; 0 means any free one. A child process can inherit it and listen.

    Raises UserError with the command line's `option` when another process listens on the port, and names that process.
    """
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((LOOPBACK, port))
    except OSError:
        bound.close()
        raise UserError(
            f"port {port} of {LOOPBACK} is in use{_holder(port)}; choose another one with {option}"
        ) from None
    return bound


def _holder(port: int) -> str:
    """Return the process that listens on a port as ` by process N (command, in folder)`; empty when it is hidden."""
    try:
        connections = psutil.net_connections(kind="tcp")
        pid = next(c.pid for c in connections if c.status == "LISTEN" and c.laddr and c.laddr.port == port and c.pid)
        process = psutil.Process(pid)
        return f" by process {pid} ({process.name()}, in {process.cwd()})"
    except (psutil.Error, OSError, StopIteration):  # another user's
        return ""
