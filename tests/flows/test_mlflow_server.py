"""MLflow's server of a project: whose port it takes."""

import os
import subprocess
import sys
from pathlib import Path

from pbe.runtime.ports import LOOPBACK, listen
from tests.support.toy_project import ROOT


def test_a_port_of_another_program_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """MLflow's server of another clone is such a program: two projects would share one registry."""
    with listen(0, "--port") as taken:
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "flows.mlflow_server", "--port", port]
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"error: port {port} of {LOOPBACK} is in use by process {os.getpid()} (")
    assert ended.stderr.endswith("choose another one with --port\n")
    assert list(tmp_path.iterdir()) == []
