"""Which relay is meant: the one that ``make local`` runs here, or a deployed stack by name."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

from tools import loopback, paths
from tools.errors import CommandError

from . import samconfig


@dataclass(frozen=True)
class Relay:
    """A running relay: boto3 clients by service, the stack's outputs and parameters by name."""

    client: Callable[[str], Any]
    outputs: dict[str, str]
    parameters: dict[str, str]


@dataclass(frozen=True)
class Deployed(Relay):
    """A deployed stack, and what samconfig.toml has for it."""

    name: str = ""
    saved: samconfig.Saved = field(default_factory=samconfig.Saved)

    def secret(self, output: str) -> dict[str, Any]:
        """Return the document of one of the two secrets; ``CommandError`` if it is not a JSON object."""
        text = self.client("secretsmanager").get_secret_value(SecretId=self.outputs[output])["SecretString"]
        try:
            document = json.loads(text)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise CommandError(f"Secret {self.outputs[output]} is not a JSON object. To start again, set it to {{}}")
        return document

    def write(self, output: str, document: Mapping[str, Any]) -> None:
        """Put ``document`` into one of the two secrets."""
        self.client("secretsmanager").put_secret_value(
            SecretId=self.outputs[output], SecretString=json.dumps(document, ensure_ascii=False)
        )


def clients(name: str, folder: Path = paths.ROOT) -> Callable[[str], Any]:
    """Return a maker of boto3 clients by service, in the region of the stack ``name``.

    The clients have the credentials of the environment.

    The region is the environment's (boto3 itself reads no ``AWS_REGION``), otherwise the one
    that ``sam deploy --guided`` wrote into samconfig.toml in ``folder`` together with the stack's name.
    """
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or samconfig.read(name, folder).region
    session = boto3.session.Session(region_name=region or None)
    if not session.region_name:
        raise CommandError(
            f"No AWS region for stack {name!r}. Set AWS_REGION, or AWS_PROFILE to a profile with a region"
        )
    if session.get_credentials() is None:
        raise CommandError("No AWS credentials. Set AWS_PROFILE, or sign in with `aws configure` or `aws sso login`")

    def client(service: str) -> Any:
        return session.client(service)  # type: ignore[call-overload]  # the services' names are literals in the stubs

    return client


def find(name: str, client: Callable[[str], Any]) -> Deployed:
    """Return the stack ``name``.

    Raises
    ------
    CommandError
        There is none of that name in this account and region, or it is not a relay.
    """
    try:
        (stack,) = client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    except ClientError as error:
        if error.response["Error"].get("Code") == "ValidationError":
            raise CommandError(
                f"No stack {name!r} in this account and region. Check AWS_PROFILE and AWS_REGION"
            ) from None
        raise
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
    if "SourcesSecretName" not in outputs:
        raise CommandError(
            f"Stack {name!r} is not this relay, or its deployment did not finish ({stack['StackStatus']})"
        )
    parameters = {item["ParameterKey"]: item["ParameterValue"] for item in stack.get("Parameters", [])}
    return Deployed(client, outputs, parameters, name, samconfig.read(name))


def argument(parser: argparse.ArgumentParser, *, or_local: bool = False) -> None:
    """Add ``--stack``; with ``or_local`` it may be left out, which means the relay of ``make local``."""
    if or_local:
        parser.add_argument("--stack", default="", help="a deployed stack; the relay of `make local` if not given")
    else:
        parser.add_argument("--stack", required=True, help="the name of the deployed stack")


def deployed(stack: str) -> Deployed:
    """Return the deployed stack of that name, reached with the credentials of the environment; raise as ``find``."""
    if not stack:
        raise CommandError("No stack given. Set STACK=, such as STACK=klaviyo-relay")
    return find(stack, clients(stack))


def local() -> Relay:
    """Return the relay that ``make local`` runs in this folder; ``CommandError`` if there is none."""
    here = loopback.running("STACK=")
    return Relay(lambda service: loopback.client(service, here.aws), here.outputs, here.parameters)


def relay(stack: str) -> Relay:
    """Return the deployed ``stack``, or the local relay if ``stack`` is empty."""
    return deployed(stack) if stack else local()
