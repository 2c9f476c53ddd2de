"""Names of all losses, objectives, views and logs, read from the source files that define them.

`geneae fit --help` lists these names and must answer quickly, but importing the dicts whose keys they are loads torch.
The keys are therefore read from the source text: a new loss is added to its dict, and no second list is needed.
"""

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).parents[1]


def keys_of(file: str, dictionary: str) -> tuple[str, ...]:
    """Keys of a dict literal at the top level of a module, in their order; each key must be a plain string."""
    text = (PACKAGE / file).read_text(encoding="utf-8")
    literal = re.search(rf"^{dictionary}\b[^=\n]*= (\{{[^\n]*\}}|\{{.*?^\}})$", text, re.MULTILINE | re.DOTALL)
    if literal:  # parsing the literal alone takes a tenth of the time of parsing the file
        found = ast.parse(literal[1], mode="eval").body
        assert isinstance(found, ast.Dict)
        return tuple(ast.literal_eval(key) for key in found.keys if key is not None)
    raise LookupError(f"{file} has no dict literal {dictionary}. Update its path in geneae/settings/families.py.")


LOSS_NAMES = keys_of("losses/reconstruction.py", "LOSSES")
IN_BATCH_NAMES = keys_of("losses/in_batch.py", "IN_BATCH_LOSSES")
OBJECTIVE_NAMES = ("reconstruction", *keys_of("training/selfsupervised.py", "OBJECTIVES"))
VIEW_NAMES = keys_of("data/augment.py", "VIEWS")
LOG_NAMES = keys_of("training/logs.py", "LOGS")
