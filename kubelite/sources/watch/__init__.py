"""How changes of the manifests directory are noticed."""
