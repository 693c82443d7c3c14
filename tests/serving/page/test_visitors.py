"""Logins with the service's tokens, and their quotas on the page."""

from pathlib import Path

import pytest

from pbe.errors import UserError
from pbe.serving.page.visitors import Visitors
from pbe.serving.service.tokens import Tokens

ALICE = "alice-has-a-long-token"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"alice:{ALICE} max_jobs=3 requests_per_minute=2\nbob:bob-has-another-token\n")
    return path


def test_name_and_token_belong_together(file: Path) -> None:
    visitors = Visitors(Tokens(file))
    assert visitors.log_in("alice", ALICE)
    assert not visitors.log_in("bob", ALICE)
    assert not visitors.log_in("alice", "another long token")


def test_without_tokens_anybody_may_paint() -> None:
    with Visitors(Tokens(None)).painting(None, 8) as owner:
        assert owner == ""


def test_variants_count_against_the_quotas_until_they_are_painted(file: Path) -> None:
    visitors = Visitors(Tokens(file))
    visitors.log_in("alice", ALICE)
    with visitors.painting("alice", 2) as owner:
        assert owner == "alice"
        with pytest.raises(UserError, match=r"^4 pictures would be queued or painted: .* quota is 3\.$"):
            visitors.painting("alice", 2).__enter__()
    with pytest.raises(UserError, match=r"^2 requests a minute are this token's quota\.$"):
        visitors.painting("alice", 1).__enter__()


def test_a_token_that_is_removed_from_the_file_paints_no_more(file: Path) -> None:
    visitors = Visitors(Tokens(file))
    visitors.log_in("alice", ALICE)
    file.write_text("bob:bob-has-another-token\n")
    with pytest.raises(UserError, match=r"^The token is not valid\.$"):
        visitors.painting("alice", 1).__enter__()


def test_who_has_not_logged_in_paints_nothing(file: Path) -> None:
    with pytest.raises(UserError, match="oken"):
        Visitors(Tokens(file)).painting("alice", 1).__enter__()
