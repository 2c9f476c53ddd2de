"""Names of all losses, objectives and views, read from the source files that define them.

`geneae fit --help` lists these names and must answer quickly, but importing the dicts whose keys they are loads torch.
The keys are therefore read from the source text: a new loss is added to its dict, and no second list is needed.
"""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def keys_of(file: str, dictionary: str) -> tuple[str, ...]:
    """Keys of a dict literal in a module of the package, in their order; each key must be a plain string."""
    for node in ast.parse((PACKAGE / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if dictionary in map(ast.unparse, targets):
                return tuple(ast.literal_eval(key) for key in node.value.keys if key is not None)
    raise LookupError(f"{file} has no dict literal {dictionary}. Write its new place into families.py.")


LOSS_NAMES = keys_of("losses/reconstruction.py", "LOSSES")
IN_BATCH_NAMES = keys_of("losses/in_batch.py", "IN_BATCH_LOSSES")
OBJECTIVE_NAMES = ("reconstruction", *keys_of("training/selfsupervised.py", "OBJECTIVES"))
VIEW_NAMES = keys_of("data/augment.py", "VIEWS")
