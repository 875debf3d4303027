// The JavaScript client `@kubernetes/client-node`. It is found beside CLIENT_MODULES, as Node.js finds modules.
// A line of JSON for each call, as harness.py prints them.

import { createRequire } from "node:module";
import { Readable, Writable, PassThrough } from "node:stream";
import http from "node:http";
import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import assert from "node:assert/strict";

const require = createRequire(`${process.env.CLIENT_MODULES}/`);
const k8s = require("@kubernetes/client-node");

const namespace = "clients";
const client = process.env.CLIENT;
const labels = { client };
const labelSelector = `client=${client}`;
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);

const configMap = (name, data) => ({ metadata: { name: `${client}-${name}`, namespace, labels }, data });
const using = (strategy) => k8s.setHeaderOptions("Content-Type", strategy);

async function until(condition, what) {
  for (const end = Date.now() + 30_000; ; await sleep(100)) {
    const found = await condition();
    if (found) return found;
    if (Date.now() > end) throw new Error(`waited for ${what}`);
  }
}

function sink() {
  const stream = new Writable({
    write(chunk, _encoding, done) {
      stream.text += chunk;
      done();
    },
  });
  stream.text = "";
  return stream;
}

const calls = {
  async create() {
    for (const name of ["one", "two", "three"]) {
      const made = await core.createNamespacedConfigMap({ namespace, body: configMap(name, { a: "1" }) });
      assert.deepEqual(made.data, { a: "1" });
    }
  },
  async list() {
    const { items } = await core.listNamespacedConfigMap({ namespace });
    const names = items.map((one) => one.metadata.name);
    for (const name of ["one", "two", "three"]) assert(names.includes(`${client}-${name}`));
  },
  async selectors() {
    assert.equal((await core.listNamespacedConfigMap({ namespace, labelSelector })).items.length, 3);
    const fieldSelector = `metadata.name=${client}-two`;
    const { items } = await core.listNamespacedConfigMap({ namespace, fieldSelector });
    assert.deepEqual(items.map((one) => one.metadata.name), [`${client}-two`]);
  },
  async paging() {
    let names = [];
    let more;
    do {
      const page = await core.listNamespacedConfigMap({ namespace, labelSelector, limit: 2, _continue: more });
      names = names.concat(page.items.map((one) => one.metadata.name));
      more = page.metadata._continue;
    } while (more);
    assert.equal(names.length, 3);
  },
  async get() {
    const found = await core.readNamespacedConfigMap({ namespace, name: `${client}-one` });
    assert.deepEqual(found.data, { a: "1" });
    await assert.rejects(core.readNamespacedConfigMap({ namespace, name: "none" }), { code: 404 });
  },
  async watch() {
    const { metadata } = await core.listNamespacedConfigMap({ namespace });
    const [kind, name] = await new Promise((resolve, reject) => {
      let request;
      const seen = (type, object) => {
        request?.then((one) => one.abort());
        resolve([type, object.metadata.name]);
      };
      const query = { resourceVersion: metadata.resourceVersion, timeoutSeconds: 10 };
      const path = `/api/v1/namespaces/${namespace}/configmaps`;
      request = new k8s.Watch(config).watch(path, query, seen, (error) => reject(error ?? new Error("no event")));
      sleep(300).then(() => core.createNamespacedConfigMap({ namespace, body: configMap("late", {}) })).catch(reject);
    });
    assert.deepEqual([kind, name], ["ADDED", `${client}-late`]);
  },
  async "patch-merge"() {
    const body = { data: { a: null, b: "2" } };
    const one = { namespace, name: `${client}-one`, body };
    const done = await core.patchNamespacedConfigMap(one, using(k8s.PatchStrategy.MergePatch));
    assert.deepEqual(done.data, { b: "2" });
  },
  async "patch-json"() {
    const body = [{ op: "add", path: "/data/c", value: "3" }];
    const one = { namespace, name: `${client}-one`, body };
    const done = await core.patchNamespacedConfigMap(one, using(k8s.PatchStrategy.JsonPatch));
    assert.deepEqual(done.data, { b: "2", c: "3" });
  },
  async "patch-strategic"() {
    const containers = [{ name: "main", env: [{ name: "BY", value: client }] }];
    const body = { spec: { template: { spec: { containers } } } };
    const idle = { namespace, name: "idle", body };
    const done = await apps.patchNamespacedDeployment(idle, using(k8s.PatchStrategy.StrategicMergePatch));
    assert.deepEqual(done.spec.template.spec.containers[0].env.map((one) => one.value), [client]);
  },
  async apply() {
    const applied = async (fieldManager, data, force = false) => {
      const body = { apiVersion: "v1", kind: "ConfigMap", ...configMap("applied", data) };
      const one = { namespace, name: `${client}-applied`, body, fieldManager, force };
      return (await core.patchNamespacedConfigMap(one, using(k8s.PatchStrategy.ServerSideApply))).data;
    };
    assert.deepEqual(await applied("first", { a: "1", b: "1" }), { a: "1", b: "1" });
    assert.deepEqual(await applied("first", { a: "1" }), { a: "1" });
    await assert.rejects(applied("second", { a: "2" }), (error) => error.code === 409);
    assert.deepEqual(await applied("second", { a: "2" }, true), { a: "2" });
  },
  async replace() {
    const two = { namespace, name: `${client}-two` };
    const found = await core.readNamespacedConfigMap(two);
    found.data = { z: "9" };
    assert.deepEqual((await core.replaceNamespacedConfigMap({ ...two, body: found })).data, { z: "9" });
    found.data = { z: "10" };
    await assert.rejects(core.replaceNamespacedConfigMap({ ...two, body: found }), { code: 409 });
  },
  async delete() {
    const done = await core.deleteNamespacedConfigMap({ namespace, name: `${client}-two` });
    assert.equal(done.status, "Success");
  },
  async deletecollection() {
    await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector });
    assert.deepEqual((await core.listNamespacedConfigMap({ namespace, labelSelector })).items, []);
  },
  async scale() {
    const idle = { namespace, name: "idle" };
    for (const replicas of [2, 1]) {
      const body = { spec: { replicas } };
      const done = await apps.patchNamespacedDeploymentScale({ ...idle, body }, using(k8s.PatchStrategy.MergePatch));
      assert.equal(done.spec.replicas, replicas);
      const reached = async () => (await apps.readNamespacedDeploymentScale(idle)).status.replicas === replicas;
      await until(reached, "pods");
    }
  },
  async logs() {
    const said = sink();
    await new k8s.Log(config).log(namespace, "web", "main", said, { tailLines: 1 });
    await until(() => said.text, "the log");
    assert.equal(said.text.trim(), "ready");
  },
  async exec() {
    const [out, err] = [sink(), sink()];
    const command = ["sh", "-c", "read line; echo $line; echo bad >&2; exit 3"];
    const input = Readable.from(["hello\n"]);
    const status = await new Promise((resolve, reject) => {
      new k8s.Exec(config)
        .exec(namespace, "web", "main", command, out, err, input, false, resolve)
        .catch(reject);
    });
    const cause = status.details.causes.find((one) => one.reason === "ExitCode");
    assert.deepEqual([out.text, err.text, cause.message], ["hello\n", "bad\n", "3"]);
  },
  async attach() {
    const [out, err, input] = [sink(), sink(), new PassThrough()];
    const socket = await new k8s.Attach(config).attach(namespace, "echo", "main", out, err, input, false);
    input.write(`${client}\n`);
    await until(() => out.text, "the echo");
    socket.close();
    assert.equal(out.text.trim(), client);
  },
  async "port-forward"() {
    const forward = new k8s.PortForward(config);
    const server = net.createServer((socket) => forward.portForward(namespace, "web", [8080], socket, null, socket));
    await new Promise((done) => server.listen(0, "127.0.0.1", done));
    const { port } = server.address();
    const text = await new Promise((resolve, reject) => {
      const asked = http.get({ port, host: "127.0.0.1", path: "/index.html", timeout: 20_000 }, async (answer) => {
        let said = "";
        for await (const chunk of answer) said += chunk;
        resolve(said);
      });
      asked.on("error", reject).on("timeout", () => asked.destroy(new Error("no answer")));
    });
    server.close();
    assert.equal(text, "hello from web\n");
  },
  async evict() {
    const { items } = await core.listNamespacedPod({ namespace, labelSelector: "app=idle" });
    const { name } = items.find((one) => !one.metadata.deletionTimestamp).metadata;
    await core.createNamespacedPodEviction({ namespace, name, body: { metadata: { name, namespace } } });
  },
  async token() {
    const body = { spec: { expirationSeconds: 600, audiences: [] } };
    const done = await core.createNamespacedServiceAccountToken({ namespace, name: "default", body });
    assert.equal(done.status.token.split(".").length, 3);
  },
  async "can-i"() {
    const body = { spec: { resourceAttributes: { namespace, verb: "delete", resource: "pods" } } };
    const reviews = config.makeApiClient(k8s.AuthorizationV1Api);
    assert.equal((await reviews.createSelfSubjectAccessReview({ body })).status.allowed, true);
  },
  async cordon() {
    const name = (await core.listNode()).items[0].metadata.name;
    for (const unschedulable of [true, false]) {
      const node = { name, body: { spec: { unschedulable } } };
      const done = await core.patchNode(node, using(k8s.PatchStrategy.MergePatch));
      assert.equal(Boolean(done.spec.unschedulable), unschedulable);
    }
  },
};

for (const [operation, call] of Object.entries(calls)) {
  const said = { operation, ok: true };
  const began = Date.now();
  try {
    await call();
  } catch (error) {
    Object.assign(said, { ok: false, error: `${error}`.slice(0, 2000) });
    console.error(error);
  }
  console.log(JSON.stringify({ ...said, seconds: (Date.now() - began) / 1000 }));
}
process.exit(0);
