// Package node brings up a node: namespaces and cgroups of its own, containerd, kubelet and kube-proxy.
package node

import (
	"context"
	"fmt"
	"os"
	"time"

	"slm-swarm/tests/cluster/internal/images"
	"slm-swarm/tests/cluster/internal/layout"
	"slm-swarm/tests/cluster/internal/network"
	"slm-swarm/tests/cluster/internal/pki"
	"slm-swarm/tests/cluster/internal/process"
	"slm-swarm/tests/cluster/internal/shell"
)

// runtimeLimit is how long a container runtime may take to answer.
const runtimeLimit = 60 * time.Second

// parts are a node's processes, in the order of their start.
var parts = []string{"containerd", "kubelet", "proxy"}

// Processes are the names of a node's processes.
func Processes(i int) []string {
	var names []string
	for _, part := range parts {
		names = append(names, layout.NodeName(i)+"-"+part)
	}
	return names
}

// Runtime makes the node and starts its container runtime, which needs no API server yet.
func Runtime(ctx context.Context, c layout.Cluster, i int) error {
	if err := makeCgroups(c, i); err != nil {
		return fmt.Errorf("%s: %w", layout.NodeName(i), err)
	}
	if err := makeMounts(ctx, c, i); err != nil {
		return fmt.Errorf("%s: %w", layout.NodeName(i), err)
	}
	if err := writeConfigs(c, i); err != nil {
		return err
	}
	name := layout.NodeName(i) + "-containerd"
	err := process.Start(c, process.Spec{
		Name: name, Node: i,
		Args: []string{"containerd", "--config", c.Path(layout.NodeName(i), "containerd.toml"), "--log-level", "warn"},
	})
	if err != nil {
		return err
	}
	return shell.Wait(ctx, name+" answers", runtimeLimit, func(ctx context.Context) error {
		return shell.Run(ctx, "ctr", "--connect-timeout", "2s", "--address", c.Containerd(i), "version")
	})
}

// Join starts what makes a node of it: kubelet and kube-proxy.
func Join(c layout.Cluster, i int) error {
	name := layout.NodeName(i)
	err := process.Start(c, process.Spec{Name: name + "-kubelet", Node: i, Args: []string{
		c.Program("kube"), "kubelet",
		"--config=" + c.Path(name, "kubelet.yaml"),
		"--kubeconfig=" + pki.Kubeconfig(c, name),
		"--hostname-override=" + name,
		"--node-ip=" + c.NodeIP(i),
	}})
	if err != nil {
		return err
	}
	return process.Start(c, process.Spec{Name: name + "-proxy", Node: i, Args: []string{
		c.Program("kube"), "kube-proxy",
		"--kubeconfig=" + pki.Kubeconfig(c, "proxy"),
		"--hostname-override=" + name,
		"--proxy-mode=nftables",
		"--cluster-cidr=" + c.PodsCIDR(),
		// The machine's own connection tracking is not the cluster's to change, and may be read-only.
		"--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0",
	}})
}

// Lose takes a node away at once, as a power cut does: its cable is pulled and all its processes are killed, the
// pods' too.
func Lose(ctx context.Context, c layout.Cluster, i int) error {
	if err := network.Cable(ctx, c, i, false); err != nil {
		return err
	}
	marks := []string{c.Mark(), process.NodeMark(i)}
	members := func() ([]int, error) { return Members(c.NodeCgroup(i)) }
	if err := process.Sweep(ctx, marks, members); err != nil {
		return err
	}
	if err := dropMounts(c, i); err != nil {
		return err
	}
	for _, name := range Processes(i) {
		if err := process.Stop(ctx, c, name); err != nil {
			return err
		}
	}
	return network.Route(ctx, c, func(node int) bool { return node != i && Up(c, node) })
}

// Return brings a lost node back, as a boot does: /run is empty, images and the kubelet's folder are as they were.
func Return(ctx context.Context, c layout.Cluster, i int) error {
	if Up(c, i) {
		return fmt.Errorf("%s is up already", layout.NodeName(i))
	}
	if err := os.RemoveAll(c.Path(layout.NodeName(i), "run")); err != nil {
		return err
	}
	if err := RemoveCgroups(ctx, c.NodeCgroup(i)); err != nil {
		return err
	}
	if err := network.Cable(ctx, c, i, true); err != nil {
		return err
	}
	if err := Runtime(ctx, c, i); err != nil {
		return err
	}
	if err := Join(c, i); err != nil {
		return err
	}
	return network.Route(ctx, c, func(node int) bool { return Up(c, node) })
}

// Up says whether all processes of a node run.
func Up(c layout.Cluster, i int) bool {
	for _, name := range Processes(i) {
		if !process.Alive(c, name) {
			return false
		}
	}
	return true
}

// Archives are the images that every node needs: the pods' sandbox and the DNS server.
func Archives(c layout.Cluster) ([]string, error) {
	var archives []string
	for _, program := range []string{"pause", "coredns"} {
		archive, err := images.Archive(c, program)
		if err != nil {
			return nil, err
		}
		archives = append(archives, archive)
	}
	return archives, nil
}
