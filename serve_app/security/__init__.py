"""What a stranger may do: client secrets, request checks, limits on concurrency."""
