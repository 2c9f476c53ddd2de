"""`python -m geneae.cli`: the `geneae` command of this Python."""

from geneae.cli.main import main

if __name__ == "__main__":
    main()
