"""The Dockerfile and the compose file, which nothing here can build: linted, parsed, and free of secrets."""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "deploy/compose.yaml"
HADOLINT = Path(sys.executable).with_name("hadolint")


def interpolated(text: str) -> str:
    """Return a compose file with each `${NAME:-default}` replaced by its default, as compose itself does."""
    return re.sub(r"\$\{\w+(?::[-?]([^}]*))?\}", lambda found: (found[1] or "x").replace(" ", "-"), text)


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(interpolated(COMPOSE.read_text()))  # resolves anchors and merge keys
    return loaded


@pytest.mark.skipif(not HADOLINT.exists(), reason="hadolint has no wheel for this platform")
def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    found = subprocess.run([HADOLINT, ROOT / "deploy/Dockerfile"], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


def test_what_the_dockerfile_copies_exists_and_its_context_has_no_outputs() -> None:
    text = (ROOT / "deploy/Dockerfile").read_text()
    assert re.findall(r"^COPY (\S+) \.$", text, re.MULTILINE) == ["constraints.txt", "."]
    ignored = (ROOT / "deploy/Dockerfile.dockerignore").read_text().splitlines()
    assert {".git", ".venv", "models", "reports", "data/*", "deploy/secrets"} <= set(ignored)


def test_the_compose_file_follows_the_compose_specification() -> None:
    services = PyCompose.from_yaml(yaml.safe_dump(compose())).service_names()
    assert set(services) == {"db", "s3", "bucket", "prefect", "mlflow", "ray-head", "ray-node", "worker"}
    broken = compose()
    broken["services"]["db"]["healthchek"] = {}
    with pytest.raises(ValueError, match="healthchek"):
        PyCompose.from_yaml(yaml.safe_dump(broken))


def test_every_service_of_this_project_has_the_secrets_and_volumes_that_it_names() -> None:
    loaded = compose()
    for name, service in loaded["services"].items():
        assert set(service.get("secrets", ())) <= set(loaded["secrets"]), name
        for value in (service.get("environment") or {}).values():
            if str(value).startswith("/run/secrets/"):
                assert value.removeprefix("/run/secrets/") in service["secrets"], name
        for before in service.get("depends_on", ()):
            assert before in loaded["services"], name


def test_secrets_are_written_once_and_readable_by_their_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    command = ["bash", ROOT / "deploy/secrets.sh", folder, "db", "5432"]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    written = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(written) == {*compose()["secrets"], "s3"}
    subprocess.run(command, check=True)
    assert {path.name: path.read_text() for path in folder.iterdir()} == written
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (first.stdout, first.stderr) == ("", "")
    assert len({written[name] for name in ("postgres", "prefect", "mlflow", "s3", "ray")}) == 5
    assert f"db:5432:mlflow:mlflow:{written['mlflow']}" in written["pgpass"]


def test_git_ignores_the_secrets() -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    ignored = subprocess.run(["git", "check-ignore", "-q", "deploy/secrets/aws"], cwd=ROOT, env=environment)
    assert ignored.returncode == 0
