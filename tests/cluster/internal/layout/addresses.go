package layout

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
)

// Addresses of slot S. The services' and pods' ranges are apart from the nodes' for 16 slots.
//
//	10.200.S.0/24       the machine (.1), the control plane and registry (.10), nodes (.20 and up)
//	10.(220+S).0.0/16   Services; .0.1 is `kubernetes`, .0.10 the DNS server
//	10.(240+S).N.0/24   pods of node N

// HostIP is the machine itself, seen from the cluster.
func (c Cluster) HostIP() string { return fmt.Sprintf("10.200.%d.1", c.Slot) }

// ControlIP serves the API and the registry.
func (c Cluster) ControlIP() string { return fmt.Sprintf("10.200.%d.10", c.Slot) }

// NodeIP is the node's only address.
func (c Cluster) NodeIP(i int) string { return fmt.Sprintf("10.200.%d.%d", c.Slot, 20+i) }

// NowhereIP is the default gateway of every namespace, and no machine has it.
func (c Cluster) NowhereIP() string { return fmt.Sprintf("10.200.%d.254", c.Slot) }

// PodsCIDR holds all pods.
func (c Cluster) PodsCIDR() string { return fmt.Sprintf("10.%d.0.0/16", 240+c.Slot) }

// PodCIDR holds one node's pods.
func (c Cluster) PodCIDR(i int) string { return fmt.Sprintf("10.%d.%d.0/24", 240+c.Slot, i) }

// ServiceCIDR holds the Services' cluster addresses.
func (c Cluster) ServiceCIDR() string { return fmt.Sprintf("10.%d.0.0/16", 220+c.Slot) }

// APIServiceIP is the address of the Service `kubernetes`.
func (c Cluster) APIServiceIP() string { return fmt.Sprintf("10.%d.0.1", 220+c.Slot) }

// DNSIP is the address of the Service `kube-dns`.
func (c Cluster) DNSIP() string { return fmt.Sprintf("10.%d.0.10", 220+c.Slot) }

// APIServer is the API's address for everyone: processes, pods and the machine.
func (c Cluster) APIServer() string { return "https://" + c.ControlIP() + ":6443" }

// Registry is the registry's address outside the pods; RegistryName the one that pods use.
func (c Cluster) Registry() string { return c.ControlIP() + ":5000" }

// RegistryName is stable: a cluster in another slot has it too.
const RegistryName = "registry.slm-registry.svc.cluster.local:5000"

// ControlNS and NodeNS are network namespaces by the names that `ip netns` shows.
func (c Cluster) ControlNS() string { return "slm-" + c.Name + "-control" }

// NodeNS is one node's network namespace.
func (c Cluster) NodeNS(i int) string { return "slm-" + c.Name + "-" + NodeName(i) }

// HostLink is the machine's end of the cable into the cluster.
func (c Cluster) HostLink() string { return fmt.Sprintf("slmcluster%d", c.Slot) }

// Containerd is a node's container runtime socket, as the machine sees it.
func (c Cluster) Containerd(i int) string {
	return c.Path(NodeName(i), "run", "containerd", "containerd.sock")
}

// FreeSlot picks the first slot that no other cluster has and whose ranges hold none of the machine's own addresses.
func FreeSlot(root, name string, own []netip.Addr) (int, error) {
	files, err := filepath.Glob(filepath.Join(root, "*", "cluster.json"))
	if err != nil {
		return 0, err
	}
	var used []int
	for _, file := range files {
		other := filepath.Base(filepath.Dir(file))
		if other == name {
			continue
		}
		if c, err := Load(root, other); err == nil {
			used = append(used, c.Slot)
		} else if !os.IsNotExist(err) {
			return 0, err
		}
	}
	return freeSlot(used, own)
}

func freeSlot(used []int, own []netip.Addr) (int, error) {
slots:
	for slot := range SlotsMax {
		for _, other := range used {
			if other == slot {
				continue slots
			}
		}
		c := Cluster{Slot: slot}
		for _, text := range []string{c.HostIP() + "/24", c.ServiceCIDR(), c.PodsCIDR()} {
			prefix := netip.MustParsePrefix(text).Masked()
			for _, address := range own {
				if prefix.Contains(address) {
					continue slots
				}
			}
		}
		return slot, nil
	}
	return 0, fmt.Errorf("no free address range among %d: end another cluster with `scripts/cluster down --name NAME`", SlotsMax)
}
