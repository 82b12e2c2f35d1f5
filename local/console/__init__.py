"""The console of ``make local``: see a webhook become an event. It is never deployed."""
