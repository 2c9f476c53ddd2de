"""One number per profile."""
