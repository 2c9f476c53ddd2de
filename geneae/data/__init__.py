"""Reading, checking, splitting and preprocessing of profiles, from a file to counts in the genes of a model."""
