"""`python -m geneae` is the command `geneae`."""

from geneae.cli.main import main

if __name__ == "__main__":
    main()
