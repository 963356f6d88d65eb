package lifecycle

import (
	"context"
	"errors"
	"os"
	"syscall"

	"slm-swarm/tests/cluster/internal/layout"
	"slm-swarm/tests/cluster/internal/network"
	"slm-swarm/tests/cluster/internal/node"
	"slm-swarm/tests/cluster/internal/process"
)

// Down ends and removes everything of a cluster: whole, half, crashed, or not there at all.
func Down(ctx context.Context, root, name string) error {
	named := layout.Cluster{Name: name, Root: root, Nodes: 1}
	if err := named.Check(); err != nil {
		return err
	}
	if _, err := os.Stat(root); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	unlock, err := Lock(root)
	if err != nil {
		return err
	}
	defer unlock()
	if err := down(ctx, named); err != nil {
		return err
	}
	// The last one out removes the folder of all clusters.
	if err := os.Remove(root); err != nil && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.EEXIST) {
		return err
	}
	return nil
}

// down goes the way back: processes, control groups, mounts, network, files. The plan goes last, so that a `down` that
// is cut short can be done again.
func down(ctx context.Context, named layout.Cluster) error {
	c, err := layout.Load(named.Root, named.Name)
	if errors.Is(err, layout.ErrNone) {
		return abandon(named)
	}
	if err != nil {
		return err
	}
	members := func() ([]int, error) { return node.Members(c.Cgroup()) }
	if err := process.Sweep(ctx, []string{c.Mark()}, members); err != nil {
		return err
	}
	if err := node.RemoveCgroups(ctx, c.Cgroup()); err != nil {
		return err
	}
	if err := node.RemoveMounts(c); err != nil {
		return err
	}
	if err := network.Down(ctx, c); err != nil {
		return err
	}
	return removeFiles(c)
}

// abandon: the plan is written before anything else is made, so without one there is at most half a plan.
func abandon(named layout.Cluster) error {
	if _, err := os.Stat(named.Path("cluster.json.part")); err != nil {
		return nil
	}
	return named.Forget()
}

func removeFiles(c layout.Cluster) error {
	entries, err := os.ReadDir(c.Dir())
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Name() == "cluster.json" {
			continue
		}
		if err := os.RemoveAll(c.Path(entry.Name())); err != nil {
			return err
		}
	}
	return c.Forget()
}
