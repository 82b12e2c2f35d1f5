"""Operation of a running relay, a deployed one with the credentials of the environment."""
