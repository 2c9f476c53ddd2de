"""Losses and metrics: one number per profile."""
