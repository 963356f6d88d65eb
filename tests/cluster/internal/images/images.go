// Package images makes the images of the cluster's own pods, one static program each, and loads image archives into
// the nodes' container runtimes.
package images

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"slm-swarm/tests/cluster/internal/layout"
	"slm-swarm/tests/cluster/internal/shell"
)

// nobody is the user of the cluster's own pods.
const nobody = "65534:65534"

// Ref is the name of a program's image: its tag is the program's fingerprint, so that another build is another image.
func Ref(c layout.Cluster, program string) string {
	return "localhost/slm-cluster:" + filepath.Base(filepath.Dir(c.Program(program)))
}

// Archive is the image of a program, kept beside it; it is made when it is not there.
func Archive(c layout.Cluster, program string) (string, error) {
	binary := c.Program(program)
	path := binary + ".image.tar"
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	image, err := single(binary)
	if err != nil {
		return "", fmt.Errorf("image of %s: %w", program, err)
	}
	tag, err := name.NewTag(Ref(c, program))
	if err != nil {
		return "", err
	}
	part := fmt.Sprintf("%s.part-%d", path, os.Getpid())
	defer os.Remove(part)
	if err := tarball.WriteToFile(part, tag, image); err != nil {
		return "", fmt.Errorf("write %s: %w", part, err)
	}
	return path, os.Rename(part, path)
}

// single is an image whose only file is the program.
func single(binary string) (v1.Image, error) {
	program, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	entry := filepath.Base(binary)
	var files bytes.Buffer
	writer := tar.NewWriter(&files)
	if err := writer.WriteHeader(&tar.Header{Name: entry, Mode: 0o755, Size: int64(len(program))}); err != nil {
		return nil, err
	}
	if _, err := writer.Write(program); err != nil {
		return nil, err
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(files.Bytes())), nil
	})
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config.Entrypoint, config.Config.User = []string{"/" + entry}, nobody
	return mutate.ConfigFile(image, config)
}

// Load imports archives (OCI or docker format) into every node for which `into` says yes, all nodes at once.
func Load(ctx context.Context, c layout.Cluster, archives []string, into func(node int) bool) error {
	for _, archive := range archives {
		if _, err := os.Stat(archive); err != nil {
			return fmt.Errorf("image archive: %w", err)
		}
	}
	failed := make([]error, c.Nodes)
	var group sync.WaitGroup
	for i := range c.Nodes {
		if !into(i) {
			continue
		}
		group.Go(func() {
			for _, archive := range archives {
				err := shell.Run(ctx, "ctr", "--address", c.Containerd(i), "--namespace", "k8s.io", "images", "import", archive)
				if err != nil {
					failed[i] = fmt.Errorf("load %s into %s: %w", archive, layout.NodeName(i), err)
					return
				}
			}
		})
	}
	group.Wait()
	return errors.Join(failed...)
}
