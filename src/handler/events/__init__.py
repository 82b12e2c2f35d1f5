"""Modules that turn a payload into events: for ``receive``, and for ``deliver`` after a redrive."""
