package lifecycle

import (
	"context"
	"errors"
	"time"

	"slm-swarm/tests/cluster/internal/addons"
	"slm-swarm/tests/cluster/internal/control"
	"slm-swarm/tests/cluster/internal/device"
	"slm-swarm/tests/cluster/internal/layout"
	"slm-swarm/tests/cluster/internal/node"
	"slm-swarm/tests/cluster/internal/process"
)

// Line is how one part is. Wrong is nil when all is well.
type Line struct {
	What  string
	Wrong error
}

var errDead = errors.New("does not run")

// Status looks at every part: each process, and what the API server, the registry and the nodes say of themselves.
func Status(ctx context.Context, c layout.Cluster) []Line {
	var lines []Line
	for _, name := range Processes(c) {
		line := Line{What: name}
		if !process.Alive(c, name) {
			line.Wrong = errDead
		}
		lines = append(lines, line)
	}
	api := control.Answers(ctx, c)
	lines = append(lines, Line{"API server answers", api}, Line{"registry answers", addons.RegistryAnswers(ctx, c)})
	if api != nil {
		return lines
	}
	_, dns := addons.Kubectl(ctx, c, "", "-n", "kube-system", "wait", "--for=condition=Available", "--timeout=1s", "deployment/coredns")
	return append(lines, Line{"nodes are Ready", addons.NodesReady(ctx, c, time.Second)}, Line{"DNS is available", dns})
}

// Processes names every process that a whole cluster has.
func Processes(c layout.Cluster) []string {
	names := append([]string{}, control.Processes...)
	names = append(names, "registry")
	for i := range c.Nodes {
		names = append(names, node.Processes(i)...)
	}
	for _, d := range c.Devices {
		names = append(names, d.Process())
	}
	return names
}

// ReturnNode brings a lost node back, with its devices, and waits until it is Ready.
func ReturnNode(ctx context.Context, c layout.Cluster, i int) error {
	started := time.Now()
	if err := node.Return(ctx, c, i); err != nil {
		return err
	}
	for _, d := range c.Devices {
		if d.Node == i {
			if err := device.Start(c, d); err != nil {
				return err
			}
		}
	}
	return addons.NodeReady(ctx, c, i, started, nodesLimit)
}
