package device

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"slm-swarm/tests/cluster/internal/layout"
)

// kubelet takes registrations, as the real one does.
type kubelet struct {
	api.UnimplementedRegistrationServer
	registered chan *api.RegisterRequest
}

func (k *kubelet) Register(_ context.Context, request *api.RegisterRequest) (*api.Empty, error) {
	k.registered <- request
	return &api.Empty{}, nil
}

func startKubelet(t *testing.T, dir string) (*kubelet, *grpc.Server) {
	t.Helper()
	listener, err := net.Listen("unix", filepath.Join(dir, "kubelet.sock"))
	if err != nil {
		t.Fatal(err)
	}
	k, server := &kubelet{registered: make(chan *api.RegisterRequest, 1)}, grpc.NewServer()
	api.RegisterRegistrationServer(server, k)
	go func() { _ = server.Serve(listener) }()
	return k, server
}

// The device registers with kubelet, gives out its units, and registers again with a kubelet that was started anew.
func TestPlay(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	first, server := startKubelet(t, dir)
	ended := make(chan error, 1)
	go func() { ended <- play(ctx, layout.Device{Resource: "nvidia.com/gpu", Count: 2}, dir) }()
	request := receive(t, ctx, first.registered)
	if request.ResourceName != "nvidia.com/gpu" || request.Version != api.Version {
		t.Errorf("registered %v", request)
	}
	checkUnits(t, ctx, filepath.Join(dir, request.Endpoint))

	server.Stop() // removes its socket
	second, server := startKubelet(t, dir)
	defer server.Stop()
	receive(t, ctx, second.registered)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func receive(t *testing.T, ctx context.Context, registered <-chan *api.RegisterRequest) *api.RegisterRequest {
	t.Helper()
	select {
	case request := <-registered:
		return request
	case <-ctx.Done():
		t.Fatal("the device did not register")
		return nil
	}
}

func checkUnits(t *testing.T, ctx context.Context, socket string) {
	t.Helper()
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	client := api.NewDevicePluginClient(connection)
	stream, err := client.ListAndWatch(ctx, &api.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	if units, err := stream.Recv(); err != nil || len(units.Devices) != 2 || units.Devices[0].Health != api.Healthy {
		t.Errorf("units: %v, %v", units, err)
	}
	given, err := client.Allocate(ctx, &api.AllocateRequest{ContainerRequests: []*api.ContainerAllocateRequest{{DevicesIds: []string{"fake-1"}}}})
	if err != nil || given.ContainerResponses[0].Envs["SLM_FAKE_DEVICES"] != "nvidia.com/gpu=fake-1" {
		t.Errorf("allocated %v, %v", given, err)
	}
}
