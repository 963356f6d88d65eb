package device

import (
	"context"
	"fmt"
	"strings"

	api "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"

	"slm-swarm/tests/cluster/internal/layout"
)

// plugin answers kubelet. All its units are healthy, always.
type plugin struct {
	api.UnimplementedDevicePluginServer
	device layout.Device
	ended  <-chan struct{}
}

// GetDevicePluginOptions asks kubelet for no calls beyond the required ones.
func (p *plugin) GetDevicePluginOptions(context.Context, *api.Empty) (*api.DevicePluginOptions, error) {
	return &api.DevicePluginOptions{}, nil
}

// ListAndWatch tells the units once; kubelet counts them for as long as the stream is open.
func (p *plugin) ListAndWatch(_ *api.Empty, stream api.DevicePlugin_ListAndWatchServer) error {
	var units []*api.Device
	for i := range p.device.Count {
		units = append(units, &api.Device{ID: fmt.Sprintf("fake-%d", i), Health: api.Healthy})
	}
	if err := stream.Send(&api.ListAndWatchResponse{Devices: units}); err != nil {
		return err
	}
	select {
	case <-stream.Context().Done():
	case <-p.ended:
	}
	return nil
}

// Allocate gives a container the units that kubelet chose: their names in its environment, as there is nothing else.
func (p *plugin) Allocate(_ context.Context, request *api.AllocateRequest) (*api.AllocateResponse, error) {
	response := &api.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		env := map[string]string{"SLM_FAKE_DEVICES": p.device.Resource + "=" + strings.Join(container.DevicesIds, ",")}
		response.ContainerResponses = append(response.ContainerResponses, &api.ContainerAllocateResponse{Envs: env})
	}
	return response, nil
}
