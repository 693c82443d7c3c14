"""`pbe app`, which is `pbe serve` with the page, as a process: it listens, answers and ends; mistakes of the flags."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from pbe.serving.commands.main import main
from pbe.serving.commands.service import ServiceFlags
from pbe.serving.editor import MAX_BATCH
from pbe.serving.service.settings import ServiceSettings

TOKEN = "a-token-of-the-tests"


@contextmanager
def running(command: str, *flags: str, folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Yield the address of a command that serves, and its process, which is stopped at the end."""
    argv = [sys.executable, "-m", "pbe.serving.commands.main", command, "--port=0", *flags]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    log = folder / "log"
    with log.open("w") as errors:
        process = subprocess.Popen(argv, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            found = re.match(r"(http://127.0.0.1:\d+)  \(", line)
            assert found, line + log.read_text()
            yield found[1], process
        finally:
            process.kill()
            process.communicate()


def test_app_serves_the_page_and_the_service_and_ends_on_ctrl_c(model_folder: Path, images: Path) -> None:
    tokens = images / "tokens.txt"
    tokens.write_text(f"alice:{TOKEN}\n")
    with running("app", f"--model={model_folder}", f"--token-file={tokens}", folder=images) as (address, process):
        login = httpx.get(address, follow_redirects=True)
        assert login.status_code == 200
        assert "window.gradio_config" in login.text
        files = [
            ("image[]", (images / "s.png").read_bytes()),
            ("image[]", (images / "e.jpg").read_bytes()),
            ("mask", (images / "m.png").read_bytes()),
        ]
        assert httpx.post(f"{address}/v1/images/edits", files=files).status_code == 401
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert [each["id"] for each in httpx.get(f"{address}/v1/models", headers=headers).json()["data"]] == ["pbe"]
        data = {"num_steps": "2"}
        answer = httpx.post(f"{address}/v1/images/edits", files=files, data=data, headers=headers, timeout=60)
        assert answer.status_code == 200, answer.text
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    assert "POST /v1/images/edits" in (images / "log").read_text()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--host=0.0.0.0"], "--host 0.0.0.0: other machines reach this address; give --token-file, or use 127.0.0.1"),
        (["--host=example.org"], "--host example.org: other machines reach this address"),
        (["--port=70000"], "--port 70000: give a number from 0 to 65535"),
        (["--port=x"], "argument --port: invalid int value: 'x'"),
        (["--max-batch=0"], "argument --max-batch: '0' is not a positive whole number"),
        (["--max-wait-ms=nan"], "--max-wait-ms nan: give a number that is not negative"),
        (["--reload-every-s=-1"], "--reload-every-s -1: give a number that is not negative"),
        (["--model=absent"], "--model absent: no such folder"),
        (["--token-file=absent", "--model={model}"], "absent: no such file"),
        (["--device=gpu", "--model={model}"], "--device 'gpu': unknown"),
    ],
)
def test_a_mistake_is_one_line(
    flags: list[str],
    words: str,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ("serve", "app"):
        assert main([command, *(flag.format(model=model_folder) for flag in flags)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert words in error
        assert error.count("\n") == 1


def test_the_flags_default_to_the_settings_of_the_service() -> None:
    flags, settings = ServiceFlags(), ServiceSettings()
    assert (flags.host, flags.port, flags.token_file) == (settings.host, settings.port, settings.tokens_file)
    assert flags.max_batch == MAX_BATCH
