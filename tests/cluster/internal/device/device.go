// Package device pretends accelerators: a device plugin that registers an extended resource with a real kubelet, so
// that scheduling onto such nodes is tested for real where there is no such hardware. It runs inside the node's
// namespaces, as its own process.
package device

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"slm-swarm/tests/cluster/internal/layout"
	"slm-swarm/tests/cluster/internal/process"
)

// registerLimit is how long kubelet may take to answer a registration.
const registerLimit = 10 * time.Second

// Start starts the process that plays the device.
func Start(c layout.Cluster, d layout.Device) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return process.Start(c, process.Spec{Name: d.Process(), Node: d.Node, Args: []string{self, "play-device", d.String()}})
}

// Play is that process: it serves the device until ctx ends, and registers it again each time kubelet starts anew.
func Play(ctx context.Context, d layout.Device) error {
	return play(ctx, d, api.DevicePluginPath)
}

func play(ctx context.Context, d layout.Device, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer watcher.Close()
	if err := watcher.Add(dir); err != nil {
		return err
	}
	socket := filepath.Join(dir, "slm-"+strings.ReplaceAll(d.Resource, "/", "_")+".sock")
	kubelet := filepath.Join(dir, filepath.Base(api.KubeletSocket))
	for {
		if err := serve(ctx, d, socket, kubelet, watcher); err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// serve serves and registers until kubelet makes its socket anew, which is when it has forgotten all plugins.
func serve(ctx context.Context, d layout.Device, socket, kubelet string, watcher *fsnotify.Watcher) error {
	if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return fmt.Errorf("listen for kubelet: %w", err)
	}
	server := grpc.NewServer()
	api.RegisterDevicePluginServer(server, &plugin{device: d, ended: ctx.Done()})
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()

	// A failed registration is no end: kubelet may not be there yet.
	if err := register(ctx, d, filepath.Base(socket), kubelet); err != nil {
		log.Printf("not registered: %v; kubelet's next start is awaited", err)
	} else {
		log.Printf("registered %s", d)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-watcher.Errors:
			return err
		case event := <-watcher.Events:
			if event.Name == kubelet && event.Has(fsnotify.Create) {
				return nil
			}
		}
	}
}

func register(ctx context.Context, d layout.Device, endpoint, kubelet string) error {
	if _, err := os.Stat(kubelet); err != nil {
		return err
	}
	connection, err := grpc.NewClient("unix://"+kubelet, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(ctx, registerLimit)
	defer cancel()
	request := &api.RegisterRequest{Version: api.Version, Endpoint: endpoint, ResourceName: d.Resource}
	_, err = api.NewRegistrationClient(connection).Register(ctx, request, grpc.WaitForReady(true))
	return err
}
