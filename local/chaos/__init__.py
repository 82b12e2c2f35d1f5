"""``make chaos``: everything that can fail does, from a seed, and each event is accounted for.

The stack of ``make local`` runs with faults on all sides: Klaviyo's answers,
the queues, the table, the secrets, functions killed at every step, an event
source that hands over twice and out of order, senders that repeat, burst and
forge. Pauses and time-outs are a tenth as long; all else is as deployed.
"""
