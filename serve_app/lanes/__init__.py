"""Many sessions over few connections: one lane for each pair of ingress and model replica."""
