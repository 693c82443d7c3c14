"""An S3-compatible endpoint on loopback that serves a folder: the demo world's replacement of the public buckets.

Each folder in the served folder is a public bucket, as OpenImages' are. The server is moto's. It runs in a child
process, so that it uses another core than the download and ends with its parent.
"""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pbe.errors import UserError
from pbe.runtime.child_processes import exit_with_parent, kill_child, start_child

_REGION = "us-east-1"


@contextmanager
def serve_bucket(folder: Path) -> Iterator[str]:
    """Serve every folder in `folder` as a bucket on a free port of 127.0.0.1; yield the endpoint's URL.

    Objects are read into memory at the start. Clients get them unsigned over S3 (path style), or over plain HTTP as
    `{url}/{bucket}/{key}`. Raises UserError when the folder does not exist, RuntimeError when the server does not
    start.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder to serve as buckets")
    child = start_child("pbe.demo.endpoint", [str(folder.resolve())])
    try:
        assert child.stdout is not None
        port = child.stdout.readline().strip()
        if not port:
            raise RuntimeError(f"{folder}: the S3 endpoint did not start (exit code {child.wait()})")
        yield f"http://127.0.0.1:{port}"
    finally:
        kill_child(child)


def _serve(folder: Path) -> None:
    # moto takes over a second to import, and only this process needs it.
    from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    class KeepAlive(MotoRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, type: str, message: str, *args: object) -> None:
            pass

    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        _load(folder)
        # Only the S3 backend: moto's dispatcher, which guesses the service of each request, doubles its cost.
        app = create_backend_app("s3")
        host, port = listener.getsockname()
        server = make_server(host, port, app, threaded=True, request_handler=KeepAlive, fd=listener.fileno())
        print(port, flush=True)
        server.serve_forever()


def _load(folder: Path) -> None:
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.s3.models import get_canned_acl, s3_backends

    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    public = get_canned_acl("public-read")
    for bucket in sorted(path for path in folder.iterdir() if path.is_dir()):
        backend.create_bucket(bucket.name, _REGION)
        for path in sorted(path for path in bucket.rglob("*") if path.is_file() and not path.name.startswith(".")):
            key = path.relative_to(bucket).as_posix()
            stored = backend.put_object(bucket.name, key, path.read_bytes(), disable_notification=True)
            stored.set_acl(public)


if __name__ == "__main__":
    exit_with_parent()
    _serve(Path(sys.argv[1]))
