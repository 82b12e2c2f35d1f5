"""Property tests are the same on every machine, and give slow ones their time."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "relay", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
settings.load_profile("relay")
