"""Measurements on the running stack; each prints its figures and the command that made them."""
