"""Webhooks: requests to a client's URL when its job has ended."""
