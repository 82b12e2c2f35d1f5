"""Authoring of senders, operation of a deployed stack, and what all commands share."""
