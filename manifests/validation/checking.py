"""Turns a decoded document into a defaulted object, or into a list of all problems with its shape and by the rules.

The rules need typed objects, but a document with a misspelt field has none. Its shape errors are therefore repaired in
a copy (unknown fields removed, missing ones set to an empty value), and the rules check the copy. Problems that the
rules find at a repaired place are dropped, because the repair caused them.
"""

import copy
from typing import Any, get_args, get_origin

from manifests.problems import InvalidObject, Path, Problem, fields_by_alias, model_at, models_in
from manifests.types.defaults import default_parsed
from manifests.types.meta import Object
from manifests.validation.objects import validate_object

_PASSES = 5  # an empty object that a repair adds may lack required fields itself


def check(model: type[Object], data: Any) -> tuple[Object | None, list[Problem]]:
    """Return the object (None if its shape is wrong) and its problems."""
    try:
        obj = default_parsed(model.parse(data).as_stored())
    except InvalidObject as error:
        problems = [*error.problems, *_beyond(model, data, error.problems)]
        return None, [problem for problem in problems if not _is_misspelt(problem, error.problems)]
    return obj, validate_object(obj)


def _is_misspelt(problem: Problem, shape: tuple[Problem, ...]) -> bool:
    """Tell whether a required field is present under a wrong name, which the unknown field's message already says."""
    if not problem.path or not problem.message.startswith("Required value"):
        return False
    meant = f'did you mean "{problem.path[-1]}"?'
    return any(other.path[:-1] == problem.path[:-1] and meant in other.message for other in shape)


def _beyond(model: type[Object], data: Any, shape: tuple[Problem, ...]) -> list[Problem]:
    """Return what the rules find after the shape is repaired."""
    mended = copy.deepcopy(data)
    touched: list[Path] = []
    for _ in range(_PASSES):
        for problem in shape:
            if not _mend(model, mended, problem):
                return []
            touched.append(problem.path)
        try:
            found = validate_object(default_parsed(model.parse(mended).as_stored()))
        except InvalidObject as error:
            shape = error.problems
        else:
            return [problem for problem in found if not _is_our_doing(problem, touched)]
    return []


def _mend(model: type[Object], data: Any, problem: Problem) -> bool:
    """Repair one problem: add a missing field, or remove a wrong one. Returns False if its place cannot be reached."""
    *parents, last = problem.path or (None,)
    here = data
    for part in parents:
        if isinstance(here, dict) and here.get(part) is None:
            here[part] = {}
        try:
            here = here[part]
        except (KeyError, IndexError, TypeError):
            return False
    if isinstance(here, list) and isinstance(last, int):
        here[last] = _empty(model, problem.path)
        return True
    if not isinstance(here, dict) or last is None:
        return False
    if problem.message.startswith("Required value"):
        here[last] = _empty(model, problem.path)
    else:
        here.pop(last, None)
    return True


def _empty(model: type[Object], path: Path) -> Any:
    """Return the zero value of the field (or item) at `path`: {}, [], 0 or an empty string."""
    parents, name = path[:-1], path[-1]
    in_list = isinstance(name, int)
    if in_list:
        parents, name = path[:-2], path[-2]
    owner = model_at(model, parents)
    field = fields_by_alias(owner).get(str(name)) if owner is not None else None
    if field is None:
        return ""
    if get_origin(field.annotation) is list and not in_list:
        return []
    if next(models_in(field.annotation), None) is not None:
        return {}
    types = {field.annotation, *get_args(field.annotation)}
    return 0 if int in types and str not in types else ""


def _is_our_doing(problem: Problem, touched: list[Path]) -> bool:
    path = problem.path
    for place in touched:
        if path[: len(place)] == place or place[: len(path)] == path:
            return True
        if place[:2] == ("spec", "volumes") and problem.message.startswith("Not found"):
            return True
    return False
