"""A relay from webhooks to Klaviyo's bulk events."""
