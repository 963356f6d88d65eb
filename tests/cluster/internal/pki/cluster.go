package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"

	"slm-swarm/tests/cluster/internal/layout"
)

// Dir is the folder with all keys.
func Dir(c layout.Cluster) string { return c.Path("pki") }

// File is one of its files, as NAME.crt or NAME.key.
func File(c layout.Cluster, name string) string { return c.Path("pki", name) }

// Mint makes every certificate and kubeconfig of the cluster.
func Mint(c layout.Cluster) error {
	dir := Dir(c)
	ca, err := NewAuthority(dir, "ca")
	if err != nil {
		return err
	}
	front, err := NewAuthority(dir, "front-proxy-ca")
	if err != nil {
		return err
	}
	if _, err := front.Issue(dir, "front-proxy-client", Leaf{CommonName: "front-proxy-client"}); err != nil {
		return err
	}
	for name, leaf := range leaves(c) {
		pair, err := ca.Issue(dir, name, leaf)
		if err != nil {
			return err
		}
		if leaf.Hosts == nil {
			if err := writeKubeconfig(c, ca, pair, Kubeconfig(c, name)); err != nil {
				return err
			}
		}
	}
	// Tokens of service accounts are signed by a key that no certificate holds.
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	if err := WriteKey(File(c, "service-accounts.key"), key); err != nil {
		return err
	}
	return WritePublicKey(File(c, "service-accounts.pub"), key)
}

// Kubeconfig is the path of the kubeconfig of a client's certificate; the admin's is where everybody looks for it.
func Kubeconfig(c layout.Cluster, name string) string {
	if name == "admin" {
		return c.Kubeconfig()
	}
	return c.Path("pki", name+".kubeconfig")
}

// leaves gives each certificate's owner. The names are those that Kubernetes' own roles are bound to.
func leaves(c layout.Cluster) map[string]Leaf {
	all := map[string]Leaf{
		"admin":      {CommonName: "slm-cluster-admin", Organization: "system:masters"},
		"controller": {CommonName: "system:kube-controller-manager"},
		"scheduler":  {CommonName: "system:kube-scheduler"},
		"proxy":      {CommonName: "system:kube-proxy"},
		// How the API server calls the kubelets: for logs, exec and port-forward.
		"apiserver-kubelet": {CommonName: "kube-apiserver-kubelet-client", Organization: "system:masters"},
		"apiserver": {CommonName: "kube-apiserver", Hosts: []string{
			"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
			"localhost", "127.0.0.1", c.ControlIP(), c.APIServiceIP(),
		}},
	}
	for i := range c.Nodes {
		node := layout.NodeName(i)
		all[node] = Leaf{CommonName: "system:node:" + node, Organization: "system:nodes"}
		all[node+"-serving"] = Leaf{CommonName: node, Hosts: []string{node, c.NodeIP(i)}}
	}
	return all
}

// writeKubeconfig writes one that needs no other file, so that it can be copied.
func writeKubeconfig(c layout.Cluster, ca *Authority, client Pair, path string) error {
	var data []any
	for _, file := range []string{ca.CertPath, client.Cert, client.Key} {
		pem, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		data = append(data, base64.StdEncoding.EncodeToString(pem))
	}
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: %[1]s
contexts: [{name: %[1]s, context: {cluster: %[1]s, user: %[1]s}}]
clusters: [{name: %[1]s, cluster: {server: "%[2]s", certificate-authority-data: %[3]s}}]
users: [{name: %[1]s, user: {client-certificate-data: %[4]s, client-key-data: %[5]s}}]
`, append([]any{"slm-swarm-" + c.Name, c.APIServer()}, data...)...)
	return os.WriteFile(path, []byte(text), 0o600)
}
