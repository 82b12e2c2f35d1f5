"""What turns a payload into events: run by ``receive``, and by ``deliver`` after a redrive."""
