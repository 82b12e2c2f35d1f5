"""Lambda's entry point of ``receive``, built from the environment in the init phase."""

from __future__ import annotations

import os

from .door.function import Receive
from .telemetry import metrics

handler = metrics.log_metrics(Receive.from_environment(os.environ))
