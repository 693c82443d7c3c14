"""Files of tokens, and quotas."""

import hashlib
import re
from pathlib import Path

import pytest

from pbe.errors import UserError
from pbe.serving.service.openai_errors import ServiceError
from pbe.serving.service.tokens import ANONYMOUS, Tokens, read_tokens

LONG = "a-token-of-some-length"
DIGEST = hashlib.sha256(LONG.encode()).hexdigest()


def write(folder: Path, text: str) -> Path:
    path = folder / "tokens"
    path.write_text(text)
    return path


def test_a_token_is_plain_or_a_digest(tmp_path: Path) -> None:
    plain = read_tokens(write(tmp_path, f"# users\n\nalice:{LONG} max_jobs=2\n"))
    hashed = read_tokens(write(tmp_path, f"alice:sha256:{DIGEST} max_jobs=2\n"))
    assert plain == hashed
    assert (plain[0].name, plain[0].max_jobs, plain[0].requests_per_minute) == ("alice", 2, 60)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no token"),
        ("alice", "line 1: write NAME:TOKEN"),
        ("al ice:x", "line 1: write NAME:TOKEN"),
        ("alice:short", "fewer than 16 characters"),
        ("alice:sha256:12", "64 hexadecimal digits"),
        (f"alice:{LONG} max_jobs=0", "max_jobs=0: write"),
        (f"alice:{LONG} speed=9", "speed=9: write"),
        (f"alice:{LONG}\nalice:{LONG}2", "same name on two lines"),
        (f"alice:{LONG}\nbob:sha256:{DIGEST}", "same token on two lines"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        read_tokens(write(tmp_path, text))


def test_only_a_valid_token_is_somebody(tmp_path: Path) -> None:
    tokens = Tokens(write(tmp_path, f"alice:{LONG}\n"))
    assert tokens.authenticate(f"Bearer {LONG}").name == "alice"
    assert tokens.authenticate(f"bearer  {LONG} ").name == "alice"
    for header in (None, "", "Bearer", f"Basic {LONG}", f"Bearer {LONG}x", f"Bearer {DIGEST}", "Bearer \udcff"):
        with pytest.raises(ServiceError) as refused:
            tokens.authenticate(header)
        assert refused.value.status_code == 401
    assert Tokens(None).authenticate(None).name == ANONYMOUS


def test_a_changed_file_is_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, f"alice:{LONG}\n")
    tokens = Tokens(path)
    write(tmp_path, "bob:another-token-of-bob\n")
    with pytest.raises(ServiceError):
        tokens.authenticate(f"Bearer {LONG}")
    write(tmp_path, "bob:\n")
    assert tokens.authenticate("Bearer another-token-of-bob").name == "bob"
    assert "the tokens are unchanged" in caplog.text


def test_requests_a_minute(tmp_path: Path) -> None:
    now = [0.0]
    tokens = Tokens(write(tmp_path, f"alice:{LONG} requests_per_minute=2\n"), lambda: now[0])
    alice = tokens.authenticate(f"Bearer {LONG}")
    assert tokens.count_request(alice)["x-ratelimit-remaining-requests"] == "1"
    now[0] = 20
    tokens.count_request(alice)
    now[0] = 50
    with pytest.raises(ServiceError) as refused:
        tokens.count_request(alice)
    assert (refused.value.status_code, (refused.value.headers or {})["retry-after"]) == (429, "10")
    now[0] = 61
    tokens.count_request(alice)


def test_jobs_at_one_time(tmp_path: Path) -> None:
    tokens = Tokens(write(tmp_path, f"alice:{LONG} max_jobs=2\n"))
    alice = tokens.authenticate(f"Bearer {LONG}")
    tokens.begin_jobs(alice, 2)
    with pytest.raises(ServiceError, match="this token's quota is 2"):
        tokens.begin_jobs(alice, 1)
    tokens.end_jobs(alice, 1)
    tokens.begin_jobs(alice, 1)
    with pytest.raises(ServiceError, match="this token may have 2 at one time"):
        tokens.begin_jobs(alice, 3)
