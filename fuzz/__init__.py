"""Fuzzers that run for as long as one likes, outside the tests."""
