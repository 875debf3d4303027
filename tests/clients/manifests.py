"""What the clients find on the node."""

from __future__ import annotations

from tests.clients.calls.harness import NAMESPACE
from tests.e2e.node import IMAGE

_CONTAINER = f"name: main, image: {IMAGE}, imagePullPolicy: Never"
MANIFEST = f"""\
apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: web, namespace: {NAMESPACE}, labels: {{app: web}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {{{_CONTAINER}, ports: [{{name: http, containerPort: 8080}}],
     command: [sh, -c, "mkdir /www; echo hello from web >/www/index.html; echo ready; exec httpd -f -p 8080 -h /www"]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: echo, namespace: {NAMESPACE}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {{{_CONTAINER}, stdin: true, command: [cat]}}
---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: {NAMESPACE}}}
spec:
  selector: {{app: web}}
  ports: [{{name: http, port: 80, targetPort: 8080}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: idle, namespace: {NAMESPACE}}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: idle}}}}
  template:
    metadata: {{labels: {{app: idle}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {{{_CONTAINER}, command: [sleep, "3600"]}}
"""
