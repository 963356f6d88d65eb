// Package layout is the plan of a cluster: its names, addresses and paths. Nothing here touches the machine but Save
// and Load, so that `down` finds the same names that `up` used, whatever became of `up`.
package layout

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Limits: an address plan has room for this many clusters beside each other, and nodes in one.
const (
	SlotsMax = 16
	NodesMax = 9
)

// Cluster is one cluster. Its file is written before anything else is made.
type Cluster struct {
	Name string `json:"name"`
	// Root holds the state of all clusters, one folder each.
	Root string `json:"root"`
	// Slot picks the address ranges, so that clusters beside each other do not overlap.
	Slot    int      `json:"slot"`
	Nodes   int      `json:"nodes"`
	Devices []Device `json:"devices,omitempty"`
	// Programs gives the path of each built program: what runs, whatever is built later.
	Programs map[string]string `json:"programs"`
}

var names = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)

// Check says what is wrong with the caller's wishes.
func (c Cluster) Check() error {
	if !names.MatchString(c.Name) {
		return fmt.Errorf("cluster name %q: use up to 31 lower-case letters, digits and dashes, a letter first", c.Name)
	}
	if c.Nodes < 1 || c.Nodes > NodesMax {
		return fmt.Errorf("%d nodes: use 1 to %d", c.Nodes, NodesMax)
	}
	for _, hidden := range []string{"/run/", "/var/run/", "/var/log/", "/var/lib/kubelet/", "/var/lib/cni/"} {
		if strings.HasPrefix(c.Dir()+"/", hidden) {
			return fmt.Errorf("state folder %s: each node has a %s of its own, which would hide it; choose another SLM_CLUSTER_DIR", c.Dir(), hidden)
		}
	}
	for _, device := range c.Devices {
		if device.Node >= c.Nodes {
			return fmt.Errorf("device %s: there is no node%d among %d nodes", device, device.Node, c.Nodes)
		}
	}
	return nil
}

// Dir is the one folder that holds all state of the cluster.
func (c Cluster) Dir() string { return filepath.Join(c.Root, c.Name) }

// Path is a path inside the state folder.
func (c Cluster) Path(parts ...string) string {
	return filepath.Join(append([]string{c.Dir()}, parts...)...)
}

// Program is the path of a built program.
func (c Cluster) Program(name string) string { return c.Programs[name] }

// Kubeconfig is the admin's.
func (c Cluster) Kubeconfig() string { return c.Path("kubeconfig") }

// NodeName is the node's name in Kubernetes.
func NodeName(i int) string { return fmt.Sprintf("node%d", i) }

// NodeIndex is the reverse of NodeName.
func (c Cluster) NodeIndex(name string) (int, error) {
	for i := range c.Nodes {
		if NodeName(i) == name {
			return i, nil
		}
	}
	return 0, fmt.Errorf("cluster %s has no node %q; it has node0 to %s", c.Name, name, NodeName(c.Nodes-1))
}

// MarkName is the environment variable that every process of any cluster carries.
const MarkName = "SLM_CLUSTER_PROCESS"

// Mark is that variable with this cluster's value.
func (c Cluster) Mark() string { return MarkName + "=" + c.Dir() }

// Cgroup is the cluster's folder in every cgroup hierarchy.
func (c Cluster) Cgroup() string { return "/slm-cluster-" + c.Name }

// NodeCgroup is one node's; each kubelet removes every pod cgroup below its own root that it does not know.
func (c Cluster) NodeCgroup(i int) string { return c.Cgroup() + "/" + NodeName(i) }

// Save writes the plan into the state folder.
func (c Cluster) Save() error {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := c.claim(); err != nil {
		return err
	}
	part := c.Path("cluster.json.part")
	if err := os.WriteFile(part, text, 0o600); err != nil {
		return err
	}
	return os.Rename(part, c.Path("cluster.json"))
}

// claim makes the state folder, or makes sure that it is one: `down` removes all of it.
func (c Cluster) claim() error {
	if err := os.MkdirAll(c.Dir(), 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(c.Dir())
	if err != nil {
		return err
	}
	ours := len(entries) == 0
	for _, entry := range entries {
		ours = ours || strings.HasPrefix(entry.Name(), "cluster.json")
	}
	if !ours {
		return fmt.Errorf("%s holds something else than a cluster; choose another SLM_CLUSTER_DIR or --name", c.Dir())
	}
	return nil
}

// Forget removes the plan, and the folder when nothing else is in it.
func (c Cluster) Forget() error {
	for _, path := range []string{c.Path("cluster.json.part"), c.Path("cluster.json"), c.Dir()} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// ErrNone says that there is no cluster of that name.
var ErrNone = errors.New("no such cluster; bring it up with `scripts/cluster up`")

// Load reads the plan of a cluster that is up, or half up.
func Load(root, name string) (Cluster, error) {
	c := Cluster{Name: name, Root: root}
	text, err := os.ReadFile(c.Path("cluster.json"))
	if errors.Is(err, os.ErrNotExist) {
		return c, fmt.Errorf("%s in %s: %w", name, root, ErrNone)
	}
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, fmt.Errorf("%s: %w; it was changed by hand", c.Path("cluster.json"), err)
	}
	c.Name, c.Root = name, root
	return c, nil
}
