"""`run_service` in a process: it drains when it is asked to end, and says what it cannot do."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from pbe.errors import UserError
from pbe.serving.service.server import listener_of
from pbe.serving.service.settings import ServiceSettings
from tests.support.running_service import ALICE, DEADLINE_S, EDITS, SmallEdit, wait_for, write_tokens

PROGRAM = """
import sys
from pathlib import Path
from pbe.serving.service.dispatcher import Dispatcher
from pbe.serving.service.models import Models
from pbe.serving.service.server import run_service
from pbe.serving.service.settings import ServiceSettings

dispatcher = Dispatcher(Models({"tiny": Path(sys.argv[1])}, device="cpu"))
settings = ServiceSettings(port=0, tokens_file=Path(sys.argv[2]), fetch_grace_s=30)
run_service(dispatcher, settings, on_ready=lambda address: print(address, flush=True))
"""


@pytest.fixture
def process(model_folder: Path, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", PROGRAM, str(model_folder), str(write_tokens(tmp_path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        yield started
        started.kill()


def test_sigterm_finishes_what_was_accepted(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    headers = {"authorization": f"Bearer {ALICE}"}
    long = SmallEdit().json(n=2, num_steps=150)
    client = httpx.Client(base_url=address, headers=headers, timeout=DEADLINE_S)
    with client, ThreadPoolExecutor(1) as threads:
        answer = threads.submit(httpx.post, address + EDITS, json=long, headers=headers, timeout=DEADLINE_S)
        job = "/v1/jobs/" + client.post(f"{EDITS}?async", json=long).json()["id"]
        wait_for(lambda: 'pbe_edits_total{status="accepted"} 4.0' in client.get("/metrics").text)
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: client.get("/readyz").status_code == 503)
        assert client.get("/readyz").json()["reason"] == "shutting down"
        refused = client.post(EDITS, json=long)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "10"
        assert len(answer.result().json()["data"]) == 2
        wait_for(lambda: client.get(job).json()["status"] == "done")
        assert len(client.get(f"{job}/result").json()["data"]) == 2
    assert process.wait(DEADLINE_S) == 0


def test_an_address_in_use_is_a_users_error() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"127.0.0.1, port {port}: address already in use"):
            listener_of(ServiceSettings(port=port))
