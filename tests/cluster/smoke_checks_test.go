//go:build smoke

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slm-swarm/tests/cluster/internal/layout"
	"slm-swarm/tests/cluster/internal/process"
)

const byName = "http://web.smoke.svc.cluster.local/"

func (s *suite) serviceByName(t *testing.T) {
	eventually(t, "40 requests by name are answered by both pods", s.bothAnswer)
	if _, err := s.ask("http://nobody.smoke.svc.cluster.local/", 1); err == nil || !strings.Contains(err.Error(), "no such host") {
		t.Errorf("a name that is not there: %v", err)
	}
}

// Another cluster comes and goes; it must not take away what the nodes of this one have mounted at the same places.
func (s *suite) neighbour(t *testing.T) {
	for _, args := range [][]string{{"up", "--nodes", "1"}, {"down"}} {
		if said, err := harness(context.Background(), clusterName+"-beside", args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", args[0], err, said)
		}
	}
	s.cluster("status")
	for i := range s.plan.Nodes {
		seen, err := exec.Command("nsenter", "--mount="+process.MountNS(s.plan, i), "ls", "/var/lib/kubelet/pods").Output()
		if err != nil || len(seen) == 0 {
			t.Errorf("%s lost its /var/lib/kubelet: %q, %v", layout.NodeName(i), seen, err)
		}
	}
	if left, err := os.ReadDir("/var/lib/kubelet"); err != nil || len(left) > 0 {
		t.Errorf("the machine's /var/lib/kubelet holds %v, %v; want only the mount point", left, err)
	}
}

func (s *suite) bothAnswer() error {
	said, err := s.ask(byName, 40)
	if err == nil && strings.Count(said, "web-") != 2 {
		err = fmt.Errorf("answered by %q", said)
	}
	return err
}

// get asks from the machine, outside all pods.
func get(url string) (string, error) {
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	said, err := io.ReadAll(response.Body)
	return string(said), err
}

func (s *suite) serviceFromMachine(t *testing.T) {
	service := s.kubectl(t, "-n", "smoke", "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	pods := strings.Fields(s.kubectl(t, "-n", "smoke", "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].status.podIP}"))
	urls := []string{"http://" + service + "/", "http://" + s.plan.NodeIP(0) + ":30080/", "http://" + s.plan.NodeIP(1) + ":30080/"}
	for _, pod := range pods {
		urls = append(urls, "http://"+pod+":8080/")
	}
	for _, url := range urls {
		if said, err := get(url); err != nil || !strings.HasPrefix(said, "web-") {
			t.Errorf("%s: %q, %v", url, said, err)
		}
	}
}

// A server on the machine's own outside address stands for everything beyond the cluster.
func (s *suite) nothingLeaves(t *testing.T) {
	listener, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	accepted := make(chan string, 8)
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			accepted <- connection.RemoteAddr().String()
			connection.Close()
		}
	}()
	port := listener.Addr().(*net.TCPAddr).Port
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range addresses {
		ip := address.(*net.IPNet).IP
		if ip.IsLoopback() || ip.To4() == nil || ip.String() == s.plan.HostIP() {
			continue
		}
		if _, err := s.ask(fmt.Sprintf("http://%s:%d/", ip, port), 1); err == nil {
			t.Errorf("a pod reached %s", ip)
		}
	}
	select {
	case from := <-accepted:
		t.Errorf("a connection came out of the cluster, from %s", from)
	default:
	}
}

func (s *suite) execLogsForward(t *testing.T) {
	if said := s.kubectl(t, "-n", "smoke", "logs", "client"); !strings.Contains(said, "serving on :8080") {
		t.Errorf("logs: %q", said)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	forward := exec.CommandContext(ctx, s.plan.Program("kube"), "kubectl", "--kubeconfig", s.plan.Kubeconfig(), "-n", "smoke", "port-forward", "pod/client", ":8080")
	stdout, err := forward.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := forward.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = forward.Wait()
	}()
	var port int
	if _, err := fmt.Fscanf(stdout, "Forwarding from 127.0.0.1:%d", &port); err != nil {
		t.Fatalf("port-forward: %v", err)
	}
	if said, err := get(fmt.Sprintf("http://127.0.0.1:%d/", port)); err != nil || said != "client\n" {
		t.Errorf("through port-forward: %q, %v", said, err)
	}
}

func (s *suite) podSecurity(t *testing.T) {
	_, err := s.try("-n", "smoke", "run", "bad", "--image=x", `--overrides={"spec":{"containers":[{"name":"bad","image":"x","securityContext":{"privileged":true}}]}}`)
	if err == nil || !strings.Contains(err.Error(), "violates PodSecurity") {
		t.Errorf("a privileged pod in a restricted namespace: %v", err)
	}
}

func (s *suite) registry(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "adapter.bin"), []byte("weights"), 0o600); err != nil {
		t.Fatal(err)
	}
	oras := func(dir string, args ...string) error {
		cmd := exec.Command(s.plan.Path("bin", "oras"), args...)
		cmd.Dir = dir
		if said, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("oras %s: %w: %s", args[0], err, said)
		}
		return nil
	}
	ref := s.plan.Registry() + "/smoke/adapter:1"
	pulled := t.TempDir()
	push := oras(dir, "push", "--plain-http", ref, "adapter.bin:application/octet-stream")
	pull := oras(pulled, "pull", "--plain-http", ref)
	if err := errors.Join(push, pull); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(pulled, "adapter.bin")); string(text) != "weights" {
		t.Errorf("pulled %q, %v", text, err)
	}
	manifest := "http://" + layout.RegistryName + "/v2/smoke/adapter/tags/list"
	if said, err := s.ask(manifest, 1); err != nil || !strings.Contains(said, `"smoke/adapter"`) {
		t.Errorf("from a pod: %q, %v", said, err)
	}
	s.cluster("registry", "stop")
	if _, err := s.ask(manifest, 1); err == nil {
		t.Error("a stopped registry answers")
	}
	s.cluster("registry", "start")
	if _, err := s.ask(manifest, 1); err != nil {
		t.Errorf("the registry after its return: %v", err)
	}
}

func (s *suite) devices(t *testing.T) {
	capacity := func(node, resource string) string {
		return s.kubectl(t, "get", "node", node, "-o", "jsonpath={.status.allocatable."+strings.ReplaceAll(resource, ".", `\.`)+"}")
	}
	eventually(t, "devices counted", func() error {
		if gpus, npus := capacity("node1", "nvidia.com/gpu"), capacity("node0", "npu.intel.com/accel"); gpus != "1" || npus != "2" {
			return fmt.Errorf("%q and %q", gpus, npus)
		}
		return nil
	})
	eventually(t, "one pod with the device", func() error {
		placed := s.kubectl(t, "-n", "smoke", "get", "pods", "-l", "app=accelerated", "-o", "jsonpath={range .items[*]}{.spec.nodeName}={.status.phase} {end}")
		if !strings.Contains(placed, "node1=Running") || !strings.Contains(placed, "=Pending") || strings.Contains(placed, "node0") {
			return errors.New(placed)
		}
		return nil
	})
	s.cluster("device", "stop", "nvidia.com/gpu=node1:1")
	eventually(t, "device gone", func() error {
		if left := capacity("node1", "nvidia.com/gpu"); left != "0" {
			return fmt.Errorf("%q left", left)
		}
		return nil
	})
	s.cluster("device", "start", "nvidia.com/gpu=node1:1")
}

func (s *suite) apiserverAway(t *testing.T) {
	service := s.kubectl(t, "-n", "smoke", "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	s.cluster("apiserver", "stop")
	if _, err := s.try("get", "nodes", "--request-timeout=2s"); err == nil {
		t.Error("a stopped API server answers")
	}
	if said, err := get("http://" + service + "/"); err != nil {
		t.Errorf("a Service without the API server: %q, %v", said, err)
	}
	s.cluster("apiserver", "start")
	s.kubectl(t, "get", "nodes")
}

func (s *suite) nodeLost(t *testing.T) {
	s.cluster("node", "stop", "node1")
	if pids, err := process.Marked([]string{s.plan.Mark(), process.NodeMark(1)}); err != nil || len(pids) > 0 {
		t.Errorf("processes of the lost node: %v, %v", pids, err)
	}
	if said, err := get("http://" + s.plan.NodeIP(1) + ":30080/"); err == nil {
		t.Errorf("the lost node answers: %q", said)
	}
	started := time.Now()
	s.cluster("node", "start", "node1")
	t.Logf("node1 Ready %.1f s after its return", time.Since(started).Seconds())
	eventually(t, "pods on the node that came back", s.bothAnswer)
}

func (s *suite) nodeDrained(t *testing.T) {
	s.kubectl(t, "drain", "node1", "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=120s")
	s.kubectl(t, "-n", "smoke", "rollout", "status", "deployment/web", "--timeout=60s")
	nodes := s.kubectl(t, "-n", "smoke", "get", "pods", "-l", "app=web", "--field-selector=status.phase=Running", "-o", "jsonpath={.items[*].spec.nodeName}")
	if nodes != "node0 node0" {
		t.Errorf("after the drain the pods are on %q", nodes)
	}
	s.kubectl(t, "uncordon", "node1")
}
