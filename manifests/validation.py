"""placeholder while the rules are written"""

from manifests.meta import Object
from manifests.problems import Problem


def validate_object(obj: Object) -> list[Problem]:
    return []
