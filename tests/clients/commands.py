"""Commands of kubectl, in the order in which they are tried, and a part of what each answers.

{image}, {node}, {file}, {namespace}, {prefix}: an image, the node's name, the folder of FILES, the namespace, and the
beginning of the names of objects without a namespace."""

from __future__ import annotations

from typing import NamedTuple

#: Commands that have commands of their own.
_GROUPS = ("apply", "auth", "create", "rollout", "set", "top")


class Command(NamedTuple):
    words: str  # separated by blanks
    says: str  # a part of its output
    shown: str = ""  # its name in the table, if that is not what comes before the first option or name
    code: int = 0
    again: bool = False  # tried until it answers so: there are metrics of a new pod after a second look

    @property
    def name(self) -> str:
        """`create deployment`, `set env`, `top pods`: the first words."""
        if self.shown:
            return self.shown
        first, second, *_ = [*self.words.split(), ""]
        return f"{first} {second}" if first in _GROUPS else first


def _config_map(name: str, data: str) -> str:
    return f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{set: pruned}}}}\ndata: {{{data}}}\n"


#: In the namespace NAMESPACE.
FILES = {
    "config.yaml": _config_map("applied", "a: one"),
    "changed.yaml": _config_map("applied", "a: two"),
    "other.yaml": _config_map("other", "b: one"),
    "kustomization.yaml": "resources: [config.yaml]\nnamePrefix: k-\n",
    "editor": "#!/bin/sh\nsed -i 's/a: two/a: edited/' \"$1\"\n",
    "role.yaml": (
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: reconciled, namespace: NAMESPACE}\n"
        "rules: [{apiGroups: [''], resources: [pods], verbs: [get]}]\n"
    ),
}

COMMANDS = (
    Command(
        "create deployment shop --image={image} --replicas=1 -- sleep 3600", "deployment.apps/shop created"
    ),
    Command("create job once --image={image} -- true", "job.batch/once created"),
    Command("create cronjob daily --image={image} --schedule=@daily -- true", "cronjob.batch/daily created"),
    Command("create job now --from=cronjob/daily", "job.batch/now created", "create job --from"),
    Command(
        "create service clusterip inside --tcp=80:8080", "service/inside created", "create service clusterip"
    ),
    Command(
        "create service nodeport outside --tcp=80:8080", "service/outside created", "create service nodeport"
    ),
    Command(
        "create service loadbalancer balanced --tcp=80:8080",
        "service/balanced created",
        "create service loadbalancer",
    ),
    Command(
        "create service externalname far --external-name=example.com",
        "service/far created",
        "create service externalname",
    ),
    Command(
        "create configmap conf --from-literal=a=b --from-file={file}/config.yaml", "configmap/conf created"
    ),
    Command("create secret generic word --from-literal=a=b", "secret/word created", "create secret generic"),
    Command(
        "create secret docker-registry pull --docker-server=r.example --docker-username=u --docker-password=p",
        "secret/pull created",
        "create secret docker-registry",
    ),
    Command(
        "create ingress web --rule=web.example/=inside:80",
        "ingress.networking.k8s.io/web created",
        "create ingress",
    ),
    Command("create quota much --hard=pods=100,cpu=64", "resourcequota/much created", "create quota"),
    Command("delete quota much", 'resourcequota "much" deleted'),
    Command(
        "create role reader --verb=get,list --resource=pods", "role.rbac.authorization.k8s.io/reader created"
    ),
    Command("create serviceaccount bot", "serviceaccount/bot created"),
    Command(
        "create rolebinding bots --role=reader --serviceaccount=default:bot",
        "rolebinding.rbac.authorization.k8s.io/bots created",
    ),
    Command("create clusterrole {prefix}all --verb=get --resource=nodes", "created", "create clusterrole"),
    Command(
        "create clusterrolebinding {prefix}all --clusterrole={prefix}all --user=jane",
        "created",
        "create clusterrolebinding",
    ),
    Command("create namespace {prefix}more", "created", "create namespace"),
    Command(
        "create poddisruptionbudget spare --selector=app=shop --min-available=0",
        "poddisruptionbudget.policy/spare created",
    ),
    Command("create priorityclass {prefix}high --value=10", "created", "create priorityclass"),
    Command("create token bot --duration=10m", "ey"),
    Command(
        "run single --image={image} --image-pull-policy=Never -- sleep 3600", "pod/single created", "run"
    ),
    Command("expose deployment shop --port=80 --target-port=8080", "service/shop exposed"),
    Command("rollout status deployment shop --timeout=60s", "successfully rolled out"),
    Command("scale deployment shop --replicas=2", "deployment.apps/shop scaled"),
    Command("autoscale deployment shop --max=3 --cpu-percent=50", "shop autoscaled"),
    Command("delete hpa shop", "deleted"),
    Command("set env deployment/shop A=b", "deployment.apps/shop env updated"),
    Command("set image deployment/shop *={image}", "", "set image"),
    Command(
        "set resources deployment shop --limits=memory=64Mi",
        "deployment.apps/shop resource requirements updated",
    ),
    Command("set serviceaccount deployment shop bot", "deployment.apps/shop serviceaccount updated"),
    Command("set selector service inside app=shop", "service/inside selector updated"),
    Command(
        "set subject rolebinding bots --user=jane",
        "rolebinding.rbac.authorization.k8s.io/bots subjects updated",
    ),
    Command("rollout status deployment shop --timeout=60s", "successfully rolled out"),
    Command("rollout history deployment shop", "REVISION"),
    Command("rollout undo deployment shop", "deployment.apps/shop rolled back"),
    Command("rollout pause deployment shop", "deployment.apps/shop paused"),
    Command("rollout resume deployment shop", "deployment.apps/shop resumed"),
    Command("rollout restart deployment shop", "deployment.apps/shop restarted"),
    Command("rollout status deployment shop --timeout=60s", "successfully rolled out"),
    Command('patch deployment shop -p {{"spec":{{"revisionHistoryLimit":5}}}}', "shop patched"),
    Command("label deployment shop tier=front", "deployment.apps/shop labeled"),
    Command("annotate deployment shop note=hi", "deployment.apps/shop annotated"),
    Command("apply -f {file}/config.yaml", "configmap/applied created", "apply"),
    Command("diff -f {file}/changed.yaml", "+  a: two", "", 1),
    Command("apply -f {file}/changed.yaml", "configmap/applied configured", "apply"),
    Command("apply view-last-applied configmap applied", "a: two"),
    Command("edit configmap applied", "configmap/applied edited"),
    Command("get configmap applied -o jsonpath={{.data.a}}", "edited"),
    Command("replace -f {file}/config.yaml", "configmap/applied replaced"),
    Command("replace --force -f {file}/config.yaml", "configmap/applied replaced", "replace --force"),
    Command("apply -f {file}/other.yaml", "configmap/other created", "apply"),
    Command(
        "apply --prune -l set=pruned --prune-allowlist=core/v1/ConfigMap -f {file}/config.yaml",
        "configmap/other pruned",
        "apply --prune",
    ),
    Command(
        "apply --server-side -f {file}/other.yaml",
        "configmap/other serverside-applied",
        "apply --server-side",
    ),
    Command("apply -k {file}", "configmap/k-applied created", "apply -k"),
    Command("auth reconcile -f {file}/role.yaml", "role.rbac.authorization.k8s.io/reconciled reconciled"),
    Command("wait --for=condition=Ready pod/single --timeout=60s", "pod/single condition met"),
    Command("wait --for=create configmap/applied --timeout=10s", "condition met"),
    Command("logs job/now --tail=1", ""),
    Command("describe pod single", "Name:             single"),
    Command("events --for pod/single", "Started"),
    Command("exec single -- cat /etc/hostname", "single"),
    Command("cp {file}/config.yaml single:/tmp/copied", ""),
    Command("exec single -- cat /tmp/copied", "name: applied"),
    Command("cp single:/tmp/copied {file}/back", ""),
    Command("top pods", "single", again=True),
    Command("top nodes", "{node}"),
    Command("debug single --image={image} --image-pull-policy=Never -- sleep 3600", "debug"),
    Command(
        "debug single --image={image} --copy-to=second --share-processes -- sleep 3600", "", "debug --copy-to"
    ),
    Command("taint nodes {node} {prefix}team=blue:PreferNoSchedule --validate=false", "tainted"),
    Command("taint nodes {node} {prefix}team-", "untainted"),
    Command("drain {node} --pod-selector=run=single --force --delete-emptydir-data", "drained"),
    Command("uncordon {node}", "uncordoned"),
    Command("auth can-i --list", "*.*", "auth can-i --list"),
    Command("auth whoami", "kubelite-admin"),
    Command("api-versions", "apps/v1"),
    Command("api-resources", "Deployment"),
    Command("explain deployment.spec.strategy", "rollingUpdate"),
    Command("get all", "deployment.apps/shop"),
    Command("get --raw /readyz", "ok", "get --raw"),
    Command("get --raw /api/v1/nodes/{node}/proxy/stats/summary", '"nodeName":"{node}"', "get --raw"),
    Command(
        "get --raw /api/v1/nodes/{node}/proxy/metrics/cadvisor", "container_cpu_usage_seconds", "get --raw"
    ),
    Command("cluster-info", "Kubernetes"),
    Command("cluster-info dump --namespaces={namespace}", '"kind": "PodList"', "cluster-info dump"),
    Command("version", "Server Version"),
    Command("delete deployment shop --cascade=foreground", 'deployment.apps "shop" deleted'),
    Command("delete all --all --grace-period=1", "deleted"),
    Command("delete namespace {prefix}more", "deleted"),
)
