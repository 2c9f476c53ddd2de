"""Title, summary and notes of the report."""

from geneae.data.states import STATES
from geneae.evaluation.agreement import Agreement
from geneae.evaluation.batches import Batches
from geneae.evaluation.judges import JUDGES
from geneae.evaluation.labels import Labels
from geneae.evaluation.steps import kept_steps, loss_of_steps, steps_sentence
from geneae.folders.run import Run
from geneae.losses.names import find_loss
from geneae.report.across_runs import (
    REPORTED,
    by_configuration,
    distinct,
    has_held_out,
    main_split,
    of_config,
    repeat_of,
)
from geneae.report.cells import show_range
from geneae.settings.errors import InputError
from geneae.settings.text import counted


def title_of_report(runs: list[Run]) -> str:
    """Title: configurations and data."""
    arms = list(by_configuration(runs))
    data = ", ".join(distinct(runs, "data", "source")) or "unknown data"
    return f"{len(arms)} configurations compared on {data}" if len(arms) > 1 else f"{arms[0]} on {data}"


def facts_of(runs: list[Run]) -> str:
    """Numbers of configurations, seeds and runs, where there are several, and of profiles and genes, in one line."""
    n_arms, n_seeds = len(by_configuration(runs)), len({run.config.get("seed") for run in runs})
    of_runs = (counted(n_arms, "configuration"), counted(n_seeds, repeat_of(runs)), counted(len(runs), "run"))
    said = [", ".join(of_runs)] if len(runs) > 1 else []
    sizes = {name: [run.split_sizes[name] for run in runs if name in run.split_sizes] for name in REPORTED[::-1]}
    sizes = {name: found for name, found in sizes.items() if found}
    if sizes:
        parts = [f"{show_range(min(found), max(found))} {name}" for name, found in sizes.items()]
        said.append(f"{', '.join(parts)} profiles")
    genes = distinct(runs, "network", "n_genes")
    if genes:
        low, high = min(map(int, genes)), max(map(int, genes))
        said.append(f"{show_range(low, high)} gene{'s' * (high != 1)}")
    return "; ".join(said)


def heard_of(runs: list[Run]) -> list[str]:
    """What was found about profiles that a model was evaluated on: genes that they lack, their depth."""
    found = [sentence for run in runs for sentence in of_config(run, "data", "heard") or []]
    return list(dict.fromkeys(map(str, found)))


def notes_of(runs: list[Run]) -> list[str]:
    """Notes that a reader of the table of results needs."""
    if all(of_config(run, "judged") for run in runs):
        return _of_programs(runs)
    said = [*_of_data(runs), *_of_latents(runs)]
    if not all(run.is_encoder for run in runs):
        said += [*_of_cosines(runs), *_of_steps(runs), *_of_errors(runs), *_of_choice(runs)]
    return said


def _of_data(runs: list[Run]) -> list[str]:
    """What the values are, where that is more than counts, and what was understood of a file."""
    said = []
    for run in runs:
        state, evidence = of_config(run, "data", "state"), of_config(run, "data", "evidence")
        if evidence and state in STATES:
            said.append(f"The values are {STATES[state].noun} ({evidence}).")
        column = of_config(run, "data", "gene_names")
        if column is not None:
            said.append(f"Genes are named by var column '{column}'.")
        found = of_config(run, "data", "said")
        said += map(str, found) if isinstance(found, list) else []
    return list(dict.fromkeys(said))


def _of_programs(runs: list[Run]) -> list[str]:
    """Notes on other programs, judged on halves that they have not seen."""
    said = [
        "Every program was given one half of the molecules of each profile, drawn at random, and is compared with the "
        "other half, in the space log1p_cp10k, so that copying noise does not raise a number; a perfect reconstruction "
        "would reach the noise ceiling. The ceiling assumes Poisson noise; other technical noise, which the two halves "
        "share, makes it too high.",
        "Skill is the held-out cosine on a scale where the mean profile is 0 and the noise ceiling 1. Centred cosine "
        "is the cosine after subtracting the gene means. The correlation of genes is the mean over the more expressed "
        "half of them; a gene that is predicted constant has 0.",
        "PCA, shrunken PCA and whitened linear were fitted to both halves of the training profiles, and predict from "
        "the given half alone.",
        "A reconstruction in counts or CP10k is taken as an expected value and converted to the expected log1p of "
        "Poisson counts.",
    ]
    if any(Labels().is_in(run.metrics) for run in runs):
        said.append(
            "k-NN accuracy: the training profiles whose latents are nearest by cosine vote for the label of a profile. "
            "Linear probe: logistic regression on the latents of training profiles. ARI and NMI: how well Leiden "
            "clusters of the latents agree with the labels. All latents are of the given half."
        )
    said += [judge.note([]) for judge in (Agreement(), Batches()) if any(judge.is_in(run.metrics) for run in runs)]
    if len(runs) == len(by_configuration(runs)):
        said.append("A single division of the molecules says nothing about the variation between divisions.")
    return said


def _of_latents(runs: list[Run]) -> list[str]:
    """Notes on scores of latents, on a learned metric in the loss, and on training without a decoder."""
    said = []
    for judge in JUDGES:
        judged = [run for run in runs if judge.is_in(run.metrics)]
        if judged and (note := judge.note([of_config(run, "settings") or {} for run in judged])):
            said.append(note)
    if any(of_config(run, "metric") is not None for run in runs):
        said.append(
            "A loss under a learned metric compares profiles by a cosine that was learned from labels beforehand and "
            "stays fixed. The loss by epoch and its cosine, norms, gradients and opposite halves are computed under "
            "that metric, all other numbers without it."
        )
    if any(run.is_encoder for run in runs):
        said.append(
            "An encoder trained on agreement of views has no decoder, and so no cosine and no squared error of "
            "reconstructions. Labels are not used to choose an epoch. An encoder that starts at the latents of the "
            "default fit leaves them for an epoch in which both halves of validation profiles have more neighbours in "
            "common; of others the last epoch is used."
        )
    exported = [
        arm
        for arm, several in by_configuration(runs).items()
        if any((of_config(run, "latent_choice") or {}).get("is_start") for run in several)
    ]
    if exported:
        said.append(
            "By neighbours and ranks of both halves of validation profiles, latents after training were not clearly "
            f"better than those of the start, which are exported: {', '.join(exported)}."
        )
    return said


def _of_cosines(runs: list[Run]) -> list[str]:
    """Notes on the cosines in the tables, and on their baselines."""
    said = []
    if has_held_out(runs):
        said.append(
            "Cosine compares a profile with its own reconstruction, so that copying the noise of a profile raises it. "
            "Held-out cosine compares the reconstruction of a random half of a profile's molecules with the held-out "
            "half, so that copying noise does not raise it"
            + ("; a perfect reconstruction would reach the noise ceiling." if _has(runs, "ceiling") else ".")
        )
    else:
        said.append(
            "Cosine compares a profile with its own reconstruction, so that copying the noise of a profile raises it. "
            "Without counts, its molecules cannot be divided into halves: there is no held-out cosine, which does not "
            "reward copied noise, no noise ceiling, and no shrunken PCA."
        )
    if _has(runs, "ceiling"):
        said.append(
            "The ceiling assumes Poisson noise, the sampling noise of counted molecules; other technical noise, which "
            "the two halves share, makes it too high."
        )
    if _has(runs, "skill"):
        said.append(
            "Skill is the held-out cosine on a scale where the mean profile is 0 and the noise ceiling 1. The "
            "disattenuated cosine, among the other metrics, is the held-out cosine divided by the ceiling: an estimate "
            "of the cosine with the noise-free profile (Spearman 1904)."
        )
    said.append("Centred cosine is the cosine after subtracting the gene means: the mean profile has 0.")
    fitted = "PCA and shrunken PCA are" if has_held_out(runs) else "PCA is"
    said.append(
        f"{fitted} fitted to the training profiles. Validation profiles choose the epoch; test profiles choose nothing."
    )
    return said


def _has(runs: list[Run], metric: str) -> bool:
    """Whether a metric stands in the tables of a run."""
    return any((run.metrics["metric"] == metric).any() for run in runs)


def _of_steps(runs: list[Run]) -> list[str]:
    """Notes on the rows of models with an estimator, and on the steps that each configuration uses."""
    used = {
        arm: steps_sentence(found, loss_of_steps(several[0].config))
        for arm, several in by_configuration(runs).items()
        if (found := of_config(several[0], "steps"))
    }
    if not used:
        return []
    has_own_counts = any("own_counts" in kept_steps(of_config(one, "steps") or []) for one in runs)
    begin = "The model also reads" if has_own_counts else "No model here reads"
    return [
        f"{begin} a profile's own count of each gene. From the latent alone is what can be decoded without these, own "
        "counts and mean profile is what can be reached without any latent, and whitened linear is the start: PCA in "
        "units of the noise of each gene.",
        "The two halves of a profile share technical clumping, such as duplicates, ambient molecules and index swaps, "
        "which own counts cannot tell from variation of a single gene. From the latent alone is free of it, unless "
        "it moves many genes together.",
        *(f"{arm if len(used) > 1 else ''}{': ' * (len(used) > 1)}{said}" for arm, said in used.items()),
    ]


def _of_errors(runs: list[Run]) -> list[str]:
    """Notes on configurations whose errors must be read with care."""
    said = []
    free = [arm for arm, several in by_configuration(runs).items() if _is_scale_free(several[0])]
    if free:
        said.append(
            f"The loss of {', '.join(free)} ignores the length of a reconstruction, so that its raw MSE says nothing "
            "about the fit and cannot be compared with others. Rescaled MSE is computed after multiplying all "
            "reconstructions of a model by one factor, the best one for the validation profiles."
        )
    centred = [
        f"{arm} ({center})"
        for arm, several in by_configuration(runs).items()
        if (center := of_config(several[0], "center")) not in (None, "none")
    ]
    if centred:
        said.append(
            f"Rescaled MSE is computed after the centring of the loss, if it has one: compare that of "
            f"{', '.join(centred)} only with the baselines of the same configuration."
        )
    return said


def _of_choice(runs: list[Run]) -> list[str]:
    """Notes on runs whose training was left out, and on missing seeds."""
    said = []
    kept = {
        arm: sum(of_config(run, "best_epoch") == 0 for run in several)
        for arm, several in by_configuration(runs).items()
    }
    if any(kept.values()):
        arms = ", ".join(f"{arm} ({n} of {len(by_configuration(runs)[arm])} runs)" for arm, n in kept.items() if n)
        said.append(f"No epoch was better on the validation profiles, so that the network was left out: {arms}.")
    if len(runs) == len(by_configuration(runs)):
        said.append("A single seed says nothing about the variation between seeds.")
    return said


def _is_scale_free(run: Run) -> bool:
    try:
        return find_loss(str(of_config(run, "settings", "loss"))).is_scale_free
    except InputError:  # a run of another version of geneae
        return False


def missing_from(runs: list[Run]) -> list[str]:
    """Notes on parts that are missing from the report, and why."""
    if all(of_config(run, "judged") for run in runs):
        return []
    said = []
    if main_split(runs) == "validation":
        said.append(
            "No test profiles were set aside: the numbers are for the validation profiles, which chose the epoch."
        )
    if not any("label" in run.profiles or of_config(run, "evaluated") for run in runs):
        said.append(
            "No column of obs, such as the cell type, was named with --color KEY: the UMAP shows clusters, and "
            "differences between configurations are not shown by label. geneae report RUN --color KEY draws the report "
            "of a run again with one."
        )
    return said
