//go:build smoke

// The smoke test of the harness: a cluster of its own, everything that the end-to-end tests rely on, and no trace of
// it afterwards. It needs root and a minute or two:
//
//	make cluster-test
package main

import (
	"context"
	_ "embed"
	"os"
	"strings"
	"testing"
	"time"

	"slm-swarm/tests/cluster/internal/images"
	"slm-swarm/tests/cluster/internal/layout"
)

//go:embed smoke.yaml
var smokeManifest string

func TestSmoke(t *testing.T) {
	s := &suite{T: t, before: snapshot(t)}
	t.Cleanup(func() {
		s.cluster("down")
		s.compare("after down")
	})
	s.up()
	s.Run("kept", s.kept)
	s.Run("pods on both nodes", s.deploy)
	s.Run("another cluster beside it", s.neighbour)
	s.Run("service by name", s.serviceByName)
	s.Run("service from the machine", s.serviceFromMachine)
	s.Run("nothing leaves", s.nothingLeaves)
	s.Run("exec, logs, port-forward", s.execLogsForward)
	s.Run("pod security", s.podSecurity)
	s.Run("registry", s.registry)
	s.Run("devices", s.devices)
	s.Run("API server away", s.apiserverAway)
	s.Run("node lost", s.nodeLost)
	s.Run("node drained", s.nodeDrained)
}

// A harness that is killed in the middle of `up` leaves what the next `down` removes.
func TestCrashedUp(t *testing.T) {
	before := snapshot(t)
	s := &suite{T: t, before: before}
	t.Cleanup(func() {
		s.cluster("down")
		s.compare("after a crashed up")
	})
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	s.crashUpWhen(ctx, "node0-containerd")
	// A second `up` replaces it, a second `down` finds nothing.
	s.up()
	s.cluster("down")
}

func (s *suite) up() {
	s.Helper()
	started := time.Now()
	said := s.cluster("up", "--devices", "nvidia.com/gpu=node1:1,npu.intel.com/accel=node0:2")
	if !strings.HasPrefix(said, "export KUBECONFIG=") || strings.Count(said, "\n") != 1 {
		s.Fatalf("`up` said %q on stdout, want one line for the shell", said)
	}
	s.Logf("up in %.1f s", time.Since(started).Seconds())
	c, err := layout.Load(stateRoot(), clusterName)
	if err != nil {
		s.Fatal(err)
	}
	s.plan = c
}

func (s *suite) kept(t *testing.T) {
	node := s.kubectl(t, "get", "node", "node0", "-o", "jsonpath={.metadata.uid}")
	s.up()
	if again := s.kubectl(t, "get", "node", "node0", "-o", "jsonpath={.metadata.uid}"); again != node {
		t.Error("a second `up` replaced a healthy cluster")
	}
	s.cluster("status")
}

func (s *suite) deploy(t *testing.T) {
	archive, err := images.Archive(s.plan, "probe")
	if err != nil {
		t.Fatal(err)
	}
	s.cluster("load-image", archive)
	manifest := t.TempDir() + "/smoke.yaml"
	text := strings.ReplaceAll(smokeManifest, "PROBE_IMAGE", images.Ref(s.plan, "probe"))
	if err := os.WriteFile(manifest, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	s.kubectl(t, "apply", "-f", manifest)
	s.kubectl(t, "-n", "smoke", "rollout", "status", "deployment/web", "--timeout=60s")
	t.Logf("two pods available %.1f s after apply", time.Since(started).Seconds())
	s.kubectl(t, "-n", "smoke", "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	nodes := s.kubectl(t, "-n", "smoke", "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.nodeName}")
	if !strings.Contains(nodes, "node0") || !strings.Contains(nodes, "node1") {
		t.Errorf("the pods are on %s, want one on each node", nodes)
	}
}
