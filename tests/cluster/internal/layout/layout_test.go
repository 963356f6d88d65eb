package layout

import (
	"net/netip"
	"testing"
)

func TestFreeSlot(t *testing.T) {
	all := make([]int, SlotsMax)
	for i := range all {
		all[i] = i
	}
	cases := []struct {
		name string
		used []int
		own  []string
		want int
	}{
		{"first", nil, []string{"192.0.2.2", "::1"}, 0},
		{"beside others", []int{0, 2}, nil, 1},
		{"the machine is in the nodes' range", nil, []string{"10.200.0.7"}, 1},
		{"the machine is in the services' and the pods' range", nil, []string{"10.220.3.4", "10.241.9.9"}, 2},
		{"none", all, nil, -1},
	}
	for _, c := range cases {
		var own []netip.Addr
		for _, text := range c.own {
			own = append(own, netip.MustParseAddr(text))
		}
		got, err := freeSlot(c.used, own)
		if (err != nil) != (c.want < 0) || err == nil && got != c.want {
			t.Errorf("%s: slot %d, %v; want %d", c.name, got, err, c.want)
		}
	}
}

func TestParseDevice(t *testing.T) {
	for _, good := range []string{"nvidia.com/gpu=node1:1", "npu.intel.com/accel=node0:4"} {
		device, err := ParseDevice(good)
		if err != nil || device.String() != good {
			t.Errorf("%s: read as %s, %v", good, device, err)
		}
	}
	for _, bad := range []string{"", "gpu=node1:1", "nvidia.com/gpu", "nvidia.com/gpu=node1", "nvidia.com/gpu=1:1", "nvidia.com/gpu=node1:0", "nvidia.com/gpu=node-1:1", "nvidia.com/gpu=node1:65"} {
		if device, err := ParseDevice(bad); err == nil {
			t.Errorf("%q: read as %s, want an error", bad, device)
		}
	}
}

func TestCheck(t *testing.T) {
	good := Cluster{Name: "e2e", Root: "/var/lib/slm-swarm-cluster", Nodes: 2}
	if err := good.Check(); err != nil {
		t.Errorf("a good plan: %v", err)
	}
	for name, change := range map[string]func(*Cluster){
		"name":   func(c *Cluster) { c.Name = "../etc" },
		"nodes":  func(c *Cluster) { c.Nodes = 0 },
		"hidden": func(c *Cluster) { c.Root = "/run/clusters" },
		"device": func(c *Cluster) { c.Devices = []Device{{Resource: "nvidia.com/gpu", Node: 2, Count: 1}} },
	} {
		bad := good
		change(&bad)
		if bad.Check() == nil {
			t.Errorf("a bad %s was taken", name)
		}
	}
}

func TestSaveLoad(t *testing.T) {
	want := Cluster{Name: "e2e", Root: t.TempDir(), Slot: 3, Nodes: 2, Programs: map[string]string{"kube": "/x/kube"}}
	if _, err := Load(want.Root, "e2e"); err == nil {
		t.Error("a cluster that is not there was loaded")
	}
	if err := want.Save(); err != nil {
		t.Fatal(err)
	}
	got, err := Load(want.Root, "e2e")
	if err != nil || got.Slot != 3 || got.Program("kube") != "/x/kube" {
		t.Errorf("loaded %+v, %v", got, err)
	}
}
