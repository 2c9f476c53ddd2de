"""Profiles, from a file to counts in the genes of a model."""
