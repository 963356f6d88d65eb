package main

import (
	"context"
	"fmt"
	"slices"

	"slm-swarm/tests/cluster/internal/addons"
	"slm-swarm/tests/cluster/internal/control"
	"slm-swarm/tests/cluster/internal/device"
	"slm-swarm/tests/cluster/internal/layout"
	"slm-swarm/tests/cluster/internal/lifecycle"
	"slm-swarm/tests/cluster/internal/node"
	"slm-swarm/tests/cluster/internal/process"
)

// Faults for the tests: one part is stopped, the rest runs on. Each command returns when the part is gone, or when it
// serves again.

func apiserver(ctx context.Context, opts options) error {
	return change(opts, 0,
		// Asked to end it would first wait for its open watches, which do not end.
		func(c layout.Cluster, _ string) error { return process.Kill(ctx, c, "apiserver") },
		func(c layout.Cluster, _ string) error {
			if err := control.Start(c, "apiserver"); err != nil {
				return err
			}
			return control.Ready(ctx, c)
		})
}

func registry(ctx context.Context, opts options) error {
	return change(opts, 0,
		func(c layout.Cluster, _ string) error { return process.Stop(ctx, c, "registry") },
		func(c layout.Cluster, _ string) error { return addons.StartRegistry(ctx, c) })
}

func nodeCommand(ctx context.Context, opts options) error {
	withIndex := func(act func(context.Context, layout.Cluster, int) error) func(layout.Cluster, string) error {
		return func(c layout.Cluster, name string) error {
			i, err := c.NodeIndex(name)
			if err != nil {
				return err
			}
			return act(ctx, c, i)
		}
	}
	return change(opts, 1, withIndex(node.Lose), withIndex(lifecycle.ReturnNode))
}

func deviceCommand(ctx context.Context, opts options) error {
	return change(opts, 1,
		func(c layout.Cluster, text string) error {
			d, err := layout.ParseDevice(text)
			if err != nil {
				return err
			}
			if err := process.Stop(ctx, c, d.Process()); err != nil {
				return err
			}
			c.Devices = slices.DeleteFunc(c.Devices, func(other layout.Device) bool { return other.Process() == d.Process() })
			return c.Save()
		},
		func(c layout.Cluster, text string) error {
			d, err := layout.ParseDevice(text)
			if err != nil {
				return err
			}
			c.Devices = append(c.Devices, d)
			if err := c.Check(); err != nil {
				return err
			}
			if err := device.Start(c, d); err != nil {
				return err
			}
			return c.Save()
		})
}

// change reads `stop|start [WHAT]` and does it while no other harness changes the cluster.
func change(opts options, operands int, stop, start func(c layout.Cluster, what string) error) error {
	if len(opts.args) != 1+operands || opts.args[0] != "stop" && opts.args[0] != "start" {
		return fmt.Errorf("write stop or start%s", map[int]string{0: "", 1: ", and what"}[operands])
	}
	if _, err := layout.Load(opts.root, opts.name); err != nil {
		return err
	}
	unlock, err := lifecycle.Lock(opts.root)
	if err != nil {
		return err
	}
	defer unlock()
	c, err := layout.Load(opts.root, opts.name)
	if err != nil {
		return err
	}
	what := opts.args[len(opts.args)-1]
	if opts.args[0] == "stop" {
		return stop(c, what)
	}
	return start(c, what)
}
