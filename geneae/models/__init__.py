"""Models: gene bases, encoders and decoders, baselines, and the noise ceiling."""
