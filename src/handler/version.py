"""The version of the relay, repeated here because the functions are packaged without pyproject.toml."""

VERSION = "0.1.0"
USER_AGENT = f"klaviyo-webhook-relay/{VERSION}"
