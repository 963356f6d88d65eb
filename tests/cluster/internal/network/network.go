// Package network builds the cluster's network: one namespace for the control plane, with a bridge, and one for each
// node, cabled to it. The machine has a cable into the bridge too, and routes to the pods and Services, so that a
// client outside the pods can call them.
//
// Nothing leaves the machine: every default route leads to an address that nobody has, and the machine does not
// forward what comes in by its cable, whatever its other settings are.
package network

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"slm-swarm/tests/cluster/internal/layout"
	"slm-swarm/tests/cluster/internal/shell"
)

const bridge = "cables"

// Up makes the namespaces, cables and routes.
func Up(ctx context.Context, c layout.Cluster) error {
	control := c.ControlNS()
	err := shell.All(ctx,
		words("ip netns add", control),
		words("ip -n", control, "link set lo up"),
		// There is no link type `dummy` on small kernels; a bridge serves.
		words("ip -n", control, "link add", bridge, "type bridge"),
		words("ip -n", control, "addr add", c.ControlIP()+"/24 dev", bridge),
		words("ip -n", control, "link set", bridge, "up"),
		words("ip -n", control, "route add default via", c.NowhereIP()),
		words("ip link add", c.HostLink(), "type veth peer name machine netns", control),
		words("ip -n", control, "link set machine master", bridge, "up"),
		words("ip addr add", c.HostIP()+"/24 dev", c.HostLink()),
	)
	if err != nil {
		return err
	}
	forwarding := fmt.Sprintf("/proc/sys/net/ipv4/conf/%s/forwarding", c.HostLink())
	if err := os.WriteFile(forwarding, []byte("0"), 0o644); err != nil {
		return fmt.Errorf("keep the cluster's packets on the machine: %w", err)
	}
	if err := shell.Run(ctx, words("ip link set", c.HostLink(), "up")...); err != nil {
		return err
	}
	for i := range c.Nodes {
		if err := addNode(ctx, c, i); err != nil {
			return err
		}
	}
	return Route(ctx, c, func(int) bool { return true })
}

func addNode(ctx context.Context, c layout.Cluster, i int) error {
	control, node, cable := c.ControlNS(), c.NodeNS(i), layout.NodeName(i)
	err := shell.All(ctx,
		words("ip netns add", node),
		words("ip -n", node, "link set lo up"),
		words("ip -n", control, "link add", cable, "type veth peer name eth0 netns", node),
		words("ip -n", control, "link set", cable, "master", bridge, "up"),
		words("ip -n", node, "addr add", c.NodeIP(i)+"/24 dev eth0"),
		words("ip -n", node, "link set eth0 up"),
		words("ip -n", node, "route add default via", c.NowhereIP()),
		words("nsenter --net=/run/netns/"+node, "sysctl -q -w net.ipv4.ip_forward=1"),
	)
	for other := range c.Nodes {
		if err == nil && other != i {
			err = shell.Run(ctx, words("ip -n", node, "route add", c.PodCIDR(other), "via", c.NodeIP(other))...)
		}
	}
	return err
}

// Route points the machine's and the control plane's routes at the nodes: each node's pods by that node, and the
// Services by the first node that is there, whose kube-proxy then picks the pod.
func Route(ctx context.Context, c layout.Cluster, there func(node int) bool) error {
	services := -1
	for i := range c.Nodes {
		if there(i) && services < 0 {
			services = i
		}
		if err := routeBoth(ctx, c, c.PodCIDR(i), i); err != nil {
			return err
		}
	}
	if services < 0 {
		return nil // no node is there: nobody would answer
	}
	return routeBoth(ctx, c, c.ServiceCIDR(), services)
}

func routeBoth(ctx context.Context, c layout.Cluster, to string, node int) error {
	return shell.All(ctx,
		words("ip route replace", to, "via", c.NodeIP(node), "dev", c.HostLink()),
		words("ip -n", c.ControlNS(), "route replace", to, "via", c.NodeIP(node)),
	)
}

// Cable plugs a node's cable in or pulls it.
func Cable(ctx context.Context, c layout.Cluster, node int, plugged bool) error {
	state := "down"
	if plugged {
		state = "up"
	}
	return shell.Run(ctx, words("ip -n", c.ControlNS(), "link set", layout.NodeName(node), state)...)
}

// Down removes whatever of it is there. The machine's cable goes first: with it go its routes.
func Down(ctx context.Context, c layout.Cluster) error {
	if _, err := net.InterfaceByName(c.HostLink()); err == nil {
		if err := shell.Run(ctx, words("ip link del", c.HostLink())...); err != nil {
			return err
		}
	}
	spaces := []string{c.ControlNS()}
	for i := range c.Nodes {
		spaces = append(spaces, c.NodeNS(i))
	}
	for _, space := range spaces {
		if _, err := os.Lstat("/run/netns/" + space); err == nil {
			if err := shell.Run(ctx, words("ip netns del", space)...); err != nil {
				return err
			}
		}
	}
	return nil
}

// OwnAddresses lists the machine's addresses, which the cluster's ranges must not hold.
func OwnAddresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var own []netip.Addr
	for _, address := range all {
		if prefix, err := netip.ParsePrefix(address.String()); err == nil {
			own = append(own, prefix.Addr())
		}
	}
	return own, nil
}

// words splits a command written as one would type it; no part of it holds a space of its own.
func words(parts ...string) []string { return strings.Fields(strings.Join(parts, " ")) }
