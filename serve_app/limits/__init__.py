"""What a tenant or a key may still use: a minute, at once, and in a day."""
