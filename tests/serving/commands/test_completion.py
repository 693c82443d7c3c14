"""`pbe --install-completion`: the script that a shell reads, and what it offers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pbe.serving.commands.main import main

OFFERED = """
source "$1"
shift
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_pbe
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "pbe"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(path.parent))
        assert main(["--install-completion", "--shell=bash", f"--output={path}"]) == 0
    return path


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["pbe", "e"], ["edit", "export", "evaluate"]),
        (["pbe", "edit", "--ma"], ["--mask", "--max-magnification"]),
        (["pbe", "edit", "--precision", "b"], ["bf16"]),
        (["pbe", "batch", "--split", ""], ["train", "validation", "test"]),
        (["pbe", "verdicts", ""], ["pull"]),
    ],
)
def test_bash_completes_commands_flags_and_values(script: Path, words: list[str], offered: list[str]) -> None:
    ended = subprocess.run(["bash", "-c", OFFERED, "bash", script, *words], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == offered


def test_bash_completes_files(script: Path, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()
    command = ["bash", "-c", OFFERED, "bash", script, "pbe", "edit", "--source", "pho"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert ended.stdout.split() == ["photo.jpg"]


@pytest.mark.parametrize(
    ("shell", "file"), [("zsh", ".zsh/completions/_cyclopts_pbe"), ("fish", ".config/fish/completions/pbe.fish")]
)
def test_it_is_installed_for_other_shells(
    shell: str, file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "ZSH", "ZSH_CUSTOM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["--install-completion", f"--shell={shell}"]) == 0
    assert "max-magnification" in (tmp_path / file).read_text()


def test_it_is_installed_for_the_shell_in_use(tmp_path: Path) -> None:
    environment = os.environ | {"HOME": str(tmp_path), "SHELL": "/bin/bash"}
    environment.pop("XDG_DATA_HOME", None)
    command = [sys.executable, "-m", "pbe.serving.commands.main", "--install-completion"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "completion" in (tmp_path / ".bashrc").read_text()
