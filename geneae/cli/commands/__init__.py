"""The commands, one file each: `command` in `sweep_cut.py` is `geneae sweep-cut`."""
