"""Names of the losses, objectives and views that there are, read from the files that hold them.

`geneae fit --help` names them all and answers at once, but the dicts that they are the keys of load torch. So the keys
are read from the source text: a new loss is written into its dict, and no second list has to know.
"""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def keys_of(file: str, dictionary: str) -> tuple[str, ...]:
    """Keys of a dict that a module of the package writes out, in their order; each key has to be a plain string."""
    for node in ast.parse((PACKAGE / file).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if dictionary in map(ast.unparse, targets):
                return tuple(ast.literal_eval(key) for key in node.value.keys if key is not None)
    raise LookupError(f"{file} has no dict {dictionary} that is written out. Say in families.py where it is now.")


LOSS_NAMES = keys_of("losses/reconstruction.py", "LOSSES")
IN_BATCH_NAMES = keys_of("losses/in_batch.py", "IN_BATCH_LOSSES")
OBJECTIVE_NAMES = ("reconstruction", *keys_of("training/selfsupervised.py", "OBJECTIVES"))
VIEW_NAMES = keys_of("data/augment.py", "VIEWS")
