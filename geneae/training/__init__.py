"""Training: steps, epochs, checkpoints."""
