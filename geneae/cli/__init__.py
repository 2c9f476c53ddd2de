"""The `geneae` command."""
