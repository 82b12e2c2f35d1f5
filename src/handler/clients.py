"""AWS clients, from botocore alone: boto3 around it would add a quarter to the cold start (docs/decisions/0022)."""

from __future__ import annotations

from typing import Any

from botocore.config import Config
from botocore.session import get_session

SESSION = get_session()
# A fixed name: botocore would compose one anew for each request, an eighth of a webhook's CPU.
_USER_AGENT = "klaviyo-webhook-relay"


def client(service: str, *, connect: float, read: float, attempts: int) -> Any:
    """A client of ``service``; time-outs in seconds, ``attempts`` counts the first one."""
    config = Config(
        connect_timeout=connect,
        read_timeout=read,
        retries={"total_max_attempts": attempts, "mode": "standard"},
        user_agent=_USER_AGENT,
    )
    return SESSION.create_client(service, config=config)
