"""What each client is tried with. A module of calls.py's kind says how a client does it."""

from __future__ import annotations

#: An operation, and what it means for a reader of the table.
OPERATIONS = {
    "list": "objects of a namespace",
    "selectors": "a list by labels, and one by fields",
    "paging": "a list in pages (`limit`, `continue`)",
    "get": "one object; one that does not exist is an error of the client's own type",
    "watch": "an object that is created meanwhile",
    "create": "a new object",
    "patch-merge": "a JSON merge patch",
    "patch-json": "a JSON patch",
    "patch-strategic": "a strategic merge patch",
    "apply": "server-side apply: create, change, remove; a conflict is an error, unless it is forced",
    "replace": "the whole object; one of an old version is refused",
    "delete": "one object",
    "deletecollection": "the objects of a label at once",
    "scale": "the subresource `scale`",
    "logs": "of a container",
    "exec": "a program's output, errors, input and exit code",
    "attach": "to a container's input and output",
    "port-forward": "HTTP to a port of a pod",
    "evict": "a pod",
    "token": "of a ServiceAccount (TokenRequest)",
    "can-i": "SelfSubjectAccessReview",
    "cordon": "of the node, and back",
}
