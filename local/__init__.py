"""The relay on one machine: the stack, a Klaviyo stand-in, and the tools of the Makefile."""
