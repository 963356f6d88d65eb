package addons

import (
	"strings"
	"testing"
	"time"

	"slm-swarm/tests/cluster/internal/layout"
)

func TestReady(t *testing.T) {
	since := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
	for said, want := range map[string]bool{
		"True 2026-01-02T03:04:05Z kubelet is posting ready status": true,
		"True 2026-01-02T03:04:04Z kubelet is posting ready status": false,
		"False 2026-01-02T03:04:06Z container runtime is down":      false,
		"Unknown 2026-01-02T03:04:06Z Kubelet stopped posting":      false,
		"": false,
	} {
		if err := ready(said, since); (err == nil) != want {
			t.Errorf("%q: %v", said, err)
		}
	}
}

func TestRender(t *testing.T) {
	c := layout.Cluster{Name: "unit", Slot: 3, Nodes: 1, Programs: map[string]string{"coredns": "/cache/coredns-abc/coredns"}}
	text, err := render(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"image: localhost/slm-cluster:coredns-abc", "clusterIP: 10.223.0.10", `addresses: ["10.200.3.10"]`, "replicas: 1"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
