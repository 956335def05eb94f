"""What each tenant and key has used, counted once."""
