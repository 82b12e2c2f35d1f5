"""What the comparisons share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber


def refused(call: Callable[..., Any], **asked: Any) -> str:
    """The code of the error with which ``call`` ends."""
    with pytest.raises(ClientError) as error:
        call(**asked)
    return str(error.value.response["Error"]["Code"])


def has_the_shape(answer: dict[str, Any], client: Any, operation: str) -> bool:
    """Whether the service's model has every field of ``answer``, each of that type; what is wrong is raised.

    ``client`` is of boto3; ``operation`` is a name of its call.
    """
    Stubber(client).add_response(operation, answer)
    return True
