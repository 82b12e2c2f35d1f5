"""Lambda in memory: functions, what starts them, and the account's limit.

Facts: Lambda API reference, ListEventSourceMappings, GetFunctionRecursionConfig (``Allow`` or
``Terminate``), GetAccountSettings, Invoke (``FunctionError`` is there only if the function raised).
"""

from __future__ import annotations

import io
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

PREFIX = "arn:aws:lambda:us-east-1:000000000000:function:"
Work = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Function:
    """A function; ``work`` makes the answer of the payload, which it is itself if nothing else is given.

    What ``work`` raises is an error of the function. ``queue`` is the ARN of the queue that its SQS trigger reads,
    empty without one; ``trigger`` is the state of that, ``loops`` the function's RecursiveLoop.
    """

    name: str
    work: Work = bytes
    queue: str = ""
    trigger: str = "Enabled"
    loops: str = "Terminate"


class Functions:
    """The client's calls that the relay's tools make, for ``functions``.

    ``total`` run at a time in this account, ``unreserved`` of them without a reservation.
    """

    def __init__(self, *functions: Function, total: int = 1000, unreserved: int = 1000) -> None:
        self._functions = {function.name: function for function in functions}
        self._limit = {"ConcurrentExecutions": total, "UnreservedConcurrentExecutions": unreserved}

    def list_event_source_mappings(self, *, EventSourceArn: str) -> dict[str, Any]:  # noqa: N803 (boto3's name)
        """Do ListEventSourceMappings, all on one page."""
        mappings = [
            {
                "UUID": str(uuid.uuid5(uuid.NAMESPACE_OID, function.name)),
                "EventSourceArn": function.queue,
                "FunctionArn": PREFIX + function.name,
                "State": function.trigger,
            }
            for function in self._functions.values()
            if function.queue == EventSourceArn
        ]
        return {"EventSourceMappings": mappings}

    def get_function_recursion_config(self, *, FunctionName: str) -> dict[str, Any]:  # noqa: N803
        """Do GetFunctionRecursionConfig; raise ``ClientError`` with ``ResourceNotFoundException`` without it."""
        return {"RecursiveLoop": self._function("GetFunctionRecursionConfig", FunctionName).loops}

    def get_account_settings(self) -> dict[str, Any]:
        """Do GetAccountSettings, as far as functions at a time are concerned."""
        return {"AccountLimit": dict(self._limit)}

    def invoke(self, *, FunctionName: str, Payload: bytes) -> dict[str, Any]:  # noqa: N803
        """Do Invoke and wait for the answer; raise as ``get_function_recursion_config`` does."""
        function = self._function("Invoke", FunctionName)
        try:
            answer, error = function.work(Payload), {}
        except Exception as raised:  # noqa: BLE001 (whatever the function raises)
            answer, error = b'{"errorType": "%s"}' % type(raised).__name__.encode(), {"FunctionError": "Unhandled"}
        return {"StatusCode": 200, "Payload": io.BytesIO(answer)} | error

    def _function(self, operation: str, name: str) -> Function:
        if name not in self._functions:
            raise ClientError({"Error": {"Code": "ResourceNotFoundException"}}, operation)
        return self._functions[name]
