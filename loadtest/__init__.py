"""Load generators, benchmarks and their reports; nothing here is needed to serve."""
