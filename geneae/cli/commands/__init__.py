"""The commands, a file each: `sweep_cut.py` holds `geneae sweep-cut`, which it names `command`."""
