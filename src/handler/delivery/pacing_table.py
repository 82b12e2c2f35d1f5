"""The pacing item in DynamoDB; ``pacing`` describes its format."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from copy import copy
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError, ConnectionClosedError

from ..closing import NO_TABLE, Closing
from ..errors import TableUnavailable
from ..pauses import Pauses
from .pacing import Item, Value

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient


class DynamoTable:
    """``Table`` on DynamoDB.

    ``client`` has short time-outs and makes one attempt, since a repeated update moves
    ``next`` twice. Only a connection that turns out to be closed is tried again at
    once. It may have died while Lambda froze the function, and a lost slot costs less
    than deferring events for half a minute.
    """

    def __init__(
        self, client: DynamoDBClient, table: str, account: str, *, clock: Callable[[], float], pauses: Pauses
    ) -> None:
        self._client = client
        self._table = table
        self._key: dict[str, Any] = {"id": {"S": f"{account}/event-bulk-create-jobs"}}
        self._clock = clock
        self._pauses = pauses

    def read(self) -> Item:
        """See ``Table``."""
        try:
            answer = _awake(self._client.get_item, TableName=self._table, Key=self._key, ConsistentRead=True)
        except (ClientError, BotoCoreError) as error:
            raise self._unavailable(error) from error
        return _plain(answer.get("Item", {}))

    def at(self, name: str) -> DynamoTable:
        """See ``Table``."""
        other = copy(self)
        other._key = {"id": {"S": f"{self._key['id']['S']}/{name}"}}
        return other

    def advance(self, *, first: int, last: int, step: int) -> tuple[bool, Item]:
        """See ``Table``."""
        return self._update(
            "SET #next = #next + :step",
            ["#next >= :first", "#next <= :last", "attribute_not_exists(#closed_until)"],
            {},
            {":step": step, ":first": first, ":last": last},
            ["next", "closed_until"],
        )

    def swap(self, expected: Mapping[str, Value], changed: Mapping[str, Value]) -> tuple[bool, Item]:
        """See ``Table``."""
        put = [f"#{_token(name)} = :new_{_token(name)}" for name, value in changed.items() if value is not None]
        drop = [f"#{_token(name)}" for name, value in changed.items() if value is None]
        update = " ".join(word + ", ".join(parts) for word, parts in (("SET ", put), ("REMOVE ", drop)) if parts)
        values = {f":new_{_token(name)}": value for name, value in changed.items() if value is not None}
        return self._update(update, [], expected, values, list(changed))

    def _update(
        self,
        update: str,
        when: list[str],
        expected: Mapping[str, Value],
        values: Mapping[str, int | str],
        names: list[str],
    ) -> tuple[bool, Item]:
        tests = when + [
            f"attribute_not_exists(#{_token(name)})" if value is None else f"#{_token(name)} = :old_{_token(name)}"
            for name, value in expected.items()
        ]
        bound = dict(values) | {f":old_{_token(name)}": value for name, value in expected.items() if value is not None}
        asked: dict[str, Any] = {
            "TableName": self._table,
            "Key": self._key,
            "UpdateExpression": update,
            "ExpressionAttributeNames": {f"#{_token(name)}": name for name in [*names, *expected]},
            "ReturnValues": "ALL_OLD",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if tests:
            asked["ConditionExpression"] = " AND ".join(tests)
        if bound:
            asked["ExpressionAttributeValues"] = {
                name: {"N": str(value)} if isinstance(value, int) else {"S": value} for name, value in bound.items()
            }
        try:
            answer = _awake(self._client.update_item, **asked)
        except self._client.exceptions.ConditionalCheckFailedException as error:
            refused: dict[str, Any] = dict(error.response)
            return False, _plain(refused.get("Item", {}))
        except (ClientError, BotoCoreError) as error:
            raise self._unavailable(error) from error
        return True, _plain(answer.get("Attributes", {}))

    def _unavailable(self, error: Exception) -> TableUnavailable:
        silent = Closing(NO_TABLE, f"the pacing table does not answer ({type(error).__name__})")
        return TableUnavailable(self._clock() + self._pauses.long, silent)


def _token(name: str) -> str:
    """Return a placeholder for an attribute; these have letters, digits and underscores only (DynamoDB guide)."""
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def _awake(call: Callable[..., Any], **asked: Any) -> Any:
    """Return the answer to ``call``; try once more if its kept-open connection was closed meanwhile."""
    try:
        return call(**asked)
    except ConnectionClosedError:
        return call(**asked)


def _plain(item: Mapping[str, Any]) -> Item:
    plain: dict[str, int | str] = {}
    for name, typed in item.items():
        text = str(typed.get("N", typed.get("S", typed)))
        plain[name] = int(text) if "N" in typed and text.lstrip("-").isdigit() else text
    return plain
