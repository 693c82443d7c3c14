"""One `dvc repro` has one Prefect server: its first stage starts it, and it ends with DVC."""

import os
import signal

import pytest

from flows import shared_server
from tests.flows.test_interruption import holds_lock, marked, start_group
from tests.support.toy_project import TOY, Project, wait_for

NOTED = "open('urls.txt', 'a').write(__import__('os').environ['PREFECT_API_URL'] + '\\n'); num_naps = int("


@pytest.mark.slow
@pytest.mark.long
def test_the_stages_of_a_repro_use_one_server_that_ends_with_it(lone_project: Project) -> None:
    (lone_project.folder / "toy.py").write_text(TOY.replace("num_naps = int(", NOTED, 1))
    process = start_group(lone_project, "dvc", "repro")
    assert process.wait(300) == 0, process.communicate()
    first, second = (lone_project.folder / "urls.txt").read_text().split()
    assert first == second
    assert wait_for(lambda: not marked(lone_project), within_s=10)
    process.communicate()

    lone_project.naps(600)  # Ctrl-C in the next repro ends its server, too
    process = start_group(lone_project, "dvc", "repro")
    assert wait_for(lambda: holds_lock(lone_project), within_s=120)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 255
    assert wait_for(lambda: not marked(lone_project), within_s=10)
    process.communicate()


def test_a_stage_that_no_dvc_command_runs_shares_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(pid: int) -> str:
        raise AssertionError

    monkeypatch.delenv("DVC_STAGE", raising=False)
    assert shared_server.shared_server(start) is None
    monkeypatch.setenv("DVC_STAGE", "train")  # in the process of flows.pipeline, or of these tests
    assert shared_server.shared_server(start) is None
