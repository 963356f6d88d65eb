package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"slm-swarm/tests/cluster/internal/layout"
	"slm-swarm/tests/cluster/internal/process"
	"slm-swarm/tests/cluster/internal/shell"
)

// own are the folders that a node has for itself. kubelet's device plugins and containerd's shims meet at fixed
// places below them, so that two nodes could not share them.
var own = []struct{ inside, outside string }{
	{"/run", "run"},
	{"/var/log", "log"},
	{"/var/lib/kubelet", "kubelet"},
	{"/var/lib/cni", "cni"},
}

// makeMounts makes the node's mount namespace and keeps it by a file. Whatever pods mount is in there alone, and gone
// with it.
func makeMounts(ctx context.Context, c layout.Cluster, i int) error {
	if err := keepNamespaces(ctx, c); err != nil {
		return err
	}
	file := process.MountNS(c, i)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	// What the machine unmounts goes away here too; what is mounted here is not seen there.
	script := []string{"mount --make-rshared /"}
	for _, folder := range own {
		source := c.Path(layout.NodeName(i), folder.outside)
		for _, path := range []string{source, folder.inside} {
			if err := os.MkdirAll(path, 0o755); err != nil {
				return err
			}
		}
		script = append(script, fmt.Sprintf("mount --bind '%s' %s", source, folder.inside))
	}
	return shell.Run(ctx, "unshare", "--mount="+file, "--propagation", "slave", "sh", "-ec", strings.Join(script, "\n"))
}

// keepNamespaces makes ns/ a mount that is passed on to nobody: only in such a folder can a file keep a mount
// namespace.
func keepNamespaces(ctx context.Context, c layout.Cluster) error {
	dir := c.Path("ns")
	mounts, err := mountsBelow(dir)
	if err != nil || len(mounts) > 0 {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return shell.All(ctx, []string{"mount", "--bind", dir, dir}, []string{"mount", "--make-private", dir})
}

// dropMounts lets go of a node's mount namespace; its processes are ended already.
func dropMounts(c layout.Cluster, i int) error {
	return unmountBelow(process.MountNS(c, i))
}

// RemoveMounts unmounts everything in the cluster's folder and, when no other cluster is up, removes the mount points
// that Debian does not have, if nobody else put anything there. The kernel would let us remove them under another
// cluster's nodes too, and unmount them there.
func RemoveMounts(c layout.Cluster) error {
	if err := unmountBelow(c.Dir()); err != nil {
		return err
	}
	others, err := process.AnyMarked()
	if err != nil || others {
		return err
	}
	for _, path := range []string{"/var/lib/kubelet", "/var/lib/cni"} {
		err := os.Remove(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTEMPTY) && !errors.Is(err, syscall.EBUSY) {
			return err
		}
	}
	return nil
}

func unmountBelow(dir string) error {
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	for i := len(mounts) - 1; i >= 0; i-- {
		if err := syscall.Unmount(mounts[i], syscall.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", mounts[i], err)
		}
	}
	return nil
}

// mountsBelow lists the machine's mount points at or below a folder, in the order in which they were mounted.
func mountsBelow(dir string) ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return below(string(text), real), err
}

func below(mountinfo, dir string) []string {
	var found []string
	for _, line := range strings.Split(mountinfo, "\n") {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		if point := unescape(fields[4]); point == dir || strings.HasPrefix(point, dir+"/") {
			found = append(found, point)
		}
	}
	return found
}

// unescape undoes the kernel's octal writing of spaces and the like.
func unescape(text string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(text)
}
