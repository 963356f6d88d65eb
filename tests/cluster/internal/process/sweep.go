package process

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"slm-swarm/tests/cluster/internal/layout"
)

// sweepsMax bounds how often a sweep looks again for what was started while it killed.
const sweepsMax = 50

// Sweep kills every process that carries all the marks in its environment or is in one of the cgroups, and returns
// when there is none. `inCgroups` lists the pids of the cgroups at the time of the call: pods' processes, which carry
// no mark.
func Sweep(ctx context.Context, marks []string, inCgroups func() ([]int, error)) error {
	for range sweepsMax {
		killed, err := sweepOnce(ctx, marks, inCgroups)
		if err != nil {
			return err
		}
		if killed == 0 {
			return nil
		}
	}
	return fmt.Errorf("processes of %s keep coming back; look for them with `grep -l %s /proc/*/environ`", marks[0], marks[0])
}

func sweepOnce(ctx context.Context, marks []string, inCgroups func() ([]int, error)) (int, error) {
	var found []handle
	defer func() {
		for _, h := range found {
			h.close()
		}
	}()
	kill := func(pid int, meant func() bool) error {
		h, err := openIf(pid, meant)
		if err != nil {
			return nil // gone in the meantime
		}
		found = append(found, h)
		return h.signal(syscall.SIGKILL)
	}
	marked, err := Marked(marks)
	if err != nil {
		return 0, err
	}
	for _, pid := range marked {
		if err := kill(pid, func() bool { return hasMarks(pid, marks) }); err != nil {
			return 0, err
		}
	}
	members, err := inCgroups()
	if err != nil {
		return 0, err
	}
	for _, pid := range members {
		still := func() bool {
			now, err := inCgroups()
			return err == nil && slices.Contains(now, pid)
		}
		if err := kill(pid, still); err != nil {
			return 0, err
		}
	}
	for _, h := range found {
		if gone, err := h.wait(ctx, StopLimit); err != nil {
			return 0, err
		} else if !gone {
			return 0, fmt.Errorf("process %d was killed and does not end within %s", h.pid, StopLimit)
		}
	}
	return len(found), nil
}

// Marked lists the processes that carry all the marks, without the caller.
func Marked(marks []string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err == nil && pid != os.Getpid() && hasMarks(pid, marks) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// AnyMarked says whether any cluster's process runs.
func AnyMarked() (bool, error) {
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(environs, func(path string) bool {
		environ, err := os.ReadFile(path)
		return err == nil && slices.ContainsFunc(bytes.Split(environ, []byte{0}), func(v []byte) bool {
			return bytes.HasPrefix(v, []byte(layout.MarkName+"="))
		})
	}), nil
}

func hasMarks(pid int, marks []string) bool {
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return false
	}
	return environHas(environ, marks)
}

func environHas(environ []byte, marks []string) bool {
	for _, mark := range marks {
		if !slices.ContainsFunc(bytes.Split(environ, []byte{0}), func(v []byte) bool { return string(v) == mark }) {
			return false
		}
	}
	return len(environ) > 0
}

// Tail is the end of a process's log.
func Tail(c layout.Cluster, name string, lines int) string {
	text, err := os.ReadFile(Log(c, name))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
