"""The real template and the real handlers on one machine.

MiniStack speaks for AWS, ``trigger`` for the event source, ``standin`` for
Klaviyo, and a front door forwards ``/webhooks/{source}`` and nothing else.
Everything listens on 127.0.0.1 and ends with this process.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

import urllib3

from handler.events import senders
from tools import paths
from tools.errors import CommandError
from tools.senders import sign
from tools.senders.payload import Payload

from . import aws, front, trigger

NAME = "relay"
SECRETS_FILE = paths.LOCAL / "secrets.json"


class Stack:
    """A running relay; a context manager that ends all of it.

    Parameters
    ----------
    klaviyo_url : str, optional
        Where jobs go; a stand-in of its own if not given.
    parameters : mapping
        Template parameters, by name.
    secrets : mapping, optional
        A document as in ``SECRETS_FILE``; development secrets if not given.
    limits : mapping
        Fields of ``standin.Limits``, the windows that the stand-in enforces.
    properties : mapping
        Overrides of the event source's properties (batch size, window, ...).
    environment : mapping
        More variables for the functions.
    change : callable, optional
        Alters the translated template before it is deployed.
    trigger_endpoint : str
        Where the trigger reaches AWS, if not at MiniStack itself.
    deliver : bool
        Whether the trigger runs from the start.
    exchanges : front.Keeper, optional
        Where the front door writes down what came in, for the console.
    made_up : bool
        Whether sources that appear later get a development secret, too.
    """

    def __init__(
        self,
        *,
        klaviyo_url: str = "",
        parameters: Mapping[str, str] | None = None,
        secrets: Mapping[str, Any] | None = None,
        limits: Mapping[str, float] | None = None,
        properties: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        change: Callable[[dict[str, Any]], None] | None = None,
        trigger_endpoint: str = "",
        port: int = 0,
        deliver: bool = True,
        exchanges: front.Keeper | None = None,
        made_up: bool = True,
    ) -> None:
        self.parameters = dict(parameters or {})
        self._limits = dict(limits or {})
        self._properties = dict(properties or {})
        self._environment = dict(environment or {})
        self._change = change
        self._trigger_endpoint = trigger_endpoint
        self._port = port
        self._deliver = deliver
        self._exchanges = exchanges
        self._made_up = made_up
        self._processes: list[Any] = []
        self.klaviyo_url = klaviyo_url
        self.has_standin = not klaviyo_url
        self.secrets = dict(secrets or sign.development_secrets(senders.names()))
        self.left_out: Counter[str] = Counter()

    def __enter__(self) -> Stack:
        with contextlib.ExitStack() as opening:  # what was started ends with what could not be
            opening.callback(self.close)
            self._start()
            opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        paths.LOCAL.mkdir(exist_ok=True)
        self._log = (paths.LOCAL / f"stack-{os.getpid()}.log").open("wb")
        if not self.klaviyo_url:
            self.klaviyo_url = self._start_standin()
        self.aws = aws.Aws(self._log)
        self._processes.append(self.aws.process)
        parameters = {"KlaviyoUrl": self.klaviyo_url, **self.parameters}
        storage = self.aws.client("s3")
        storage.create_bucket(Bucket=aws.BUCKET)
        storage.put_object(Bucket=aws.BUCKET, Key="code.zip", Body=aws.package())
        functions = {**self.aws.environment(), **self._environment}
        template, removed = aws.translate(aws.ROOT / "template.yaml", functions)
        if self._change:
            self._change(template)
        self.left_out = Counter(str(resource["Type"]) for resource in removed.values())
        self.outputs = aws.deploy(self.aws, NAME, template, parameters)
        self._write_secrets()
        self._source = self._event_source(template, removed, parameters)
        if self._deliver:
            self.start_trigger()
        self._open_door()

    def _start_standin(self) -> str:
        port = aws.free_port()
        command = [sys.executable, "-m", "local.standin", "--port", str(port)]
        command += ["--key", self.secrets["klaviyo"]["api_key"], "--limits", json.dumps(self._limits)]
        process = aws.spawn(command, self._log)
        self._processes.append(process)
        url = f"http://127.0.0.1:{port}"
        aws.wait_for(f"{url}/_standin/stats", process, "the Klaviyo stand-in")
        return url

    def _write_secrets(self) -> None:
        manager = self.aws.client("secretsmanager")
        for part, output in (("sources", "SourcesSecretName"), ("klaviyo", "KlaviyoSecretName")):
            manager.put_secret_value(SecretId=self.outputs[output], SecretString=json.dumps(self.secrets[part]))

    def _event_source(
        self, template: Mapping[str, Any], removed: Mapping[str, Any], parameters: Mapping[str, str]
    ) -> trigger.EventSource:
        (mapping,) = (
            resource for resource in removed.values() if resource["Type"] == "AWS::Lambda::EventSourceMapping"
        )
        names = template["Parameters"]
        if unknown := sorted(set(self._properties) - {*mapping["Properties"], trigger.LONG_POLL}):
            raise ValueError(f"the event source has no property {', '.join(unknown)}")
        properties = {**_resolved(mapping["Properties"], names, parameters), **self._properties}
        queue = self.outputs["EventsQueueUrl"]
        attributes = self.aws.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
        functions = self.aws.client("lambda").list_functions()["Functions"]
        (self.deliver,) = (
            resource["FunctionName"] for resource in functions if "DeliverFunction" in resource["FunctionName"]
        )
        function = template["Resources"]["DeliverFunction"]["Properties"]
        return trigger.from_template(properties, function, queue, attributes["Attributes"]["QueueArn"], self.deliver)

    def start_trigger(self) -> None:
        """Let events flow from the queue to ``deliver``."""
        command = [sys.executable, "-m", "local.trigger", trigger.settings_of(self._source)]
        self._trigger = aws.spawn(command, self._log, AWS_ENDPOINT_URL=self._trigger_endpoint or self.aws.url)
        self._processes.append(self._trigger)

    def stop_trigger(self) -> None:
        """Let events wait in the queue."""
        aws.stop(self._trigger)

    def _open_door(self) -> None:
        (api,) = self.aws.client("apigatewayv2").get_apis()["Items"]
        # Some senders sign the URL: the relay knows itself by the name that the platform gives its API.
        self.known_as = f"https://{api['ApiId']}.execute-api.127.0.0.1"
        target = f"{self.aws.url}/_aws/execute-api/{api['ApiId']}/$default"
        try:
            self.door = front.door(self._port, target, self._exchanges)
        except OSError:
            raise CommandError(f"Port {self._port} cannot be opened. Choose a free one with PORT=") from None
        threading.Thread(target=self.door.serve_forever, daemon=True).start()

    def redeploy(self) -> None:
        """Hand the functions the code and the sources' files as they are now, and secrets for new sources."""
        senders.load.cache_clear()
        missing = [name for name in senders.names() if name not in self.secrets["sources"]]
        if missing and self._made_up:
            self.secrets["sources"] |= sign.development_secrets(missing)["sources"]
            self._write_secrets()
        code, functions = aws.package(), self.aws.client("lambda")
        for function in functions.list_functions()["Functions"]:
            functions.update_function_code(FunctionName=function["FunctionName"], ZipFile=code)

    def close(self) -> None:
        """End the front door and every process, the last one started first."""
        if hasattr(self, "door"):
            self.door.shutdown()
            self.door.server_close()
        for process in reversed(self._processes):
            aws.stop(process)
        self._processes.clear()
        if hasattr(self, "_log"):
            self._log.close()

    def url(self, source: str) -> str:
        """Return the address of ``source``'s webhooks."""
        return f"http://127.0.0.1:{self.door.server_address[1]}/webhooks/{source}"

    def send(self, source: str, body: bytes, headers: Mapping[str, str] | None = None) -> tuple[int, dict[str, Any]]:
        """Post ``body`` signed as ``source`` would; return status and document of the answer."""
        return self.send_payload(source, Payload("POST", {}, dict(headers or {}), body))

    def send_payload(self, source: str, sent: Payload) -> tuple[int, dict[str, Any]]:
        """Send a request signed as ``source`` would; return status and document of the answer."""
        now = time.time()
        body = sign.fresh(source, sent.body, now)
        url, signed = sign.sign(
            source,
            self.secrets["sources"][source][0],
            body=body,
            headers=sent.headers,
            url=sent.at(f"{self.known_as}/webhooks/{source}"),
            now=now,
            method=sent.method,
        )
        target = url.replace(self.known_as, f"http://127.0.0.1:{self.door.server_address[1]}")
        return self.post(target, body, signed, method=sent.method)

    def post(
        self, url: str, body: bytes, headers: Mapping[str, str], *, method: str = "POST"
    ) -> tuple[int, dict[str, Any]]:
        """Post as it stands; return status and document of the answer."""
        answer = urllib3.request(method, url, body=body, headers=dict(headers), retries=False, timeout=30)
        kind = answer.headers.get("content-type", "")
        if not answer.data:
            return answer.status, {}
        return answer.status, answer.json() if kind.startswith("application/json") else {"text": answer.data.decode()}

    def standin(self, view: str, order: Any = None) -> Any:
        """Return a view of the stand-in (``stats``, ``events``, ...), or with ``order`` change it."""
        url = f"{self.klaviyo_url}/_standin/{view}"
        if order is None:
            return urllib3.request("GET", url, retries=False, timeout=30).json()
        return urllib3.request("POST", url, json=order, retries=False, timeout=30).json()

    def stored(self, unique_id: str) -> list[dict[str, Any]]:
        """Return what the stand-in stored under that ``unique_id``, the latest first."""
        events: list[dict[str, Any]] = self.standin(f"found?{urlencode({'unique_id': unique_id})}")["events"]
        return events

    def arrived(self) -> list[dict[str, Any]]:
        """Return what the stand-in stored, in order: ``unique_id``, ``metric``, ``entry``, ..."""
        return self._all("events")

    def requests(self) -> list[dict[str, Any]]:
        """Return every request that the stand-in got, in order: ``at``, ``status``, ``seconds``, ..."""
        return self._all("requests")

    def _all(self, view: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = []
        offset: int | None = 0
        while offset is not None:
            page = self.standin(f"{view}?offset={offset}")
            items += page[view]
            offset = page["next"]
        return items

    def waiting(self) -> int:
        """Return how many messages are in the events queue: ready, delayed and in flight."""
        return self._count(self.outputs["EventsQueueUrl"])

    def parked(self) -> list[dict[str, Any]]:
        """Return bodies and attributes of what is in the dead-letter queue; they stay there."""
        sqs = self.aws.client("sqs")
        messages: dict[str, dict[str, Any]] = {}
        queue = self.outputs["DeadLetterQueueUrl"]
        while len(messages) < self._count(queue):
            for message in sqs.receive_message(
                QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=5, MessageAttributeNames=["All"]
            ).get("Messages", []):
                attributes = message.get("MessageAttributes", {})
                messages[message["MessageId"]] = {
                    "body": message["Body"],
                    **{name: value["StringValue"] for name, value in attributes.items()},
                }
        return list(messages.values())

    def _count(self, queue: str) -> int:
        names = ["", "NotVisible", "Delayed"]
        attributes = [f"ApproximateNumberOfMessages{name}" for name in names]
        answer = self.aws.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=attributes)
        return sum(int(answer["Attributes"][name]) for name in attributes)

    def logs(self) -> list[dict[str, Any]]:
        """Return every JSON line that the functions logged, in order of time."""
        client = self.aws.client("logs")
        lines: list[dict[str, Any]] = []
        for group in client.describe_log_groups()["logGroups"]:
            for page in client.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"]):
                lines += [json.loads(event["message"]) for event in page["events"] if event["message"].startswith("{")]
        return sorted(lines, key=lambda line: str(line.get("timestamp", "")))


def _resolved(properties: Mapping[str, Any], names: Mapping[str, Any], parameters: Mapping[str, str]) -> dict[str, Any]:
    """Return properties with their references to template parameters replaced by values."""

    def value(written: Any) -> Any:
        if isinstance(written, dict):
            name = str(written.get("Ref"))
            if name in names:
                return parameters.get(name, names[name]["Default"])
            return {key: value(inner) for key, inner in written.items()}
        return written

    return {name: value(written) for name, written in properties.items()}


def read_secrets(path: Path) -> dict[str, Any]:
    """Return the secrets document; one with development secrets is written if there is none.

    Sources that the file does not name get a development secret only in a file
    that this made.

    Raises
    ------
    CommandError
        The file is not in the shape of the README's example; it is named, its content is not.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(sign.development_secrets(senders.names()), indent=2) + "\n")
        path.chmod(0o600)
    try:
        document = json.loads(path.read_text())
        if not isinstance(document["sources"], dict) or not isinstance(document["klaviyo"]["api_key"], str):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise CommandError(f'{path} is not {{"klaviyo": {{"api_key": …}}, "sources": {{name: [secret, …]}}}}') from None
    if path == SECRETS_FILE:
        document["sources"] = sign.development_secrets(senders.names())["sources"] | document["sources"]
    return dict(document)


def secrets_path() -> Path:
    """Return ``SECRETS_FILE`` of the environment, otherwise the development one."""
    return Path(os.environ.get("SECRETS_FILE") or SECRETS_FILE)
