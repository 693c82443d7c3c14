"""Who uses the page: anybody on this machine, or those who log in with a token of the service, within its quotas."""

from collections.abc import Iterator
from contextlib import contextmanager

from pbe.errors import UserError
from pbe.serving.service.openai_errors import ServiceError
from pbe.serving.service.tokens import ANONYMOUS, Token, Tokens


class Visitors:
    """The users of the page. The name of a login is the token's name, and its password the token."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._secrets: dict[str, str] = {}  # by name, of those who have logged in

    def log_in(self, name: str, secret: str) -> bool:
        """Return whether a name and a token belong together, and remember them."""
        try:
            token = self._tokens.authenticate(f"Bearer {secret}")
        except ServiceError:
            return False
        if token.name != name:
            return False
        self._secrets[name] = secret
        return True

    @contextmanager
    def painting(self, name: str | None, num_variants: int) -> Iterator[str]:
        """Count a request and its variants against the quotas of a user, and give the owner of the jobs.

        Raises UserError when a quota is used up, or the token is not valid any more.
        """
        try:
            token = self._token(name)
            self._tokens.count_request(token)
            self._tokens.begin_jobs(token, num_variants)
        except ServiceError as error:
            raise UserError(f"{error.detail[:1].upper()}{error.detail[1:]}.") from None
        try:
            yield token.name
        finally:
            self._tokens.end_jobs(token, num_variants)

    def _token(self, name: str | None) -> Token:
        """Return the user's token, checked again, since the file of tokens may have changed."""
        if not self._tokens.required:
            return self._tokens.authenticate(None)
        secret = self._secrets.get(name or ANONYMOUS, "")
        return self._tokens.authenticate(f"Bearer {secret}")
