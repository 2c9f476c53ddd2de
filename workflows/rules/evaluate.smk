rule evaluate:
    input:
        run="results/{data}/runs/{run}",
        data=evaluated_path,
    output:
        evaluation=directory("results/{data}/evaluations/{run}"),
    log:
        "logs/evaluate/{data}/{run}.log",
    params:
        flags=lambda wildcards: flags(reading_flags(wildcards.data)),
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=30,
    conda:
        "../envs/geneae.yaml"
    shell:
        "geneae evaluate {input.run:q} {input.data:q} -o {output.evaluation:q} {params.flags} > {log:q} 2>&1"
