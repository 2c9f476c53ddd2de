"""Training: mini-batches, objectives, the loop over epochs, and checkpoints."""
