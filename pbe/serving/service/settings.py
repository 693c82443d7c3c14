"""What the operator of the service can set, with its limits; `pbe serve` fills it from the command line."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
MIB = 2**20


class ServiceSettings(BaseModel):
    """Address, tokens and limits of the service."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"  # another address than loopback needs `tokens_file`
    port: int = Field(8000, ge=0, le=65535)  # 0 = a free one
    tokens_file: Path | None = None  # see `tokens`
    public_url: str | None = Field(
        None, pattern=r"^https?://[^\s?#]+$"
    )  # before the paths of pictures; default: the request's
    forwarded_allow_ips: tuple[str, ...] = ("127.0.0.1",)  # proxies whose X-Forwarded-* headers are believed

    max_body_bytes: int = Field(64 * MIB, ge=1024)
    max_open_requests: int = Field(128, ge=1)  # edits that are received, queued or painted; more get 429
    max_received_bytes: int = Field(512 * MIB, ge=1024)  # of all bodies that are received or decoded at one time
    max_pixels: int = Field(50_000_000, ge=1, le=100_000_000)  # of one image
    max_images: int = Field(16, ge=2)  # of one request: the source and its exemplars
    max_answer_pixels: int = Field(64_000_000, ge=1)  # of all variants in one answer as Base64
    max_variants: int = Field(10, ge=1)
    max_steps: int = Field(250, ge=1, le=1000)
    max_headers: int = Field(100, ge=10)
    max_header_bytes: int = Field(32 * 1024, ge=1024)  # of the request line and the headers
    max_connections: int = Field(2048, ge=1)

    header_timeout_s: Seconds = 15.0  # to receive the headers, and to discard the rest of a refused body
    body_timeout_s: Seconds = 30.0  # to receive the body, beside a second for each 128 KiB
    send_timeout_s: Seconds = 60.0  # to send the answer, beside a second for each MiB
    edit_timeout_s: Seconds = 600.0  # from acceptance to result
    drain_timeout_s: Seconds = 300.0  # after SIGTERM, for the accepted edits
    fetch_grace_s: float = Field(10.0, ge=0)  # after SIGTERM, for results that nobody has fetched

    url_lifetime_s: Seconds = 3600.0  # of pictures that are answered as a URL, and of the results of jobs
    max_stored_bytes: int = Field(1024 * MIB, ge=1024)  # of each token's pictures on disk; the oldest make room
    max_jobs: int = Field(1000, ge=1)  # that a token's list of jobs holds; the oldest finished ones make room

    @property
    def is_loopback(self) -> bool:
        """Return whether only this machine reaches the service."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @model_validator(mode="after")
    def _check_access(self) -> "ServiceSettings":
        if not self.is_loopback and self.tokens_file is None:
            raise ValueError(f"host {self.host} is reached by other machines: give tokens_file, or use 127.0.0.1")
        return self
