"""Constructors of estimators, made from the record that declares their settings."""

import inspect
from typing import Any

from geneae.settings.errors import did_you_mean


def signature_of(record: type) -> inspect.Signature:
    """Signature of a constructor with a keyword for each field of a record; the first may be given by position.

    scikit-learn, `help()` and the API reference read the names and defaults of all settings from it.
    """
    first, *others = inspect.signature(record).parameters.values()
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    by_name = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in others]
    return inspect.Signature([own, first, *by_name], return_annotation=None)


def set_keywords(estimator: Any, defaults: Any, given: dict[str, Any]) -> None:
    """Set an attribute for each field of a record: the value given, or the default.

    Values are not checked until `fit`, as scikit-learn demands; an unknown name is a `TypeError`.
    """
    for name in given:
        if name not in vars(defaults):
            hint = did_you_mean(name, vars(defaults))
            raise TypeError(f"{type(estimator).__name__}.__init__() got an unexpected keyword argument '{name}'{hint}")
    estimator.__dict__.update(vars(defaults) | given)
