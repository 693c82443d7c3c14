"""MLflow's server on 127.0.0.1 for the project's registry: `python -m flows.mlflow_server` is `make mlflow`.

A port that another program listens on, such as the server of another clone, is refused before anything starts.
"""

import argparse
import os
import sys

from pbe import layout
from pbe.errors import UserError, one_line
from pbe.runtime.ports import LOOPBACK, require_free_port

SETTINGS = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # jobs: 13 processes
USER_ERROR_CODE = 2


def main(arguments: list[str] | None = None) -> int:
    """Check the port, and become MLflow's server."""
    parser = argparse.ArgumentParser(prog="python -m flows.mlflow_server", description=main.__doc__)
    parser.add_argument("--port", type=int, default=5000, help="of 127.0.0.1 (default: %(default)s)")
    port = parser.parse_args(arguments).port
    try:
        require_free_port(port, "--port")
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return USER_ERROR_CODE
    store = ["--backend-store-uri", f"sqlite:///{layout.MLFLOW_DATABASE}"]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        *store,
        "--host",
        LOOPBACK,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    sys.stdout.flush()
    os.execve(sys.executable, command, {**os.environ, **SETTINGS})


if __name__ == "__main__":
    sys.exit(main())
