//go:build smoke

package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"slm-swarm/tests/cluster/internal/addons"
	"slm-swarm/tests/cluster/internal/layout"
	"slm-swarm/tests/cluster/internal/process"
	"slm-swarm/tests/cluster/internal/shell"
)

// clusterName is not the default one: a developer's own cluster stays as it is.
const clusterName = "smoke"

type suite struct {
	*testing.T
	before map[string][]string
	plan   layout.Cluster
}

// command is the harness as people call it, from the checkout that this test is in.
func (s *suite) command(ctx context.Context, args ...string) *exec.Cmd {
	return harness(ctx, clusterName, args...)
}

func harness(ctx context.Context, name string, args ...string) *exec.Cmd {
	args = append([]string{args[0], "--name", name}, args[1:]...)
	return exec.CommandContext(ctx, "../../scripts/cluster", args...)
}

// cluster runs the harness and returns its stdout.
func (s *suite) cluster(args ...string) string {
	s.Helper()
	cmd := s.command(context.Background(), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.Output()
	if err != nil {
		s.Fatalf("scripts/cluster %s: %v\n%s%s", strings.Join(args, " "), err, stdout, stderr.String())
	}
	return string(stdout)
}

// crashUpWhen starts `up` and kills it, as a crash does, once one of its processes runs.
func (s *suite) crashUpWhen(ctx context.Context, running string) {
	s.Helper()
	cmd := s.command(ctx, "up")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		s.Fatal(err)
	}
	plan := layout.Cluster{Name: clusterName, Root: stateRoot()}
	err := shell.Wait(ctx, running+" started", 2*time.Minute, func(context.Context) error {
		if process.Alive(plan, running) {
			return nil
		}
		return fmt.Errorf("not yet")
	})
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err != nil {
		s.Errorf("%v\n%s", err, stderr.String())
	}
}

func (s *suite) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	text, err := s.try(args...)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (s *suite) try(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	return addons.Kubectl(ctx, s.plan, "", args...)
}

// ask asks from inside the pod `client`.
func (s *suite) ask(url string, count int) (string, error) {
	return s.try("-n", "smoke", "exec", "client", "--", "/probe", "get", url, fmt.Sprint(count))
}

// eventually waits for a condition of the cluster.
func eventually(t *testing.T, what string, condition func() error) {
	t.Helper()
	err := shell.Wait(context.Background(), what, 2*time.Minute, func(context.Context) error { return condition() })
	if err != nil {
		t.Fatal(err)
	}
}

// snapshot is what a cluster could leave behind on the machine.
func snapshot(t *testing.T) map[string][]string {
	t.Helper()
	seen := map[string][]string{}
	for what, command := range map[string]string{
		"network namespaces": "ip netns list | cut -d' ' -f1",
		"links":              "ip -brief link show | cut -d' ' -f1",
		"routes":             "ip route show",
		"mounts":             "cut -d' ' -f5 /proc/self/mountinfo",
		"state":              "ls -d /var/lib/slm-swarm-cluster/* /var/lib/kubelet /var/lib/cni /var/log/pods /var/log/containers /run/containerd 2>/dev/null || true",
		"processes":          "grep -lsz SLM_CLUSTER_PROCESS= /proc/[0-9]*/environ || true",
		"programs":           "ps -eo stat=,pid=,comm= | awk '$1 !~ /^Z/ && $3 ~ /containerd|kube|etcd|pause|probe|registry|coredns/ {print $2, $3}'",
	} {
		text, err := shell.Output(context.Background(), nil, "sh", "-c", command)
		if err != nil {
			t.Fatal(err)
		}
		seen[what] = strings.Split(text, "\n")
	}
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() && strings.Contains(path, "slm-cluster-") {
			seen["cgroups"] = append(seen["cgroups"], path)
		}
		return nil
	})
	seen["temporary files"], _ = filepath.Glob(os.TempDir() + "/*slm-cluster*")
	return seen
}

// compare tells what is there now and was not before.
func (s *suite) compare(when string) {
	s.Helper()
	for what, now := range snapshot(s.T) {
		for _, line := range now {
			if !slices.Contains(s.before[what], line) {
				s.Errorf("%s: %s: left behind: %s", when, what, line)
			}
		}
	}
}
