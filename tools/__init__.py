"""Commands beside the local stack: authoring of senders, operation of a deployed stack, and what all commands share."""
