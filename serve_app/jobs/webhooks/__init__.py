"""Calls to whoever waits for a job."""
