# Run by snakemake in the environment that it has made of geneae.yaml, in the folder of the Snakefile: geneae of this
# checkout, with everything at the versions that the tests use.
set -eu
python -m pip install -c ../constraints.txt ..
