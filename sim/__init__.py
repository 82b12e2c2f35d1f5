"""The relay's surroundings in memory, for tests and benchmarks: time, Klaviyo, AWS services, environment.

Each of them exists once, takes its faults and pauses as arguments, and answers
as the real one does: tests/conformance puts the same calls to both.
"""
