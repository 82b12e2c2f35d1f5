"""The AWS of one machine: MiniStack on 127.0.0.1, with invented credentials."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path
from typing import IO, Any

from botocore.exceptions import ClientError
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

from handler.events import senders
from tools import paths
from tools.errors import CommandError
from tools.loopback import REGION, client
from tools.template import NoPolicies

ROOT = paths.ROOT
BUCKET = "code"
NO_ONE = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_SESSION_TOKEN": "",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_REGION": REGION,
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
# What MiniStack does not know, besides alarms on a formula (Metrics); everything else of the template is deployed.
UNKNOWN_TYPES = ("AWS::Logs::QueryDefinition", "AWS::Budgets::Budget")
# MiniStack's own event source hands over ten messages at most: local/trigger.py takes its place.
REPLACED_TYPES = ("AWS::Lambda::EventSourceMapping",)
START_SECONDS = 30


def free_port() -> int:
    """Return a port of 127.0.0.1 that no program listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def spawn(command: list[str], log: IO[bytes], **env: str) -> subprocess.Popen[bytes]:
    """Start ``command`` in the project's folder; it ends when this process does, or closes its ``stdin``.

    It has a session of its own. A signal to this process's whole group then leaves the guard running to clear up.
    """
    passed = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return subprocess.Popen(  # noqa: S603 (our own command lines)
        [sys.executable, "-m", "local.process_guard", *command],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**passed, **NO_ONE, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "NO_PROXY": "127.0.0.1", **env},
        start_new_session=True,
    )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End what ``spawn`` started and wait for it."""
    if process.stdin and not process.stdin.closed:
        process.stdin.close()
    process.wait(15)


def wait_for(url: str, process: subprocess.Popen[bytes], what: str) -> None:
    """Return once ``url`` answers; raise ``CommandError`` if ``process`` ends or 30 s pass."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310 (our own address)
                return
        except OSError:
            time.sleep(0.05)
    raise CommandError(f"{what} did not start; its log is in .local/")


class Aws:
    """A running MiniStack; ``client`` gives boto3 clients that can reach nothing else."""

    def __init__(self, log: IO[bytes]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = spawn(
            [sys.executable, "-m", "local.emulator"],
            log,
            GATEWAY_PORT=str(self.port),
            BIND_HOST="127.0.0.1",
            MINISTACK_HOST="127.0.0.1",
            # What it would open or look for besides, on every interface too.
            SFTP_ENABLED="0",
            IOT_MTLS_ENABLED="0",
            DOCKER_HOST="unix:///nonexistent",
            DOCKER_NETWORK="",
        )
        wait_for(f"{self.url}/_ministack/health", self.process, "MiniStack")

    def client(self, service: str, **options: Any) -> Any:
        """Return a boto3 client for this MiniStack."""
        return client(service, self.url, **options)

    def environment(self) -> dict[str, str]:
        """Return the environment that a process needs to speak to this MiniStack and to nothing else."""
        return {**NO_ONE, "AWS_ENDPOINT_URL": self.url}

    def close(self) -> None:
        """Stop MiniStack and all functions that it runs."""
        stop(self.process)


def package(root: Path = ROOT) -> bytes:
    """Return the functions' zip: ``src/handler``. The libraries are the virtual environment's."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        handler = root / "src" / "handler"
        for path in sorted(handler.rglob("*")):
            if path.is_file() and not {"__pycache__", "custom"}.intersection(path.parts[len(handler.parts) :]):
                archive.write(path, path.relative_to(root / "src"))
        for path in sorted(senders.CUSTOM.glob("*.toml")):
            archive.write(path, f"handler/sources/custom/{path.name}")
    return buffer.getvalue()


def translate(template: Path, function_environment: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the template as CloudFormation that MiniStack deploys, and the resources left out of it, by name."""
    os.environ.setdefault("AWS_DEFAULT_REGION", REGION)
    source = yaml_parse(template.read_text("utf-8"))
    source["Globals"]["Function"]["CodeUri"] = {"Bucket": BUCKET, "Key": "code.zip"}
    translated = transform(source, {}, NoPolicies())
    left_out: dict[str, Any] = {}
    for name, resource in list(translated["Resources"].items()):
        kind = resource["Type"]
        if kind in UNKNOWN_TYPES + REPLACED_TYPES or "Metrics" in resource.get("Properties", {}):
            left_out[name] = translated["Resources"].pop(name)
        elif kind == "AWS::Lambda::Function":
            variables = resource["Properties"].setdefault("Environment", {}).setdefault("Variables", {})
            variables.update(function_environment)
        elif kind == "AWS::ApiGatewayV2::Api":
            _add_routes(translated["Resources"], name)
    return translated, left_out


def _add_routes(resources: dict[str, Any], api: str) -> None:
    """Turn each path of an API's OpenAPI ``Body`` into a route, because MiniStack ignores ``Body``."""
    body = resources[api]["Properties"].pop("Body")
    resources[api]["Properties"] = {"Name": api, "ProtocolType": "HTTP"}
    operations = [(path, method, what) for path, methods in body["paths"].items() for method, what in methods.items()]
    for number, (path, method, operation) in enumerate(operations):
        call = operation["x-amazon-apigateway-integration"]
        resources[f"{api}Integration{number}"] = {
            "Type": "AWS::ApiGatewayV2::Integration",
            "Properties": {
                "ApiId": {"Ref": api},
                "IntegrationType": "AWS_PROXY",
                "IntegrationUri": call["uri"],
                "PayloadFormatVersion": call["payloadFormatVersion"],
            },
        }
        resources[f"{api}Route{number}"] = {
            "Type": "AWS::ApiGatewayV2::Route",
            "Properties": {
                "ApiId": {"Ref": api},
                "RouteKey": f"{method.upper()} {path}",
                "Target": {"Fn::Join": ["/", ["integrations", {"Ref": f"{api}Integration{number}"}]]},
            },
        }


def deploy(aws: Aws, name: str, template: Any, parameters: dict[str, str]) -> dict[str, str]:
    """Create the stack and return its outputs.

    Raises
    ------
    CommandError
        A parameter does not fit the template, or a resource could not be made; the text names it and says why.
    """
    cloudformation = aws.client("cloudformation")
    try:
        cloudformation.create_stack(
            StackName=name,
            TemplateBody=json.dumps(template),
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        )
    except ClientError as error:
        if error.response["Error"].get("Code") != "ValidationError":
            raise
        raise CommandError(error.response["Error"]["Message"]) from None
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        stack = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
        if stack["StackStatus"] == "CREATE_COMPLETE":
            return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}
        if "IN_PROGRESS" not in stack["StackStatus"]:
            break
        time.sleep(0.05)
    events = cloudformation.describe_stack_events(StackName=name)["StackEvents"]
    failed = [
        f"{e['LogicalResourceId']}: {e.get('ResourceStatusReason')}" for e in events if "FAILED" in e["ResourceStatus"]
    ]
    raise CommandError("the stack was not created: " + "; ".join(failed))
