"""AWS clients, made by boto3 over a botocore session that searches no folders (docs/decisions/0022)."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.loaders import JSONFileLoader, Loader
from botocore.session import get_session


class _Files(JSONFileLoader):
    """Botocore's data in plain dictionaries, which keep their order and are made in less than half the time."""

    def load_file(self, file_path: str) -> Any:
        """Return the document in ``file_path``, which has no extension; ``None`` if there is no such file."""
        kinds: tuple[tuple[str, Callable[[bytes], bytes]], ...] = ((".json", bytes), (".json.gz", gzip.decompress))
        for extension, unpack in kinds:
            path = Path(file_path + extension)
            if path.is_file():
                return json.loads(unpack(path.read_bytes()))
        return None


class _Loader(Loader):
    """A loader that knows this relay's services; botocore's own searches the folders of all 400 twice per start."""

    def list_available_services(self, type_name: str) -> list[str]:  # noqa: ARG002 (botocore asks for each kind of file)
        """Return what ``load_service_model`` may load, for every kind of file."""
        return ["dynamodb", "secretsmanager", "sqs"]


# A fixed name: botocore would compose one for each request, which is an eighth of a webhook's CPU.
_USER_AGENT = "klaviyo-webhook-relay"
LOADER = _Loader(file_loader=_Files())
_CORE = get_session()
_CORE.user_agent_name = _USER_AGENT  # boto3 adds botocore's version to the clients of a session that has no name
_CORE.register_component("data_loader", LOADER)
SESSION: Any = boto3.Session(botocore_session=_CORE)  # its stubs want each service as a literal


def client(service: str, *, connect: float, read: float, attempts: int) -> Any:
    """Return a client of ``service``; time-outs in seconds, ``attempts`` counts the first one."""
    config = Config(
        connect_timeout=connect,
        read_timeout=read,
        retries={"total_max_attempts": attempts, "mode": "standard"},
        user_agent=_USER_AGENT,
    )
    return SESSION.client(service, config=config)
