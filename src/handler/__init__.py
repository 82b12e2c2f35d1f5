"""A relay from webhooks to Klaviyo's bulk events."""

import gc

# Loading makes tens of thousands of objects that stay. Collecting among them repeatedly is a tenth of a cold start.
gc.set_threshold(50_000)
