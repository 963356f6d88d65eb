package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"slm-swarm/tests/cluster/internal/device"
	"slm-swarm/tests/cluster/internal/images"
	"slm-swarm/tests/cluster/internal/layout"
	"slm-swarm/tests/cluster/internal/lifecycle"
	"slm-swarm/tests/cluster/internal/node"
	"slm-swarm/tests/cluster/internal/process"
	"slm-swarm/tests/cluster/internal/programs"
)

func up(ctx context.Context, opts options) error {
	if os.Geteuid() != 0 {
		return errors.New("namespaces, cgroups and mounts need root: run it as root")
	}
	c := layout.Cluster{Name: opts.name, Root: opts.root, Nodes: opts.nodes}
	for _, text := range strings.FieldsFunc(opts.devices, func(r rune) bool { return r == ',' }) {
		device, err := layout.ParseDevice(text)
		if err != nil {
			return err
		}
		c.Devices = append(c.Devices, device)
	}
	if err := c.Check(); err != nil {
		return err
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return err
	}
	cache := setting("SLM_CACHE_DIR", filepath.Join(home, ".cache", "slm-swarm"))
	if c.Programs, err = programs.Ensure(ctx, setting("SLM_CLUSTER_SOURCE", "."), cache); err != nil {
		return err
	}
	c, err = lifecycle.Up(ctx, c)
	if err == nil {
		fmt.Printf("export KUBECONFIG=%s\n", quoted(c.Kubeconfig()))
	}
	return err
}

func down(ctx context.Context, opts options) error {
	return lifecycle.Down(ctx, opts.root, opts.name)
}

func status(ctx context.Context, opts options) error {
	c, err := layout.Load(opts.root, opts.name)
	if err != nil {
		return err
	}
	bad := 0
	for _, line := range lifecycle.Status(ctx, c) {
		if line.Wrong == nil {
			fmt.Printf("ok     %s\n", line.What)
			continue
		}
		bad++
		fmt.Printf("WRONG  %s: %v\n", line.What, line.Wrong)
	}
	if bad > 0 {
		return fmt.Errorf("%d parts are not well; see `scripts/cluster logs --name %s`", bad, c.Name)
	}
	return nil
}

func env(_ context.Context, opts options) error {
	c, err := layout.Load(opts.root, opts.name)
	if err != nil {
		return err
	}
	fmt.Printf("export KUBECONFIG=%s\n", quoted(c.Kubeconfig()))
	fmt.Printf("export SLM_REGISTRY=%s\n", c.Registry())
	fmt.Printf("export SLM_REGISTRY_NAME=%s\n", layout.RegistryName)
	fmt.Printf("export PATH=%s:\"$PATH\"\n", quoted(c.Path("bin")))
	return nil
}

// quoted is text as one word of a shell.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

func loadImage(ctx context.Context, opts options) error {
	c, err := layout.Load(opts.root, opts.name)
	if err != nil {
		return err
	}
	if len(opts.args) == 0 {
		return errors.New("which archive? write load-image FILE.tar")
	}
	return images.Load(ctx, c, opts.args, func(i int) bool { return node.Up(c, i) })
}

func logs(_ context.Context, opts options) error {
	c, err := layout.Load(opts.root, opts.name)
	if err != nil {
		return err
	}
	if len(opts.args) == 0 {
		fmt.Println(c.Path("logs"))
		for _, name := range lifecycle.Processes(c) {
			fmt.Println("  " + name)
		}
		return nil
	}
	text, err := os.ReadFile(process.Log(c, filepath.Base(opts.args[0])))
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(text)
	return err
}

// playDevice is not for people: it is the process that `device start` starts.
func playDevice(ctx context.Context, opts options) error {
	if len(opts.args) != 1 {
		return errors.New("which device?")
	}
	d, err := layout.ParseDevice(opts.args[0])
	if err != nil {
		return err
	}
	return device.Play(ctx, d)
}
