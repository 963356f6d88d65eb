package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"slm-swarm/tests/cluster/internal/layout"
	"slm-swarm/tests/cluster/internal/shell"
)

const cgroupRoot = "/sys/fs/cgroup"

// unified says whether the machine has only the second version of cgroups, one hierarchy for all controllers.
func unified() bool {
	_, err := os.Stat(filepath.Join(cgroupRoot, "cgroup.controllers"))
	return err == nil
}

// second is the hierarchy of the second version beside those of the first. It holds no controllers and a node needs no
// group in it, but runc makes one there for each container.
const second = "unified"

// hierarchies lists the folders below which each controller's groups are.
func hierarchies() ([]string, error) {
	if unified() {
		return []string{cgroupRoot}, nil
	}
	entries, err := os.ReadDir(cgroupRoot)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, entry := range entries {
		path := filepath.Join(cgroupRoot, entry.Name())
		if _, err := os.Stat(filepath.Join(path, "cgroup.procs")); err == nil && entry.IsDir() && entry.Name() != second {
			all = append(all, path)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no cgroup hierarchy is mounted below %s", cgroupRoot)
	}
	return all, nil
}

// makeCgroups makes a node's root group in every hierarchy.
func makeCgroups(c layout.Cluster, i int) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, hierarchy := range all {
		parent := hierarchy
		for _, path := range []string{hierarchy + c.Cgroup(), hierarchy + c.NodeCgroup(i)} {
			if unified() {
				enable := filepath.Join(parent, "cgroup.subtree_control")
				if err := os.WriteFile(enable, []byte("+cpu +cpuset +memory +pids +io"), 0o644); err != nil {
					return fmt.Errorf("hand down the cgroup controllers: %w", err)
				}
			}
			if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return err
			}
			if err := inheritCpuset(parent, path); err != nil {
				return err
			}
			parent = path
		}
	}
	return nil
}

// inheritCpuset: in the first version a new cpuset is empty, and a process cannot join an empty one.
func inheritCpuset(parent, child string) error {
	if unified() {
		return nil
	}
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		text, err := os.ReadFile(filepath.Join(parent, file))
		if errors.Is(err, fs.ErrNotExist) {
			return nil // another controller's hierarchy
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(child, file), text, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// groups lists a group and all below it, in every hierarchy, children before their parents.
func groups(group string) ([]string, error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}
	var found []string
	for _, hierarchy := range append(all, filepath.Join(cgroupRoot, second)) {
		err := filepath.WalkDir(hierarchy+group, func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // gone while we look
			}
			if err == nil && entry.IsDir() {
				found = append(found, path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.Reverse(found)
	return found, nil
}

// Members lists the processes in a group and below it.
func Members(group string) ([]int, error) {
	all, err := groups(group)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, path := range all {
		text, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil {
			continue // gone while we look
		}
		for _, line := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(line); err == nil && !slices.Contains(pids, pid) {
				pids = append(pids, pid)
			}
		}
	}
	return pids, nil
}

// RemoveCgroups removes a group and all below it; its processes are ended already, but the kernel may still be
// putting the last ones away.
func RemoveCgroups(ctx context.Context, group string) error {
	return shell.Wait(ctx, "cgroup "+group+" removed", 10*time.Second, func(context.Context) error {
		all, err := groups(group)
		if err != nil {
			return err
		}
		var failed error
		for _, path := range all {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				failed = err
			}
		}
		return failed
	})
}
