"""The clients of AWS, as a request of theirs shows them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import botocore
import pytest
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.loaders import JSONFileLoader

from handler import aws
from sim import environment

SECRET = {"SecretString": "{}"}


class _Raw(io.BytesIO):
    def stream(self, **_: object) -> list[bytes]:
        return [self.read()]


def test_aws_is_asked_under_a_fixed_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in environment.PLATFORM.items():
        monkeypatch.setenv(variable, value)
    sent: list[Any] = []

    def answer(request: AWSRequest, **_: Any) -> AWSResponse:
        sent.append(request)
        return AWSResponse(str(request.url), 200, HTTPHeaders(), _Raw(json.dumps(SECRET).encode()))

    client = aws.client("secretsmanager", connect=1, read=1, attempts=1)
    client.meta.events.register("before-send", answer)
    assert client.get_secret_value(SecretId="sources")["SecretString"] == "{}"
    (name,) = (request.headers["User-Agent"].decode() for request in sent)
    # Powertools adds a part of its own to the sessions that begin after it was imported.
    assert name.split(" PT/")[0] == "klaviyo-webhook-relay"


@pytest.mark.parametrize("name", ["endpoints", "dynamodb/2012-08-10/service-2", "sqs/2012-11-05/none"])
def test_botocores_data_is_read_as_botocore_reads_it(name: str) -> None:
    path = str(Path(botocore.__file__).parent / "data" / name)
    ours, theirs = aws.LOADER.file_loader.load_file(path), JSONFileLoader().load_file(path)
    assert ours == theirs
    assert list(ours or ()) == list(theirs or ())
