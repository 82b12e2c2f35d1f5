"""``sim.functions`` compared with boto3's client on MiniStack.

Known differences: MiniStack calls every error of a function ``Runtime.HandlerError``, where the Python runtime gives
the exception's name, and describes it in more fields. Its account has a limit of its own.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import pytest

from sim.functions import Function, Functions
from tests.conformance.support import has_the_shape, refused

pytestmark = pytest.mark.xdist_group("conformance")
Client = Callable[[str], Any]
CODE = "def handler(event, _):\n    return {'got': event['number']}\n"


def work(payload: bytes) -> bytes:
    """The same as ``CODE``."""
    return json.dumps({"got": json.loads(payload)["number"]}).encode()


@pytest.fixture(scope="module")
def code() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("code.py", CODE)
    return packed.getvalue()


@pytest.fixture
def queue(ministack: Client, name: str) -> str:
    """A queue's ARN."""
    client = ministack("sqs")
    url = client.create_queue(QueueName=name)["QueueUrl"]
    return str(client.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"])


@pytest.fixture
def sides(ministack: Client, name: str, code: bytes, queue: str) -> list[Any]:
    """Both have the function ``name``, whose trigger reads ``queue`` and is disabled, and may loop."""
    real = ministack("lambda")
    real.create_function(
        FunctionName=name,
        Runtime="python3.13",
        Handler="code.handler",
        Role="arn:aws:iam::000000000000:role/none",
        Code={"ZipFile": code},
    )
    real.create_event_source_mapping(EventSourceArn=queue, FunctionName=name, Enabled=False)
    return [Functions(Function(name, work, queue, "Disabled")), real]


def test_a_queue_has_the_triggers_that_read_it(sides: list[Any], queue: str) -> None:
    fields = ("EventSourceArn", "FunctionArn", "State")
    answers = []
    for side in sides:
        mappings = side.list_event_source_mappings(EventSourceArn=queue)["EventSourceMappings"]
        assert all(mapping["UUID"] for mapping in mappings)
        answers.append([{field: mapping[field] for field in fields} for mapping in mappings])
        assert side.list_event_source_mappings(EventSourceArn=f"{queue}-none")["EventSourceMappings"] == []
    assert answers[0] == answers[1]
    assert len(answers[0]) == 1


def test_a_new_function_may_not_loop(sides: list[Any], name: str) -> None:
    settings = [side.get_function_recursion_config(FunctionName=name)["RecursiveLoop"] for side in sides]
    assert settings == ["Terminate"] * 2


def test_a_function_loops_as_it_is_set(sides: list[Any], name: str) -> None:
    real = sides[1]
    real.put_function_recursion_config(FunctionName=name, RecursiveLoop="Allow")
    for side in (Functions(Function(name, loops="Allow")), real):
        assert side.get_function_recursion_config(FunctionName=name)["RecursiveLoop"] == "Allow"


def test_an_account_has_a_limit_and_what_is_left_of_it(ministack: Client) -> None:
    real = ministack("lambda").get_account_settings()["AccountLimit"]
    alike = Functions(total=real["ConcurrentExecutions"], unreserved=real["UnreservedConcurrentExecutions"])
    assert alike.get_account_settings()["AccountLimit"].items() <= real.items()


def test_an_invocation_has_the_functions_answer(sides: list[Any], name: str) -> None:
    for side in sides:
        answer = side.invoke(FunctionName=name, Payload=b'{"number": 7}')
        assert answer["StatusCode"] == 200
        assert "FunctionError" not in answer
        assert json.loads(answer["Payload"].read()) == {"got": 7}


def test_an_invocation_says_that_the_function_raised(sides: list[Any], name: str) -> None:
    fields = []
    for side in sides:
        answer = side.invoke(FunctionName=name, Payload=b"{}")
        assert (answer["StatusCode"], answer["FunctionError"]) == (200, "Unhandled")
        fields.append(json.loads(answer["Payload"].read()).keys())
    assert fields[0] <= fields[1]


def test_answers_have_the_shape_of_the_model(sides: list[Any], name: str, queue: str) -> None:
    simulated, real = sides
    assert has_the_shape(simulated.list_event_source_mappings(EventSourceArn=queue), real, "list_event_source_mappings")
    assert has_the_shape(simulated.invoke(FunctionName=name, Payload=b"{}"), real, "invoke")


def test_a_missing_function_is_the_same_error(sides: list[Any]) -> None:
    for side in sides:
        assert refused(side.get_function_recursion_config, FunctionName="missing") == "ResourceNotFoundException"
        assert refused(side.invoke, FunctionName="missing", Payload=b"{}") == "ResourceNotFoundException"
