// Package lifecycle brings a whole cluster up, says how it is, and takes it down.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"slm-swarm/tests/cluster/internal/addons"
	"slm-swarm/tests/cluster/internal/control"
	"slm-swarm/tests/cluster/internal/device"
	"slm-swarm/tests/cluster/internal/images"
	"slm-swarm/tests/cluster/internal/layout"
	"slm-swarm/tests/cluster/internal/network"
	"slm-swarm/tests/cluster/internal/node"
	"slm-swarm/tests/cluster/internal/pki"
	"slm-swarm/tests/cluster/internal/shell"
)

// nodesLimit is how long the nodes may take to be Ready once kubelet runs; 10 s on two idle cores.
const nodesLimit = 3 * time.Minute

// Up makes the cluster that is wanted. One that is there already, is the same and is healthy is kept; any other of
// that name, also half of one, is taken down first. A failed Up leaves everything as it is, for its logs to be read.
func Up(ctx context.Context, wanted layout.Cluster) (layout.Cluster, error) {
	if err := wanted.Check(); err != nil {
		return wanted, err
	}
	unlock, err := Lock(wanted.Root)
	if err != nil {
		return wanted, err
	}
	defer unlock()
	if kept, healthy := reuse(ctx, wanted); healthy {
		shell.Say("cluster %s is up and healthy: kept", wanted.Name)
		return kept, nil
	}
	if err := down(ctx, wanted); err != nil {
		return wanted, fmt.Errorf("take down what was left of %s: %w", wanted.Name, err)
	}
	own, err := network.OwnAddresses()
	if err != nil {
		return wanted, err
	}
	if wanted.Slot, err = layout.FreeSlot(wanted.Root, wanted.Name, own); err != nil {
		return wanted, err
	}
	if err := wanted.Save(); err != nil {
		return wanted, err
	}
	if err := build(ctx, wanted); err != nil {
		return wanted, fmt.Errorf("%w\nthe parts that are up stay for a look (`scripts/cluster logs --name %s`); `scripts/cluster down --name %s` ends them", err, wanted.Name, wanted.Name)
	}
	return wanted, nil
}

// reuse says whether a cluster that is there is as wanted and healthy.
func reuse(ctx context.Context, wanted layout.Cluster) (layout.Cluster, bool) {
	found, err := layout.Load(wanted.Root, wanted.Name)
	if err != nil || found.Nodes != wanted.Nodes || !slices.Equal(found.Devices, wanted.Devices) {
		return found, false
	}
	for name, path := range wanted.Programs {
		if found.Programs[name] != path {
			return found, false
		}
	}
	for _, line := range Status(ctx, found) {
		if line.Wrong != nil {
			shell.Say("cluster %s is replaced: %s: %v", wanted.Name, line.What, line.Wrong)
			return found, false
		}
	}
	return found, true
}

// build starts everything, side by side where nothing depends on the other.
func build(ctx context.Context, c layout.Cluster) error {
	started := time.Now()
	step := func(what string) { shell.Say("%5.1f s  %s", time.Since(started).Seconds(), what) }
	if err := links(c); err != nil {
		return err
	}
	if err := pki.Mint(c); err != nil {
		return err
	}
	if err := network.Up(ctx, c); err != nil {
		return err
	}
	step("network and certificates made")
	archives, err := node.Archives(c)
	if err != nil {
		return err
	}
	err = together(ctx, c.Nodes+2, func(ctx context.Context, i int) error {
		switch {
		case i == c.Nodes:
			return control.Up(ctx, c)
		case i == c.Nodes+1:
			return addons.StartRegistry(ctx, c)
		}
		if err := node.Runtime(ctx, c, i); err != nil {
			return err
		}
		return images.Load(ctx, c, archives, func(node int) bool { return node == i })
	})
	if err != nil {
		return err
	}
	step("API server, registry and container runtimes answer, images loaded")
	if err := join(ctx, c); err != nil {
		return err
	}
	step("nodes Ready")
	if err := addons.DNSReady(ctx, c); err != nil {
		return err
	}
	step("DNS available")
	return nil
}

func join(ctx context.Context, c layout.Cluster) error {
	for i := range c.Nodes {
		if err := node.Join(c, i); err != nil {
			return err
		}
	}
	if err := addons.Apply(ctx, c); err != nil {
		return err
	}
	for _, d := range c.Devices {
		if err := device.Start(c, d); err != nil {
			return err
		}
	}
	return addons.NodesReady(ctx, c, nodesLimit)
}

// links makes bin/, so that a shell finds the clients by their names.
func links(c layout.Cluster) error {
	if err := os.MkdirAll(c.Path("bin"), 0o755); err != nil {
		return err
	}
	for name, program := range map[string]string{"kubectl": "kube", "helm": "helm", "oras": "oras"} {
		if err := os.Symlink(c.Program(program), c.Path("bin", name)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// together runs n pieces of work at once; the first that fails ends the others and is what is told.
func together(ctx context.Context, n int, work func(context.Context, int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			if err := work(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// Lock keeps two harnesses from changing clusters at once. The lock is the folder itself, so that nothing is left.
func Lock(root string) (unlock func(), err error) {
	for {
		if err := os.MkdirAll(root, 0o755); err != nil {
			return nil, err
		}
		release, current, err := lockFolder(filepath.Clean(root))
		if err != nil || current {
			return release, err
		}
		release() // a `down` removed the folder while we waited for it
	}
}
