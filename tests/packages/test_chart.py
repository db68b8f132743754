"""The Helm chart: linted and rendered by Helm's own library, checked against the schemas of
Kubernetes, and its configuration read by the server that POLYCAST names."""

import os
import re
import unittest
import urllib.request

import kubernetes_validate
import yaml
from helm_python import Chart, HelmError, lint

from support import ROOT, Server, free_port, run, scratch

CHART = ROOT / "packaging/helm/polycast"
APP = {"app": {"key": "a-key", "secret": "a-secret"}}
ALL = {
    "app": {"existingSecret": "an-app"},
    "replicas": 3,
    "image": {"repository": "registry.example/polycast", "tag": "9.9.9", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "pull"}],
    "lameDuckSeconds": 20,
    "drainSeconds": 100,
    "threads": 2,
    "extraConfig": "[limits]\nconnections = 5000\n",
    "tls": {"existingSecret": "a-certificate"},
    "service": {"type": "LoadBalancer", "port": 443, "annotations": {"a": "b"}},
    "ingress": {"enabled": True, "host": "ws.example", "className": "nginx", "tlsSecret": "edge"},
    "seccompProfile": {"type": "Localhost", "localhostProfile": "profiles/polycast.json"},
    "podDisruptionBudget": {"enabled": True, "maxUnavailable": 2},
    "autoscaling": {"enabled": True, "minReplicas": 2, "maxReplicas": 9, "connectionsPerPod": 777},
    "networkPolicy": {
        "enabled": True,
        "from": [{"namespaceSelector": {"matchLabels": {"name": "edge"}}}],
        "to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}],
    },
    "metrics": {
        "existingSecret": "a-token",
        "serviceMonitor": {"enabled": True, "interval": "15s", "labels": {"release": "prometheus"}},
    },
    "podAnnotations": {"c": "d"},
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "topologySpreadConstraints": [{
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app.kubernetes.io/name": "polycast"}},
    }],
}


def render(values):
    """The rendered objects by kind; each is valid for the schemas of Kubernetes, if it is theirs."""
    rendered = Chart.load(CHART).render(values, name="live", namespace="chat")
    objects = {}
    for path, text in rendered.items():
        if path.endswith(".txt"):
            continue
        for document in yaml.safe_load_all(text):
            if document is None:
                continue
            if document["kind"] != "ServiceMonitor":
                kubernetes_validate.validate(document, "1.34", strict=True)
            assert document["kind"] not in objects, path
            objects[document["kind"]] = document
    return objects


class ChartTest(unittest.TestCase):
    def server_reads(self, objects, replacements=()):
        """Writes the configuration into a file, checks it with the server, and returns the file."""
        file = scratch(self) / "polycast.toml"
        text = objects["ConfigMap"]["data"]["polycast.toml"]
        for old, new in replacements:
            self.assertIn(old, text)
            text = text.replace(old, new)
        file.write_text(text, encoding="utf-8")
        check = run(os.environ["POLYCAST"], "check", file, env=Server.VARIABLES)
        self.assertIn(": ok: 1 listener, 1 app", check.stdout)
        return file

    def test_lint_has_no_complaint(self):
        for values in (APP, ALL):
            report = lint(CHART, values, strict=True)
            self.assertEqual(report["errors"], [])
            messages = [it["error"] for it in report["messages"] if it["severity"] > 1]
            self.assertEqual(messages, [])

    def test_default_values_give_one_restricted_pod(self):
        objects = render(APP)
        self.assertEqual(sorted(objects), [
            "ConfigMap", "Deployment", "PodDisruptionBudget", "Secret", "Service",
        ])
        deployment = objects["Deployment"]["spec"]
        self.assertEqual(deployment["replicas"], 1)
        pod = deployment["template"]["spec"]
        self.assertEqual(pod["securityContext"]["runAsNonRoot"], True)
        self.assertEqual(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
        self.assertEqual(pod["automountServiceAccountToken"], False)
        container = pod["containers"][0]
        version = run(ROOT / "packaging/release/version.sh").stdout.strip()
        self.assertEqual(container["image"], f"polycast:{version}")
        self.assertEqual(container["securityContext"], {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        })
        probes = {name: container[name]["httpGet"] for name in
                  ("startupProbe", "livenessProbe", "readinessProbe")}
        self.assertEqual({it["scheme"] for it in probes.values()}, {"HTTP"})
        self.assertEqual(probes["livenessProbe"]["path"], "/live")
        self.assertEqual(probes["readinessProbe"]["path"], "/ready")
        labels = deployment["template"]["metadata"]["labels"].items()
        for selector in (
            deployment["selector"]["matchLabels"],
            objects["Service"]["spec"]["selector"],
            objects["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        ):
            self.assertLessEqual(selector.items(), labels)
        self.assertEqual(objects["Secret"]["stringData"], {
            "POLYCAST_APP_ID": "1", "POLYCAST_APP_KEY": "a-key", "POLYCAST_APP_SECRET": "a-secret",
        })

    def test_pod_with_the_default_values_serves(self):
        port = free_port()
        file = self.server_reads(render(APP), [("0.0.0.0:6001", f"127.0.0.1:{port}")])
        server = Server(self, port, os.environ["POLYCAST"], "--config", file, "--threads", "1",
                        env={**Server.VARIABLES, "POLYCAST_METRICS__TOKEN": "a-token-of-28-characters-here"})
        self.assertEqual(server.delivers("hello"), "hello")
        # As a ServiceMonitor reads it, and with the metric that the autoscaler uses.
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/metrics", headers={"Authorization": "Bearer a-token-of-28-characters-here"}
        )
        with urllib.request.urlopen(request, timeout=10) as response:
            self.assertRegex(response.read().decode(), r"(?m)^polycast_connections(\{.*\})? \d+$")

    def test_every_value_reaches_its_object(self):
        objects = render(ALL)
        self.assertEqual(sorted(objects), [
            "ConfigMap", "Deployment", "HorizontalPodAutoscaler", "Ingress", "NetworkPolicy",
            "PodDisruptionBudget", "Service", "ServiceMonitor",
        ])
        deployment = objects["Deployment"]["spec"]
        self.assertNotIn("replicas", deployment, "the autoscaler decides")
        pod = deployment["template"]["spec"]
        self.assertEqual(deployment["template"]["metadata"]["annotations"]["c"], "d")
        self.assertGreater(pod["terminationGracePeriodSeconds"], 120)
        for name in ("nodeSelector", "tolerations", "affinity", "topologySpreadConstraints",
                     "imagePullSecrets"):
            self.assertEqual(pod[name], ALL[name], name)
        self.assertEqual(pod["securityContext"]["seccompProfile"], ALL["seccompProfile"])
        container = pod["containers"][0]
        self.assertEqual(container["image"], "registry.example/polycast:9.9.9")
        self.assertEqual(container["imagePullPolicy"], "Always")
        secrets = [it["secretRef"]["name"] for it in container["envFrom"]]
        self.assertEqual(secrets, ["an-app", "a-token"])
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            self.assertEqual(container[probe]["httpGet"]["scheme"], "HTTPS")
        service = objects["Service"]
        self.assertEqual(service["spec"]["type"], "LoadBalancer")
        self.assertEqual(service["spec"]["ports"][0]["port"], 443)
        self.assertEqual(service["metadata"]["annotations"], {"a": "b"})
        scaler = objects["HorizontalPodAutoscaler"]["spec"]
        self.assertEqual((scaler["minReplicas"], scaler["maxReplicas"]), (2, 9))
        self.assertEqual(scaler["metrics"][0]["pods"], {
            "metric": {"name": "polycast_connections"},
            "target": {"type": "AverageValue", "averageValue": "777"},
        })
        policy = objects["NetworkPolicy"]["spec"]
        self.assertEqual(policy["ingress"][0]["from"], ALL["networkPolicy"]["from"])
        self.assertEqual(policy["egress"][1]["to"], ALL["networkPolicy"]["to"])
        ingress = objects["Ingress"]["spec"]
        self.assertEqual(ingress["rules"][0]["host"], "ws.example")
        self.assertEqual(ingress["tls"][0]["secretName"], "edge")
        self.assertEqual(objects["PodDisruptionBudget"]["spec"]["maxUnavailable"], 2)
        monitor = objects["ServiceMonitor"]
        self.assertEqual(monitor["metadata"]["labels"]["release"], "prometheus")
        endpoint = monitor["spec"]["endpoints"][0]
        self.assertEqual((endpoint["interval"], endpoint["scheme"]), ("15s", "https"))
        self.assertEqual(endpoint["authorization"]["credentials"], {
            "name": "a-token", "key": "POLYCAST_METRICS__TOKEN",
        })
        # The certificate is a file of this repository here.
        fixtures = ROOT / "tests/fixtures"
        file = self.server_reads(objects, [
            ("/etc/polycast-tls/tls.crt", str(fixtures / "localhost.pem")),
            ("/etc/polycast-tls/tls.key", str(fixtures / "localhost.key")),
        ])
        text = file.read_text(encoding="utf-8")
        self.assertIn("connections = 5000", text)
        self.assertRegex(text, "(?m)^lame_duck_s = 20$")
        self.assertRegex(text, "(?m)^drain_s = 100$")
        self.assertRegex(text, "(?m)^threads = 2$")

    def test_whole_configuration_can_be_replaced(self):
        config = '[[listeners]]\naddress = "0.0.0.0:6001"\n\n[[apps]]\nid = "1"\nkey = "k"\nsecret = "s"\n'
        objects = render({**APP, "config": config})
        self.assertEqual(objects["ConfigMap"]["data"]["polycast.toml"].strip(), config.strip())
        self.server_reads(objects)

    def test_manifests_without_helm_are_valid(self):
        file = ROOT / "packaging/kubernetes/polycast.yaml"
        documents = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
        for document in documents:
            kubernetes_validate.validate(document, "1.34", strict=True)
        kinds = sorted(document["kind"] for document in documents)
        self.assertEqual(kinds, ["Deployment", "PodDisruptionBudget", "Service"])

    def test_manifests_of_the_engine_are_valid(self):
        found = {}
        for name in ("nats", "valkey"):
            file = ROOT / f"packaging/kubernetes/{name}.yaml"
            for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
                kubernetes_validate.validate(document, "1.34", strict=True)
                found[document["kind"], document["metadata"]["name"]] = document
        valkey = found["StatefulSet", "valkey"]["spec"]["template"]["metadata"]["labels"]
        self.assertEqual(found["Service", "valkey"]["spec"]["selector"], valkey)
        servers = found["StatefulSet", "nats"]["spec"]
        self.assertEqual(servers["serviceName"], found["Service", "nats-servers"]["metadata"]["name"])
        labels = servers["template"]["metadata"]["labels"]
        for name in ("nats", "nats-servers"):
            self.assertEqual(found["Service", name]["spec"]["selector"], labels)
        config = found["ConfigMap", "nats"]["data"]["nats.conf"]
        for number in range(servers["replicas"]):
            self.assertIn(f"nats://nats-{number}.nats-servers:6222", config)

    def test_a_change_of_the_configuration_replaces_the_pods(self):
        def checksums(values):
            template = render(values)["Deployment"]["spec"]["template"]
            annotations = template["metadata"]["annotations"]
            return annotations["checksum/config"], annotations["checksum/secret"]

        one = checksums(APP)
        self.assertEqual(one, checksums(APP))
        self.assertNotEqual(one[0], checksums({**APP, "threads": 3})[0])
        self.assertNotEqual(one[1], checksums({"app": {"key": "a-key", "secret": "other"}})[1])

    def test_wrong_values_are_refused(self):
        for values, message in (
            ({}, "app.key, or app.existingSecret, is required"),
            ({**APP, "drainSeconds": 86401}, "drainSeconds"),
            ({**APP, "replica": 2}, "replica"),
            ({**APP, "ingress": {"enabled": True}}, "ingress.host is required"),
            ({**APP, "metrics": {"serviceMonitor": {"enabled": True}}}, "metrics.existingSecret"),
        ):
            with self.assertRaisesRegex(HelmError, re.escape(message)):
                chart = Chart.load(CHART)
                chart.validate_schema(values)
                chart.render(values, name="live", namespace="chat")
        Chart.load(CHART).validate_schema({**APP, "drainSeconds": 86400})

    def test_chart_has_the_version_of_the_server(self):
        version = run(ROOT / "packaging/release/version.sh").stdout.strip()
        metadata = Chart.load(CHART).metadata
        metadata = metadata() if callable(metadata) else metadata
        self.assertEqual((metadata["version"], metadata["appVersion"]), (version, version))


if __name__ == "__main__":
    unittest.main()
