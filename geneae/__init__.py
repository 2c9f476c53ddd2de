"""Autoencoders for gene-expression profiles, with losses that see direction, magnitude or both."""
