"""The version of the relay; the functions are packaged without pyproject.toml, so it is written here as well."""

VERSION = "0.1.0"
USER_AGENT = f"klaviyo-webhook-relay/{VERSION}"
