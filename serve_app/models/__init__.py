"""Weights of models on disk, and the GPU memory that they need."""
