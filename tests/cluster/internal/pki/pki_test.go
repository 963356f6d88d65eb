package pki

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"strings"
	"testing"

	"slm-swarm/tests/cluster/internal/layout"
)

func read(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return certificate
}

func TestMint(t *testing.T) {
	c := layout.Cluster{Name: "unit", Root: t.TempDir(), Slot: 2, Nodes: 2}
	if err := Mint(c); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(read(t, File(c, "ca.crt")))
	server := read(t, File(c, "apiserver.crt"))
	for _, host := range []string{"10.200.2.10", "10.222.0.1", "kubernetes.default.svc"} {
		if _, err := server.Verify(x509.VerifyOptions{Roots: roots, DNSName: host}); err != nil {
			t.Errorf("the API server as %s: %v", host, err)
		}
	}
	client := x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	node := read(t, File(c, "node1.crt"))
	if _, err := node.Verify(client); err != nil || node.Subject.CommonName != "system:node:node1" {
		t.Errorf("node1 as a client: %v, %s", err, node.Subject)
	}
	if _, err := server.Verify(client); err == nil {
		t.Error("the API server's certificate serves as a client's")
	}
	if _, err := read(t, File(c, "front-proxy-client.crt")).Verify(client); err == nil {
		t.Error("the front proxy's certificate is a user's")
	}
	config, err := os.ReadFile(c.Kubeconfig())
	if err != nil || !strings.Contains(string(config), `server: "https://10.200.2.10:6443"`) {
		t.Errorf("the admin's kubeconfig: %v\n%s", err, config)
	}
}
