"""Numbers and sentences about a fit."""
