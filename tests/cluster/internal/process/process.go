// Package process starts the cluster's long-running processes, finds them again and ends them.
//
// A process is known by its pid AND its start time, kept in a file, so that a pid that the kernel gave away again is
// never signalled. Each also carries the cluster's mark in its environment, and so do its children: what a crash left
// without a file is found by that (see sweep.go).
package process

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"slm-swarm/tests/cluster/internal/layout"
)

// Spec is a process to start.
type Spec struct {
	// Name is the name of its pid file and of its log.
	Name string
	// Node is the node that it belongs to, or -1: the control plane's. It picks the namespaces.
	Node int
	Args []string
	Env  []string
}

// StopLimit is how long a process may take to end when asked to, before it is killed.
const StopLimit = 10 * time.Second

// NodeMark is in the environment of every process of a node.
func NodeMark(i int) string { return "SLM_CLUSTER_NODE=" + layout.NodeName(i) }

// MountNS is the file that keeps a node's mount namespace.
func MountNS(c layout.Cluster, i int) string { return c.Path("ns", layout.NodeName(i)) }

// Enter is the command that runs another inside the network namespace (and, for a node, the mount namespace).
// Not `ip netns exec`: that mounts another /sys, without the cgroups.
func Enter(c layout.Cluster, node int) []string {
	if node < 0 {
		return []string{"nsenter", "--net=/run/netns/" + c.ControlNS(), "--"}
	}
	return []string{"nsenter", "--net=/run/netns/" + c.NodeNS(node), "--mount=" + MountNS(c, node), "--"}
}

// KeepFiles keeps the files that the harness was given open (a caller's lock, a pipe of make) from the processes that
// it starts: they outlive it, and would hold the lock for as long.
func KeepFiles() error {
	return unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC)
}

// Start starts a process that outlives the harness. Its output goes to logs/NAME.log.
func Start(c layout.Cluster, spec Spec) error {
	if Alive(c, spec.Name) {
		return fmt.Errorf("%s runs already", spec.Name)
	}
	for _, folder := range []string{"logs", "pids"} {
		if err := os.MkdirAll(c.Path(folder), 0o700); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(Log(c, spec.Name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	args := append(Enter(c, spec.Node), spec.Args...)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", c.Mark()}, spec.Env...)
	if spec.Node >= 0 {
		cmd.Env = append(cmd.Env, NodeMark(spec.Node))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", spec.Name, err)
	}
	// Its end is collected, so that a process that ends at once is gone and not a zombie with a good pid file.
	go func() { _ = cmd.Wait() }()
	return remember(c, spec.Name, cmd.Process.Pid)
}

// Log is the file that holds what a process wrote.
func Log(c layout.Cluster, name string) string { return c.Path("logs", name+".log") }

// Alive says whether the process that Start started runs.
func Alive(c layout.Cluster, name string) bool {
	handle, err := open(c, name)
	if err != nil {
		return false
	}
	handle.close()
	return true
}

// Stop asks a process to end, kills it after StopLimit, and forgets it. One that is gone already is no error.
func Stop(ctx context.Context, c layout.Cluster, name string) error {
	return end(ctx, c, name, syscall.SIGTERM)
}

// Kill ends a process at once and forgets it, as a crash does.
func Kill(ctx context.Context, c layout.Cluster, name string) error {
	return end(ctx, c, name, syscall.SIGKILL)
}

func end(ctx context.Context, c layout.Cluster, name string, signal syscall.Signal) error {
	handle, err := open(c, name)
	if err == nil {
		defer handle.close()
		err = handle.end(ctx, signal, StopLimit)
	} else if errors.Is(err, errGone) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	if err := os.Remove(pidFile(c, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func pidFile(c layout.Cluster, name string) string { return c.Path("pids", name) }

func remember(c layout.Cluster, name string, pid int) error {
	started, err := startTime(pid)
	if err != nil {
		return fmt.Errorf("%s ended at once; see %s", name, Log(c, name))
	}
	return os.WriteFile(pidFile(c, name), []byte(fmt.Sprintf("%d %s\n", pid, started)), 0o600)
}

// open finds the process of a pid file; errGone when it does not run any more.
func open(c layout.Cluster, name string) (handle, error) {
	text, err := os.ReadFile(pidFile(c, name))
	if errors.Is(err, os.ErrNotExist) {
		return handle{}, errGone
	}
	if err != nil {
		return handle{}, err
	}
	number, started, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	pid, err := strconv.Atoi(number)
	if err != nil {
		return handle{}, fmt.Errorf("%s: not a pid file: %q", filepath.Base(pidFile(c, name)), text)
	}
	return openIf(pid, func() bool {
		now, err := startTime(pid)
		return err == nil && now == started
	})
}

// startTime is when a process started, in the kernel's ticks since boot, with the boot's own name.
func startTime(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	ticks, err := statStart(string(stat))
	return ticks + "@" + strings.TrimSpace(string(boot)), err
}

// statStart reads field 22 of /proc/PID/stat. The second field, the program's name, may hold spaces and brackets.
func statStart(stat string) (string, error) {
	end := strings.LastIndexByte(stat, ')')
	fields := strings.Fields(stat[end+1:])
	if end < 0 || len(fields) < 20 {
		return "", fmt.Errorf("not a stat line: %q", stat)
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return "", errGone
	}
	return fields[19], nil
}
