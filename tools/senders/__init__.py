"""Authoring of senders: needs neither a stack nor AWS."""
