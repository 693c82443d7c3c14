"""Which environment variables importing `flows` sets, and which it does not change."""

import pytest

from flows import environment


def test_telemetry_is_off_and_a_users_choice_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in environment.TELEMETRY_OFF:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    environment.apply()
    assert {name: environment.os.environ[name] for name in environment.TELEMETRY_OFF} == environment.TELEMETRY_OFF
    assert environment.os.environ["OMP_WAIT_POLICY"] == "active"


def test_a_cluster_keeps_its_authentication(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    environment.apply()
    assert "RAY_AUTH_MODE" not in environment.os.environ
    monkeypatch.delenv("RAY_ADDRESS")
    environment.apply()
    assert environment.os.environ["RAY_AUTH_MODE"] == "disabled"
