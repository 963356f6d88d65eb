// Package programs builds the programs of a cluster and keeps them: a build takes minutes, so each is kept under a
// fingerprint of all that decides it, and built again only when that changes.
package programs

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"

	"slm-swarm/tests/cluster/internal/shell"
)

// Kubernetes is the version that every component and client tells.
const Kubernetes = "v1.34.4"

// program is built from a module of this folder, or installed from the public module of its maintainers.
type program struct {
	name string
	// module is a folder below programs/; its go.mod and go.sum pin everything.
	module string
	// install is PACKAGE@VERSION, whose own go.mod pins everything.
	install string
}

func all() []program {
	return []program{
		{name: "pause", module: "pause"},
		{name: "probe", module: "probe"},
		{name: "registry", module: "registry"},
		{name: "coredns", module: "coredns"},
		{name: "kube", module: "kube"},
		{name: "oras", install: "oras.land/oras/cmd/oras@v1.3.6"},
		{name: "helm", install: "helm.sh/helm/v4/cmd/helm@v4.3.1"},
	}
}

// flags of every build. Static, so that a program can be an image's only file.
func flags() []string {
	version := "k8s.io/component-base/version."
	link := strings.Join([]string{
		"-s -w -X", version + "gitVersion=" + Kubernetes, "-X", version + "gitMajor=1", "-X", version + "gitMinor=34",
	}, " ")
	return []string{"-trimpath", "-buildvcs=false", "-ldflags", link}
}

// Ensure builds what is missing and returns each program's path. `source` is the folder that holds programs/.
// Several callers at once wait for each other.
func Ensure(ctx context.Context, source, cache string) (map[string]string, error) {
	kept := filepath.Join(cache, "cluster")
	if err := os.MkdirAll(kept, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.Open(kept)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", kept, err)
	}
	paths := map[string]string{}
	for _, p := range all() {
		print, err := p.fingerprint(source)
		if err != nil {
			return nil, err
		}
		path := filepath.Join(kept, p.name+"-"+print, p.name)
		if _, err := os.Stat(path); err != nil {
			if err := p.build(ctx, source, path); err != nil {
				return nil, err
			}
		}
		paths[p.name] = path
	}
	return paths, nil
}

// fingerprint tells builds apart: a module's files, or the package and version, and the flags.
func (p program) fingerprint(source string) (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, p.install, flags())
	if p.module != "" {
		files, err := filepath.Glob(filepath.Join(source, "programs", p.module, "*"))
		if err != nil || len(files) == 0 {
			return "", fmt.Errorf("no files in %s: is this a checkout of the project?", filepath.Join(source, "programs", p.module))
		}
		sort.Strings(files)
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				return "", err
			}
			fmt.Fprintf(sum, "%s %d\n%s\n", filepath.Base(file), len(text), text)
		}
	}
	return fmt.Sprintf("%x", sum.Sum(nil))[:16], nil
}

// build makes the program in a folder beside its place and then moves it there, so that half a build is never used.
func (p program) build(ctx context.Context, source, path string) error {
	shell.Say("building %s (once; minutes for the big ones)", p.name)
	part, err := os.MkdirTemp(filepath.Dir(filepath.Dir(path)), "part-"+p.name+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(part)
	var cmd *exec.Cmd
	if p.module != "" {
		cmd = exec.CommandContext(ctx, "go", append(append([]string{"build", "-o", filepath.Join(part, p.name)}, flags()...), ".")...)
		cmd.Dir = filepath.Join(source, "programs", p.module)
	} else {
		cmd = exec.CommandContext(ctx, "go", append(append([]string{"install"}, flags()...), p.install)...)
	}
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GOBIN="+part)
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", p.name, err, said)
	}
	if err := os.Chmod(part, 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		return err
	}
	return os.Rename(part, filepath.Dir(path))
}
