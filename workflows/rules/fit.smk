rule fit:
    input:
        data=lambda wildcards: DATA[wildcards.data]["path"],
    output:
        run=directory("results/{data}/runs/{loss}_cut{cut}_seed{seed}"),
    log:
        "logs/fit/{data}/{loss}_cut{cut}_seed{seed}.log",
    params:
        flags=fit_flags,
    threads: 1
    resources:
        # Twice as much for a job that is tried again; what a cluster gives otherwise is in profiles/.
        mem_mb=lambda wildcards, attempt: 8000 * attempt,
        runtime=120,
        gpu=0,
    conda:
        "../envs/geneae.yaml"
    shell:
        "geneae fit {input.data:q} -o {output.run:q} --overwrite {params.flags} > {log:q} 2>&1"
