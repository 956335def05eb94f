"""Protection against hostile clients: client secrets, request checks, limits on concurrency."""
