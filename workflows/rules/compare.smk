rule compare:
    input:
        runs=lambda wildcards: runs_of(wildcards.data),
    output:
        report=report(
            "results/{data}/comparison/report.html",
            caption="../report/comparison.rst",
            category="Comparison",
            labels={"data": "{data}"},
        ),
        metrics="results/{data}/comparison/metrics.csv",
    log:
        "logs/compare/{data}.log",
    params:
        folder=lambda wildcards, output: os.path.dirname(output.report),
        flags=lambda wildcards: flags({"color": DATA[wildcards.data].get("color")}),
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=30,
    conda:
        "../envs/geneae.yaml"
    shell:
        "geneae compare {input.runs:q} -o {params.folder:q} {params.flags} > {log:q} 2>&1"
